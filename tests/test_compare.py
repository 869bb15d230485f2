"""The comparison as a command: what it writes, that it goes on where it stopped, and that test labels teach nothing."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from genre.audio import manifest
from genre.audio.manifest import Row
from genre.errors import ModelError
from genre.evaluation import comparison
from genre.evaluation.comparison import Fold
from genre.features import arrays
from genre.features.arrays import Split, VectorWriter
from genre.features.settings import Settings
from genre.features.transforms import TRANSFORMS
from genre.models import baselines
from genre.models.training import fit
from stages import compare
from tests.conftest import write_params

N_SONGS = 12  # of a side and genre


@pytest.fixture
def data(project: Path) -> Path:
    """Write made vectors of two genres that differ a little, and return the project."""
    _forget()
    rng = np.random.default_rng(0)
    write_params(project, parallel__workers=1, compare__folds=3, compare__repeats=2)
    labels = [n % 2 for n in range(2 * N_SONGS)]
    sides: tuple[Split, Split] = ("train", "test")
    for side in sides:
        for transform in TRANSFORMS.values():
            with VectorWriter(Path("pickled_vectors"), transform, side, len(labels)) as writer:
                for label in labels:
                    values = rng.gamma(2.0 + label, 1.0, (40, transform.columns)).astype(np.float32)
                    writer.add(values, "made")
            arrays.write_labels(Path("pickled_vectors"), transform, side, labels, 2)
    names: dict[Split, list[str]] = {
        side: [f"{'xy'[label]}/{side} {n}" for n, label in enumerate(labels)] for side in sides
    }
    arrays.write_names(Path("pickled_vectors"), ["x", "y"], names, Settings(22_050, 3.0, 1.0))
    rows = [
        Row(f"{side}/x.wav", f"{side} {n}", "xy"[label], side, 0.0, 3.0, f"dataset/tiny/{side} {n}", f"{side} {n}")
        for side in sides
        for n, label in enumerate(labels)
    ]
    manifest.write(Path("chunks"), rows)
    return project


def _written(project: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (project / "comparison").rglob("*.*")}


def _forget() -> None:
    for cached in (compare._data, compare._embedded, compare._digest_of_data):
        cached.cache_clear()


def test_the_figures_are_written_and_a_second_run_trains_nothing(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["--models", "stats_svm", "knn", "ensemble"]
    write_params(data, parallel__workers=1, compare__folds=3, compare__repeats=2, ensemble__models=["stats_svm", "knn"])
    assert compare.main(arguments) == 0
    first = _written(data)
    figures = {"results.csv", "results.json", "metrics.json", "table.md", "song_accuracy.png", "report.html"}
    assert set(first) == figures | {"stats_svm.csv", "knn.csv", "ensemble.csv"}
    found = json.loads(first["results.json"])
    assert set(found["models"]) == {"stats_svm", "knn", "ensemble"}
    assert found["songs"] == 4 * N_SONGS
    said = list(csv.DictReader(first["ensemble.csv"].decode().splitlines()))
    assert len(said) == 2 * found["songs"]  # each song once a repeat
    rows = {row["model"]: row for row in csv.DictReader(first["results.csv"].decode().splitlines())}
    assert float(rows["stats_svm"]["song_accuracy"]) > 0.8
    assert capsys.readouterr().out == first["table.md"].decode()

    def never(*_: object, **__: object) -> None:
        raise AssertionError("it is done already")

    monkeypatch.setattr(baselines, "fit", never)
    assert compare.main(arguments) == 0
    assert _written(data) == first


def test_other_data_are_never_answered_from_the_cache(data: Path) -> None:
    assert compare.main(["--models", "knn"]) == 0
    n_kept = len(list((data / ".cache" / "compare").iterdir()))
    path = data / "pickled_vectors" / "songs.json"
    path.write_text(path.read_text().replace("x/train 0", "x/another"))
    _forget()
    assert compare.main(["--models", "knn"]) == 0
    assert len(list((data / ".cache" / "compare").iterdir())) > n_kept


def test_an_unknown_model_is_told_with_the_known_ones(data: Path) -> None:
    with pytest.raises(ModelError, match="no model forest to compare: choose from mfcc"):
        compare.main(["--models", "forest"])


def test_a_fixed_split_tests_on_the_test_side_alone(data: Path) -> None:
    write_params(data, parallel__workers=1, compare__split="fixed", compare__repeats=1)
    assert compare.main(["--models", "knn"]) == 0
    found = json.loads((data / "comparison" / "results.json").read_text())
    assert found["models"]["knn"]["n_songs"] == 2 * N_SONGS


def _weights(labels: np.ndarray, fold: Fold) -> list[np.ndarray]:
    data = compare._data()
    inputs = {feature: array[fold.train] for feature, array in data.inputs.items()}
    songs = [data.songs[row] for row in fold.train]
    trained = fit(inputs, labels[fold.train], songs, model="mfcc", n_genres=2, members=2, epochs=2, filters=4, seed=0)
    found: list[np.ndarray] = trained.model.get_weights()
    return found


def test_poisoned_test_labels_change_no_trained_weight(data: Path) -> None:
    made = compare._data()
    fold = comparison.folds(made.labels, made.songs, n_folds=3, n_repeats=1, seed=0)[0]
    poisoned = made.labels.copy()
    poisoned[fold.test] = 1 - poisoned[fold.test]
    for ours, theirs in zip(_weights(made.labels, fold), _weights(poisoned, fold), strict=True):
        assert np.array_equal(ours, theirs)
    embedded, _ = compare._embedded("statistics")
    ours, theirs = (
        baselines.fit(
            "stats_svm", embedded[fold.train], labels[fold.train], [made.songs[r] for r in fold.train], n_genres=2
        ).predict(embedded)
        for labels in (made.labels, poisoned)
    )
    assert np.array_equal(ours, theirs)
