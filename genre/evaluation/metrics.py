"""Scores of predictions: per chunk, per song and per genre, with intervals. Computes only, reads and writes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre.errors import VectorError
from genre.models.vote import vote

N_BOOTSTRAP = 2000
CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True)
class SongPrediction:
    """What a model says of one song."""

    song: str
    actual: int
    predicted: int
    confidence: float
    n_chunks: int
    probabilities: npt.NDArray[np.float64]  # shape (genres,), mean over the chunks


def by_song(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], songs: Sequence[str]
) -> list[SongPrediction]:
    """Gather the chunks of each song into one prediction, in the order of first appearance.

    Parameters
    ----------
    probabilities : npt.NDArray[np.float32] [shape=(chunks, genres)]
    labels : npt.NDArray[np.int64] [shape=(chunks,)]
    songs : sequence of str
        Song of each chunk.

    Raises
    ------
    VectorError
        If the lengths differ, or chunks of one song have different labels.
    """
    if not len(probabilities) == len(labels) == len(songs):
        raise VectorError(f"{len(probabilities)} predictions, {len(labels)} labels and {len(songs)} songs differ")
    rows: dict[str, list[int]] = {}
    for position, song in enumerate(songs):
        rows.setdefault(song, []).append(position)
    predictions = []
    for song, positions in rows.items():
        actual = {int(labels[p]) for p in positions}
        if len(actual) > 1:
            raise VectorError(f"the chunks of {song} have different labels")
        outcome = vote(probabilities[positions])
        means = probabilities[positions].mean(axis=0, dtype=np.float64)
        predictions.append(SongPrediction(song, actual.pop(), outcome.genre, outcome.confidence, len(positions), means))
    return predictions


def scores(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], songs: Sequence[str]
) -> dict[str, float]:
    """Return the scores of one model.

    Accuracy per chunk and per song (vote), the latter with its 95 % bootstrap interval over songs; macro averages of
    precision, recall and F1 over songs; macro one-against-rest ROC-AUC and log loss of the songs' mean
    probabilities; expected calibration error of their confidence. A genre without test songs does not enter ROC-AUC.
    """
    from sklearn import metrics

    predictions = by_song(probabilities, labels, songs)
    actual, predicted = _outcomes(predictions)
    means = np.stack([p.probabilities for p in predictions])
    n_genres = probabilities.shape[1]
    low, high = bootstrap_interval(actual == predicted)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        actual, predicted, average="macro", labels=np.unique(actual), zero_division=0
    )
    aucs = [
        metrics.roc_auc_score(actual == genre, means[:, genre])
        for genre in range(n_genres)
        if 0 < np.count_nonzero(actual == genre) < len(actual)
    ]
    return {
        "song_accuracy": float(np.mean(actual == predicted)),
        "song_accuracy_low": low,
        "song_accuracy_high": high,
        "chunk_accuracy": float(np.mean(probabilities.argmax(axis=1) == labels)),
        "macro_precision": float(precision),
        "macro_recall": float(recall),
        "macro_f1": float(f1),
        "roc_auc": float(np.mean(aucs)) if aucs else 0.0,
        "log_loss": float(-np.log(np.clip(means[np.arange(len(actual)), actual], 1e-12, 1.0)).mean()),
        "ece": calibration_error(np.array([p.confidence for p in predictions]), actual == predicted),
        "n_songs": len(predictions),
        "n_chunks": len(labels),
    }


def per_genre(predictions: Sequence[SongPrediction], n_genres: int) -> list[tuple[float, float, float, int]]:
    """Return precision, recall, F1 and number of songs of each genre."""
    from sklearn import metrics

    actual, predicted = _outcomes(predictions)
    columns = metrics.precision_recall_fscore_support(actual, predicted, labels=range(n_genres), zero_division=0)
    return [(float(p), float(r), float(f), int(n)) for p, r, f, n in zip(*columns, strict=True)]


def confusion(predictions: Sequence[SongPrediction], n_genres: int) -> npt.NDArray[np.int64]:
    """Return the confusion matrix over songs [shape=(genres, genres)], rows actual, columns predicted."""
    matrix = np.zeros((n_genres, n_genres), dtype=np.int64)
    np.add.at(matrix, _outcomes(predictions), 1)
    return matrix


def bootstrap_interval(values: npt.NDArray[np.bool_] | npt.NDArray[np.float64], seed: int = 0) -> tuple[float, float]:
    """Return the 95 % percentile bootstrap interval of the mean of `values`, resampled over its entries."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), size=(N_BOOTSTRAP, len(values)))].mean(axis=1)
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def calibration_error(confidences: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> float:
    """Return the expected calibration error: mean distance of confidence and accuracy over ten equal bins."""
    bins = np.minimum((confidences * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    return float(
        sum(
            abs(confidences[bins == b].mean() - correct[bins == b].mean()) * np.mean(bins == b) for b in np.unique(bins)
        )
    )


def _outcomes(predictions: Sequence[SongPrediction]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    return np.array([p.actual for p in predictions]), np.array([p.predicted for p in predictions])
