"""Scores agree with scikit-learn, with counts done by hand, and with what a chance model must get."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics

from genre.errors import VectorError
from genre.evaluation import metrics as evaluation

SONGS = ["a", "a", "a", "b", "c", "c"]
LABELS = np.array([0, 0, 0, 1, 2, 2])
PROBABILITIES = np.array(
    [[0.8, 0.1, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.1, 0.3, 0.6], [0.2, 0.2, 0.6], [0.3, 0.1, 0.6]],
    dtype=np.float32,
)


def test_songs_are_scored_by_vote_and_chunks_one_by_one() -> None:
    scored = evaluation.scores(PROBABILITIES, LABELS, SONGS)
    assert scored["song_accuracy"] == pytest.approx(2 / 3)
    assert scored["chunk_accuracy"] == pytest.approx(4 / 6)
    assert (scored["n_songs"], scored["n_chunks"]) == (3, 6)


def test_genres_and_confusion_are_counted_over_songs() -> None:
    predictions = evaluation.by_song(PROBABILITIES, LABELS, SONGS)
    assert evaluation.confusion(predictions, 3).tolist() == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    precision, recall, f1, n_songs = evaluation.per_genre(predictions, 3)[2]
    assert (precision, recall, n_songs) == (0.5, 1.0, 1)
    assert f1 == pytest.approx(2 / 3)


def test_roc_auc_is_scikit_learns_macro_average() -> None:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    probabilities = rng.dirichlet(np.ones(3), 60).astype(np.float32)
    songs = [str(n) for n in range(60)]
    scored = evaluation.scores(probabilities, labels, songs)
    exact = probabilities.astype(np.float64) / probabilities.sum(axis=1, keepdims=True, dtype=np.float64)
    assert scored["roc_auc"] == pytest.approx(metrics.roc_auc_score(labels, exact, multi_class="ovr"), abs=1e-6)
    assert scored["log_loss"] == pytest.approx(metrics.log_loss(labels, exact), abs=1e-6)


def test_the_interval_holds_the_accuracy_and_narrows_with_songs() -> None:
    widths = []
    for n_songs in (20, 2000):
        correct = np.arange(n_songs) % 4 > 0
        low, high = evaluation.bootstrap_interval(correct)
        assert low < 0.75 < high
        widths.append(high - low)
    assert widths[0] > 5 * widths[1]


def test_a_genre_without_test_songs_does_not_count() -> None:
    with_fourth = np.pad(PROBABILITIES, ((0, 0), (0, 1)))
    assert evaluation.scores(with_fourth, LABELS, SONGS) == evaluation.scores(PROBABILITIES, LABELS, SONGS)


def test_a_song_with_two_labels_is_refused() -> None:
    with pytest.raises(VectorError, match="chunks of a have different labels"):
        evaluation.by_song(PROBABILITIES, np.array([0, 1, 0, 1, 2, 2]), SONGS)


def test_lengths_that_differ_are_refused() -> None:
    with pytest.raises(VectorError, match="differ"):
        evaluation.by_song(PROBABILITIES, LABELS[:5], SONGS)
