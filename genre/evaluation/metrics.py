"""Scores of genre predictions over the songs of a test set.

A model predicts chunks. The prediction of a song is the vote of its chunks (`genre.models.vote`). Scores are computed
over songs unless their name says otherwise, because the chunks of one song are not independent samples.

Conventions
-----------
Genres are class indices from 0 to n_genres - 1. Probabilities are arrays of shape (n_chunks, n_genres) whose rows sum
to 1, labels are integer arrays of shape (n_chunks,), and songs are sequences with the song name of each chunk.
`scores`, `per_genre` and `confusion_matrix` take the list of `SongPrediction` that `by_song` returns.

Examples
--------
>>> import numpy as np
>>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]], np.float32)
>>> predictions = by_song(probabilities, np.array([0, 0, 1]), ["song a", "song a", "song b"])
>>> [prediction.predicted for prediction in predictions]
[0, 0]
>>> scores(predictions)["song_accuracy"]
0.5
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from genre.errors import EvaluationError
from genre.models.vote import vote

Z_95 = 1.959964  # 97.5 % quantile of the normal distribution
CALIBRATION_BINS = 10
MIN_PROBABILITY = 1e-12  # lower bound in the log loss


@dataclass(frozen=True, slots=True)
class SongPrediction:
    """The prediction of one song."""

    song: str
    actual: int  # class index of the true genre
    predicted: int  # class index of the predicted genre
    confidence: float  # mean probability of the predicted genre over the chunks
    n_chunks: int
    n_correct_chunks: int
    probabilities: npt.NDArray[np.float64]  # shape (n_genres,), mean over the chunks


def validate(probabilities: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int64], songs: Sequence[str]) -> None:
    """Raise EvaluationError for empty arrays, different lengths, non-finite probabilities or labels out of range."""
    if probabilities.ndim != 2 or not len(probabilities) == len(labels) == len(songs):
        raise EvaluationError(
            f"probabilities of shape {probabilities.shape}, {len(labels)} labels and {len(songs)} song names do not fit"
        )
    if not len(songs):
        raise EvaluationError("the set of chunks to score is empty")
    if not np.isfinite(probabilities).all():
        raise EvaluationError("the probabilities contain NaN or infinity")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise EvaluationError(f"labels must be 0 to {probabilities.shape[1] - 1}")


def by_song(
    probabilities: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int64], songs: Sequence[str]
) -> list[SongPrediction]:
    """Return the prediction of each song, in the order of first appearance.

    Raises EvaluationError if the arguments fail `validate`, or the chunks of one song have different labels.
    """
    validate(probabilities, labels, songs)
    rows: dict[str, list[int]] = {}
    for row, song in enumerate(songs):
        rows.setdefault(song, []).append(row)
    predictions = []
    for song, positions in rows.items():
        of_song, actual = probabilities[positions], int(labels[positions[0]])
        if (labels[positions] != actual).any():
            raise EvaluationError(f"the chunks of {song} have different labels")
        result = vote(of_song)
        n_correct = int(np.count_nonzero(of_song.argmax(axis=1) == actual))
        means = of_song.mean(axis=0, dtype=np.float64)
        predictions.append(
            SongPrediction(song, actual, result.genre, result.confidence, len(positions), n_correct, means)
        )
    return predictions


def scores(predictions: Sequence[SongPrediction]) -> dict[str, float]:
    """Return the scores of one model on a test set.

    Returns
    -------
    dict of str to float
        song_accuracy : fraction of songs whose predicted genre is the true one
        song_accuracy_low, song_accuracy_high : its 95 % interval, see `accuracy_interval`
        chunk_accuracy : fraction of chunks whose most probable genre is the true one
        macro_precision, macro_recall, macro_f1 : means over the genres that have test songs
        roc_auc : mean one-against-rest area under the ROC curve of the songs' mean probabilities, over the genres
            that have test songs; 0 if there is only one genre
        log_loss : mean negative natural logarithm of the mean probability of the true genre
        ece : expected calibration error of the confidence, see `calibration_error`
        n_songs, n_chunks : number of songs and of chunks
    """
    from sklearn import metrics

    actual, predicted = _labels(predictions)
    means = np.stack([p.probabilities for p in predictions])
    clipped = np.clip(means, MIN_PROBABILITY, 1.0)
    n_chunks, all_genres = sum(p.n_chunks for p in predictions), np.arange(means.shape[1])
    low, high = accuracy_interval(float(np.mean(actual == predicted)), len(predictions))
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        actual, predicted, average="macro", labels=np.unique(actual), zero_division=0
    )
    # roc_auc_score with multi_class="ovr" refuses a test set in which a genre of the model has no songs.
    genres = np.unique(actual)
    areas = [metrics.roc_auc_score(actual == genre, means[:, genre]) for genre in genres] if len(genres) > 1 else [0.0]
    return {
        "song_accuracy": float(np.mean(actual == predicted)),
        "song_accuracy_low": low,
        "song_accuracy_high": high,
        "chunk_accuracy": sum(p.n_correct_chunks for p in predictions) / n_chunks,
        "macro_precision": float(precision),
        "macro_recall": float(recall),
        "macro_f1": float(f1),
        "roc_auc": float(np.mean(areas)),
        "log_loss": float(metrics.log_loss(actual, clipped / clipped.sum(axis=1, keepdims=True), labels=all_genres)),
        "ece": calibration_error(np.array([p.confidence for p in predictions]), actual == predicted),
        "n_songs": len(predictions),
        "n_chunks": n_chunks,
    }


def per_genre(predictions: Sequence[SongPrediction], n_genres: int) -> list[tuple[float, float, float, int]]:
    """Return precision, recall, F1 and number of test songs of each genre."""
    from sklearn import metrics

    columns = metrics.precision_recall_fscore_support(*_labels(predictions), labels=range(n_genres), zero_division=0)
    return [(float(p), float(r), float(f), int(n)) for p, r, f, n in zip(*columns, strict=True)]


def confusion_matrix(predictions: Sequence[SongPrediction], n_genres: int) -> npt.NDArray[np.int64]:
    """Return the number of songs [shape=(n_genres, n_genres)] by true genre (rows) and predicted genre (columns)."""
    from sklearn import metrics

    return np.asarray(metrics.confusion_matrix(*_labels(predictions), labels=range(n_genres)), np.int64)


def accuracy_interval(accuracy: float, n_songs: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy over `n_songs` songs (Wilson 1927).

    Its width is not zero if all songs are right or all are wrong. `accuracy` may be a mean over repeats with the same
    songs, which `scipy.stats.binomtest` does not accept; the interval is then wider than necessary.
    """
    share = Z_95**2 / n_songs
    centre = accuracy + share / 2
    half_width = float(np.sqrt(share * (accuracy * (1 - accuracy) + share / 4)))
    return max(0.0, (centre - half_width) / (1 + share)), min(1.0, (centre + half_width) / (1 + share))


def calibration_bins(confidences: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the index of the calibration bin of each confidence [shape=(n,)]; the bins divide 0 to 1 equally."""
    return np.minimum((confidences * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def calibration_error(confidences: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error (Guo et al. 2017), from 0 (calibrated) to 1.

    It is the distance between mean confidence and accuracy in each of ten equal bins, weighted by the songs in the bin.
    `confidences` [shape=(n,)] are those of the predicted genres, and `correct` [shape=(n,)] says which are true.
    """
    bins = calibration_bins(confidences)
    in_bins = [bins == number for number in np.unique(bins)]
    return float(sum(abs(confidences[rows].mean() - correct[rows].mean()) * np.mean(rows) for rows in in_bins))


def _labels(predictions: Sequence[SongPrediction]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return np.array([p.actual for p in predictions]), np.array([p.predicted for p in predictions])
