"""Models are loaded by name, checked against their cards, and predict what their ONNX files compute."""

from __future__ import annotations

import functools
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genre.errors import ModelError
from genre.features.numpy_engine import compute
from genre.features.transforms import Settings
from genre.models import baselines, cards, predict
from genre.models.calibration import Calibration, calibrate
from genre.models.embeddings import Batch, Embedder
from genre.models.onnx import OUTPUT
from genre.paths import Paths
from tests.made import noise
from tests.models.conftest import GENRES, embeddings_of_genres

pytestmark = pytest.mark.slow

SETTINGS = Settings(22_050, 3.0, 1.0)
CALIBRATION = Calibration(2.0, [0.1, 0.5])


@functools.cache
def train(name: str) -> baselines.TrainedBaseline:
    return baselines.train(name, *embeddings_of_genres())


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Return a project with two classifiers of the embedding `statistics` and an ensemble of both."""
    paths = Paths(tmp_path)
    for name in ("stats_svm", "knn"):
        trained = train(name)
        card = cards.ModelCard(
            name,
            baselines.BASELINES[name].classifier,
            GENRES,
            SETTINGS,
            embedding=Embedder("statistics", paths).describe(),
            calibration=trained.calibration,
        )
        cards.write(card, paths, trained.onnx)
    ensemble = cards.ModelCard(
        "ensemble", "ensemble", GENRES, SETTINGS, models=["stats_svm", "knn"], calibration=CALIBRATION
    )
    cards.write(replace(ensemble, default="knn"), paths)
    return paths


def batch() -> Batch:
    """Return two chunks of noise."""
    chunks = [compute(noise(66_150, seed), 22_050) for seed in (1, 2)]
    return Batch({feature: np.stack([chunk[feature] for chunk in chunks]) for feature in chunks[0]})


def change_card(paths: Paths, name: str = "stats_svm", **changes: Any) -> None:
    paths.card(name).write_text(json.dumps(json.loads(paths.card(name).read_text()) | changes))


def change_graph(paths: Paths, graph: bytes) -> None:
    """Replace the ONNX file of `knn`, with its digest in the card."""
    cards.write(cards.read("knn", paths), paths, graph)


def test_a_model_predicts_its_calibrated_onnx_file_and_its_card_is_read_back(paths: Paths) -> None:
    predictor = predict.load("stats_svm", paths)
    vectors = Embedder("statistics", paths).of_features(batch().features)
    expected = calibrate(baselines.predict(paths.onnx("stats_svm").read_bytes(), vectors), predictor.card.calibration)
    np.testing.assert_allclose(predictor.predict(batch()), expected, atol=1e-6)
    cards.write(predictor.card, paths)
    assert cards.read("stats_svm", paths) == predictor.card


def test_the_ensemble_averages_its_models(paths: Paths) -> None:
    members = [predict.load(name, paths).predict(batch()) for name in ("stats_svm", "knn")]
    expected = calibrate(np.mean(members, axis=0), CALIBRATION)
    np.testing.assert_allclose(predict.load("ensemble", paths).predict(batch()), expected, atol=1e-6)


def test_the_default_is_the_ensembles_choice(paths: Paths) -> None:
    assert predict.load(None, paths).card.model == "knn"
    change_card(paths, "ensemble", default="ensemble")
    assert predict.load(None, paths).card.model == "ensemble"
    paths.card("ensemble").unlink()
    with pytest.raises(ModelError, match="unknown model merged; there are: knn, stats_svm"):
        predict.load(None, paths)


def test_a_model_loads_in_the_background_and_its_first_prediction_raises_the_errors(paths: Paths) -> None:
    predictor = predict.load("knn", paths, wait=False)
    assert predictor.card.genres == GENRES
    np.testing.assert_array_equal(predictor.predict(batch()), predict.load("knn", paths).predict(batch()))
    paths.onnx("knn").write_bytes(b"")
    predictor = predict.load("knn", paths, wait=False)
    with pytest.raises(ModelError, match="SHA-256"):
        predictor.predict(batch())


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("stats_svm", {"settings": SETTINGS.to_dict() | {"sample_rate": 44_100}}, "made with other digest"),
        ("stats_svm", {"embedding": {"name": "statistics", "n_values": 287, "version": 0}}, "this version computes"),
        ("stats_svm", {"embedding": None}, "cannot be used"),
        ("stats_svm", {"genres": ["folk", "folk", "rock"]}, "cannot be used"),
        ("stats_svm", {"genres": ["folk", "rock"]}, "inputs or outputs"),
        ("stats_svm", {"genres": ["folk", "x\ngenre: \x1b]0;x\x07"]}, r"'x\\ngenre: \\x1b.* has a slash, a control"),
        ("stats_svm", {"genres": ["folk", "rock", "../../x"]}, "has a slash"),
        ("stats_svm", {"genres": ["folk", "rock", "\uff1dx"]}, "would be a formula"),
        ("stats_svm", {"genres": ["folk", "rock", "unknown"]}, "is an answer of query"),
        ("stats_svm", {"calibration": {"temperature": 1e-300, "scores": []}}, "temperature"),
        ("stats_svm", {"calibration": {"temperature": 1.0, "scores": [0.5, 0.1]}}, "scores"),
        ("stats_svm", {"onnx_sha256": "0" * 64}, "SHA-256"),
        ("stats_svm", {"extra": 1}, "cannot be used"),
        ("ensemble", {"models": []}, "cannot be used"),
        ("ensemble", {"models": ["ensemble"]}, "cannot be used"),
        ("stats_svm", {"dataset": ["folk"]}, "cannot be used"),
        ("stats_svm", {"calibration": {"temperature": "1.5", "scores": []}}, "cannot be used"),
        ("ensemble", {"genres": ["folk", "jazz", "pop"]}, "stats_svm was trained on other vectors"),
        ("ensemble", {"dataset": {"vectors": "0"}}, "stats_svm was trained on other vectors"),
    ],
)
def test_a_card_that_does_not_match_is_refused(paths: Paths, name: str, change: dict[str, Any], message: str) -> None:
    change_card(paths, name, **change)
    with pytest.raises(ModelError, match=message):
        predict.load(name, paths)


@pytest.mark.parametrize("factor", [-1e30, 3e38, -1.0, 0.9, 2.0])
def test_outputs_that_are_no_probabilities_are_refused(paths: Paths, factor: float) -> None:
    import onnx

    model = onnx.load_from_string(paths.onnx("knn").read_bytes())
    for node in model.graph.node:
        node.output[:] = ["own" if name == OUTPUT else name for name in node.output]
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(factor, np.float32), "factor"))
    model.graph.node.append(onnx.helper.make_node("Mul", ["own", "factor"], [OUTPUT]))
    change_graph(paths, model.SerializeToString())
    for name in ("knn", "ensemble"):
        with pytest.raises(ModelError, match="knn returned values that are not probabilities"):
            predict.load(name, paths).predict(batch())


def test_a_file_that_is_no_graph_or_has_its_weights_in_another_file_is_refused(paths: Paths) -> None:
    import onnx

    graph = onnx.load_from_string(paths.onnx("knn").read_bytes())
    onnx.save(graph, str(paths.onnx("knn")), save_as_external_data=True, location="weights", size_threshold=0)
    for data, message in (
        (paths.onnx("knn").read_bytes(), "weights in another file"),
        (b"no graph", "cannot be loaded"),
    ):
        change_graph(paths, data)
        with pytest.raises(ModelError, match=rf"knn_model\.onnx.*{message}"):
            predict.load("knn", paths)


def test_a_model_name_that_is_a_path_and_a_folder_without_models_are_refused(paths: Paths, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="not a valid model name"):
        predict.load("../knn", paths)
    with pytest.raises(ModelError, match=rf"in {re.escape(str(tmp_path / 'empty'))}: run .* root folder"):
        predict.load("merged", Paths(tmp_path / "empty"))
