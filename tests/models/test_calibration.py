"""Temperatures make confidence match accuracy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre.errors import ModelError
from genre.models import calibration
from genre.models.calibration import Calibration, Validation, calibrate


@given(st.floats(0.05, 20.0), st.integers(0, 50), st.integers(0, 100))
def test_calibration_keeps_the_order_of_the_genres_below_the_cap(temperature: float, n_songs: int, seed: int) -> None:
    probabilities = np.random.default_rng(seed).dirichlet(np.ones(3), 4).astype(np.float32)
    calibrated = calibrate(np.concatenate([probabilities, np.eye(3, dtype=np.float32)]), songs_of(n_songs, temperature))
    cap = (max(1, n_songs) + 1) / (max(1, n_songs) + 2)
    assert calibrated.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert calibrated[:4].max() <= calibrated[4:].max() + 1e-6
    assert calibrated.max() <= cap + 1e-6
    assert (np.diff(calibrated[:4], axis=1) * np.diff(probabilities, axis=1) >= -1e-9).all()
    if temperature <= 1:
        assert calibrated[4:].diagonal() == pytest.approx([cap] * 3, abs=1e-5)


def songs_of(n_songs: int, temperature: float = 1.0) -> Calibration:
    return Calibration(temperature, np.linspace(0, 1, n_songs).tolist())


def test_an_overconfident_model_gets_a_confidence_equal_to_its_accuracy() -> None:
    labels = np.arange(1000) % 2
    predicted = np.where(np.arange(1000) < 700, labels, 1 - labels)
    overconfident = np.where(np.eye(2)[predicted] == 1, 0.9, 0.1).astype(np.float32)
    songs = [str(n) for n in range(1000)]
    fitted = calibration.fit(overconfident, labels, songs)
    assert calibrate(overconfident, fitted).max() == pytest.approx(0.7, abs=0.01)
    assert fitted.scores == sorted(fitted.scores) and fitted.n_songs == 1000
    assert calibration.fit(np.empty((0, 2), np.float32), np.empty(0, np.int64), []) == Calibration()


def test_each_song_weighs_the_same_and_few_perfect_songs_keep_a_finite_temperature(
    caplog: pytest.LogCaptureFixture,
) -> None:
    labels = np.array([0, 0, 0, 1, 1, 0, 1, 0])
    predictions = np.where(np.eye(2)[labels] == 1, 0.6, 0.4).astype(np.float32)
    songs = ["a", "b", "c", "d", "e", "f", "g", "h"]
    fitted = calibration.fit(predictions, labels, songs)
    assert 0.2 < fitted.temperature < 0.8  # without the prior it is at the end of the search
    assert calibrate(predictions, fitted).max() < 9 / 10
    rows = np.repeat(np.arange(8), [1, 5, 1, 1, 1, 1, 1, 9])
    assert calibration.fit(predictions[rows], labels[rows], [songs[row] for row in rows]) == fitted
    assert not caplog.records
    many = np.tile(np.array([[0.501, 0.499]], np.float32), (2000, 1))
    calibration.fit(many, np.zeros(2000, np.int64), [str(n) for n in range(2000)])
    assert "at the end of the search" in caplog.text


@pytest.mark.parametrize("n_folds", [2, 4, 5, 8])
def test_validation_folds_are_blocks_of_neighbouring_songs_and_hold_out_each_once(n_folds: int) -> None:
    counts = [12, 3, 7, 1]  # songs of each genre, of two chunks
    songs = [f"{genre}/song {n}" for genre, count in enumerate(counts) for n in range(count) for _ in "ab"]
    labels = np.array([int(song[0]) for song in songs])
    folds = calibration.validation_folds(labels, songs, n_folds)
    assert len(folds) == n_folds and not calibration.validation_folds(labels, songs, 1)[0].size
    held_out = np.concatenate(folds)
    assert sorted(held_out) == list(range(len(labels) - 2))  # each once, except the only song of its genre
    for rows in folds:
        rest = np.setdiff1d(np.arange(len(labels)), rows)
        assert not {songs[i] for i in rows} & {songs[i] for i in rest}
        assert set(labels[rest]) == {0, 1, 2, 3}
        for genre in set(labels[rows].tolist()):
            numbers = sorted({int(songs[i].split()[1]) for i in rows if labels[i] == genre})
            assert numbers == list(range(numbers[0], numbers[-1] + 1))


def test_prediction_sets_hold_the_genre_at_their_coverage_and_few_songs_have_none() -> None:
    rng = np.random.default_rng(3)
    hits, sizes = [], []
    for _ in range(40):
        probabilities = rng.dirichlet([0.5] * 5, 200)
        labels = np.array([rng.choice(5, p=p) for p in probabilities])
        calibrated = Calibration(1.0, np.sort(1 - probabilities[np.arange(99), labels[:99]]).tolist())
        for p, label in zip(probabilities[99:], labels[99:], strict=True):
            genres = calibrated.genre_set(p, int(p.argmax()), 0.9)
            assert genres is not None and genres[0] == p.argmax()
            hits.append(label in genres)
            sizes.append(len(genres))
    assert np.mean(hits) == pytest.approx(0.9, abs=0.02)
    assert 1.0 < np.mean(sizes) < 5.0
    means = np.array([0.7, 0.2, 0.1])
    assert songs_of(8).genre_set(means, 0, 0.9) is None
    assert songs_of(9).genre_set(means, 0, 0.9) is not None
    assert Calibration(1.0, [0.1] * 20).genre_set(means, 1, 0.9) == [1]  # at least the predicted genre


def test_only_chunks_that_every_model_held_out_are_common() -> None:
    first = Validation(np.array([0, 1, 2, 1]), np.array([[0.2], [0.4], [0.6], [0.8]], np.float32))
    second = Validation(np.array([1, 3]), np.array([[0.1], [0.3]], np.float32))
    rows, (of_first, of_second) = calibration.common_predictions([first, second])
    assert rows.tolist() == [1]
    assert of_first.item() == pytest.approx(0.6)  # the mean of two predictions
    assert of_second.item() == pytest.approx(0.1)


def test_validation_predictions_are_read_back_unless_they_are_missing_or_damaged(tmp_path: Path) -> None:
    path = tmp_path / "v.csv"
    with pytest.raises(ModelError, match="dvc repro"):
        calibration.read_validation(path)
    validation = Validation(np.array([3, 1]), np.array([[0.25, 0.75], [0.1, 0.9]], np.float32))
    calibration.write_validation(path, validation, ["with, comma", "# hash"])
    restored = calibration.read_validation(path)
    assert np.array_equal(restored.rows, validation.rows)
    assert np.array_equal(restored.probabilities, validation.probabilities)
    path.write_text("row,a\n1,x\n")
    with pytest.raises(ModelError, match="damaged"):
        calibration.read_validation(path)
