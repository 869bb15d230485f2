"""Scores agree with scikit-learn and with counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn import metrics as sklearn_metrics

from genre.errors import ModelError
from genre.evaluation import metrics

SONGS = ["a", "a", "a", "b", "c", "c"]
LABELS = np.array([0, 0, 0, 1, 2, 2])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.2, 0.2, 0.6], [0.3, 0.1, 0.6]],
    dtype=np.float32,
)
PREDICTIONS = metrics.by_song(PROBABILITIES, LABELS, SONGS)


def test_songs_are_scored_by_vote_and_chunks_one_by_one() -> None:
    scored = metrics.scores(PREDICTIONS)
    assert scored["song_accuracy"] == pytest.approx(2 / 3)
    assert scored["chunk_accuracy"] == pytest.approx(4 / 6)
    assert (scored["n_songs"], scored["n_chunks"]) == (3, 6)


def test_genres_and_confusion_are_counted_over_songs() -> None:
    assert metrics.confusion_matrix([PREDICTIONS], 3).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    row = metrics.per_genre([PREDICTIONS], 3)[2]
    assert (row["precision"], row["recall"], row["songs"]) == (0.5, 1.0, 1)
    assert row["f1"] == pytest.approx(2 / 3)
    assert (row["recall_low"], row["recall_high"]) == metrics.accuracy_interval(1.0, 1)
    assert metrics.per_genre([PREDICTIONS] * 3, 3)[2] == row


def test_scores_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    probabilities = rng.dirichlet(np.ones(3), 60).astype(np.float32)
    probabilities[::2] = np.eye(3, dtype=np.float32)[rng.integers(0, 3, 30)] * 0.4 + 0.2  # ties
    songs = [str(n) for n in range(60)]
    scored = metrics.scores(metrics.by_song(probabilities, labels, songs))
    exact = probabilities.astype(np.float64) / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    assert scored["roc_auc"] == pytest.approx(sklearn_metrics.roc_auc_score(labels, exact, multi_class="ovr"), abs=1e-6)
    assert scored["log_loss"] == pytest.approx(sklearn_metrics.log_loss(labels, exact), abs=1e-6)
    precision = sklearn_metrics.average_precision_score(np.eye(3)[labels], exact)
    assert scored["macro_average_precision"] == pytest.approx(precision, abs=1e-6)
    error = np.std(np.log(exact[np.arange(60), labels])) / np.sqrt(60)
    assert scored["log_loss_high"] - scored["log_loss_low"] == pytest.approx(2 * 1.96 * error, rel=0.15)
    columns = sklearn_metrics.precision_recall_fscore_support(labels, exact.argmax(axis=1), average="macro")
    assert [scored[f"macro_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(columns[:3])


@pytest.mark.parametrize(("n_songs", "n_wrong"), [(1, 0), (1, 1), (2, 0), (20, 0), (2000, 0), (20, 3), (200, 60)])
def test_every_interval_contains_its_score_and_is_not_empty(n_songs: int, n_wrong: int) -> None:
    labels = np.arange(n_songs) % 3
    guesses = np.where(np.arange(n_songs) < n_wrong, (labels + 1) % 3, labels)
    predictions = metrics.by_song(np.eye(3)[guesses] * 0.7 + 0.1, labels, [str(n) for n in range(n_songs)])
    scored = metrics.scores(predictions)
    assert scored == metrics.scores(predictions, predictions)  # the same songs again are no new songs
    for name in (name.removesuffix("_low") for name in scored if name.endswith("_low")):
        low, value, high = (scored[f"{name}{end}"] for end in ("_low", "", "_high"))
        assert low <= value <= high and high - low > 0.001, name
    wilson = binomtest(n_songs - n_wrong, n_songs).proportion_ci(method="wilson")
    interval = scored["song_accuracy_low"], scored["song_accuracy_high"]
    assert interval == pytest.approx((wilson.low, wilson.high), abs=1e-6)


def test_holms_correction() -> None:
    assert metrics.holm([0.04, 0.01, 0.03, 0.9]) == pytest.approx([0.09, 0.04, 0.09, 0.9])


def test_a_genre_without_test_songs_does_not_count() -> None:
    with_fourth = np.pad(PROBABILITIES, ((0, 0), (0, 1)))
    scored = metrics.scores(metrics.by_song(with_fourth, LABELS, SONGS))
    assert scored == pytest.approx(metrics.scores(PREDICTIONS), abs=1e-9)


def test_the_calibration_error_is_the_distance_of_confidence_and_accuracy() -> None:
    confidences = np.array([0.95] * 10 + [0.65] * 10)
    correct = np.array([True] * 10 + [True] * 5 + [False] * 5)
    weights = np.repeat([[1.0, 1.0], [2.0, 0.0]], 10, axis=1)
    assert metrics.calibration_error(confidences, correct, weights) == pytest.approx([(0.05 + 0.15) / 2, 0.05])


def test_probabilities_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ModelError, match="NaN"):
        metrics.by_song(PROBABILITIES * np.float32(np.nan), LABELS, SONGS)
