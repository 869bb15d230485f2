"""Genres of two songs, and training without validation songs: every stage completes, no JSON file holds NaN."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest

from genre.errors import ModelError
from genre.models import cards
from genre.paths import Paths
from stages import baselines, ensemble, evaluate, extract, query, split, train, vectorize
from tests.made import write_params, write_songs

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("n_songs", "settings"),
    [(2, {"split__chunk_seconds": 10.0}), (3, {"train__members": 1, "train__patience": 1})],
)
def test_models_are_trained_without_validation_songs(
    project: Path, n_songs: int, settings: dict[str, float], capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(project, parallel__workers=1, train__epochs=1, **settings)
    write_songs(project / "dataset" / "tiny", n_songs)
    for stage in (split, extract, vectorize):
        assert stage.main([]) == 0
    assert train.main(["merged"]) == 0
    alone = Paths().architecture("merged").read_bytes(), Paths().onnx("merged").read_bytes()
    assert train.main([]) == 0
    assert alone == (Paths().architecture("merged").read_bytes(), Paths().onnx("merged").read_bytes())
    assert baselines.main(["stats_svm"]) == 0
    assert ensemble.main([]) == 0
    assert evaluate.main([]) == 0
    assert capsys.readouterr().out.count("no validation songs") == 4
    card = cards.read(cards.ENSEMBLE, Paths())
    assert (card.calibration.temperature, card.default, card.scores, card.rejection) == (1.0, cards.ENSEMBLE, {}, None)
    for path in project.rglob("*.json"):
        json.loads(path.read_text(), parse_constant=pytest.fail)
    assert not re.search(
        r"\bnan\b", re.sub(r"base64,[^\"]*", "", (project / "evaluation" / "report.html").read_text()), re.I
    )
    assert query.main([str(project / "dataset" / "tiny" / "low" / "song 0.flac"), "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out, parse_constant=pytest.fail)["genre"] in ("high", "low")
    write_params(project, parallel__workers=1, split__seed=1, **settings)  # training songs become test songs
    assert [stage.main([]) for stage in (split, extract, vectorize)] == [0, 0, 0]
    for later, message in ((evaluate, "mfcc was trained on other vectors"), (ensemble, "merged is not trained on")):
        with pytest.raises(ModelError, match=message):
            later.main([])


def test_the_ensemble_is_the_default_unless_the_gain_of_a_model_exceeds_its_standard_error() -> None:
    gains = {"merged": ensemble.gain(np.array([0.3, -0.2])), "knn": ensemble.gain(np.array([-0.1, -0.1]))}
    assert ensemble.default_model(gains) == "ensemble"
    assert ensemble.default_model(gains | {"stats_svm": ensemble.gain(np.array([0.1, 0.2]))}) == "stats_svm"
