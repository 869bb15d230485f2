"""Temperatures make confidence match accuracy."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre.errors import ModelError
from genre.models import calibration
from genre.models.calibration import Validation, calibrate


@given(st.floats(0.2, 5.0), st.integers(0, 100))
def test_a_temperature_keeps_the_order_of_the_genres(temperature: float, seed: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(3), 4).astype(np.float32)
    calibrated = calibrate(probabilities, temperature)
    assert calibrated.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert calibrated.argmax(axis=1).tolist() == probabilities.argmax(axis=1).tolist()


def test_an_overconfident_model_gets_a_confidence_equal_to_its_accuracy() -> None:
    labels = np.arange(100) % 2
    predicted = np.where(np.arange(100) < 70, labels, 1 - labels)
    overconfident = np.where(np.eye(2)[predicted] == 1, 0.9, 0.1).astype(np.float32)
    temperature = calibration.fit_temperature(overconfident, labels)
    assert temperature == pytest.approx(math.log(0.9 / 0.1) / math.log(0.7 / 0.3), rel=0.01)
    assert calibrate(overconfident, temperature).max() == pytest.approx(0.7, abs=0.01)
    assert calibration.fit_temperature(np.empty((0, 2), np.float32), np.empty(0, np.int64)) == 1.0


def test_validation_folds_hold_whole_songs_and_leave_every_genre() -> None:
    labels = np.append(np.repeat([0, 1, 2], 12), 3)
    songs = [f"{label}/{i // 2 % 6}" for i, label in enumerate(labels)]
    validated: list[int] = []
    for rows in calibration.validation_folds(labels, songs, 4, np.random.default_rng(0)):
        rest = np.setdiff1d(np.arange(len(labels)), rows)
        assert not {songs[i] for i in rows} & {songs[i] for i in rest}
        assert set(labels[rest]) == {0, 1, 2, 3}
        validated += rows.tolist()
    assert sorted(validated) == list(range(len(labels) - 1))  # each once, except the only song of its genre


def test_only_chunks_that_every_model_held_out_are_common() -> None:
    first = Validation(np.array([0, 1, 2, 1]), np.array([[0.2], [0.4], [0.6], [0.8]], np.float32))
    second = Validation(np.array([1, 3]), np.array([[0.1], [0.3]], np.float32))
    rows, (of_first, of_second) = calibration.common_predictions([first, second])
    assert rows.tolist() == [1]
    assert of_first.item() == pytest.approx(0.6)  # the mean of two predictions
    assert of_second.item() == pytest.approx(0.1)


def test_validation_predictions_are_read_back(tmp_path: Path) -> None:
    validation = Validation(np.array([3, 1]), np.array([[0.25, 0.75], [0.1, 0.9]], np.float32))
    calibration.write_validation(tmp_path / "v.csv", validation, ["with, comma", "# hash"])
    restored = calibration.read_validation(tmp_path / "v.csv")
    assert np.array_equal(restored.rows, validation.rows)
    assert np.array_equal(restored.probabilities, validation.probabilities)


@pytest.mark.parametrize(("data", "message"), [(None, "dvc repro"), ("row,a\n1,x\n", "damaged")])
def test_missing_or_damaged_validation_predictions_are_reported(tmp_path: Path, data: str | None, message: str) -> None:
    if data is not None:
        (tmp_path / "v.csv").write_text(data)
    with pytest.raises(ModelError, match=message):
        calibration.read_validation(tmp_path / "v.csv")
