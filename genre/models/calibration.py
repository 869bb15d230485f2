"""Calibration on validation songs: temperatures, and confidence thresholds for songs of other genres.

A validation prediction is made by a model whose weights were fitted without the song; the standardisation constants of
networks use all training songs. Test songs are not used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import ModelError
from genre.models.vote import vote_by_song

Rows = npt.NDArray[np.int64]  # row numbers or labels [shape=(chunks,)]
Probabilities = npt.NDArray[np.float32]  # [shape=(chunks, genres)]

TEMPERATURE_RANGE = (0.2, 5.0)  # bounds of the fit: few validation songs must not make it extreme
MIN_PROBABILITY = 1e-7
FALSE_ACCEPTANCE_RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
MIN_GENRES = 5  # with four, 28 % of out-of-set songs were accepted at a nominal rate of 5 %
DIGITS = 6


@dataclass(frozen=True, slots=True)
class Validation:
    """Predictions of a model for training chunks that it was not trained on."""

    rows: Rows  # positions among the training chunks
    probabilities: Probabilities


def calibrate(probabilities: Probabilities, temperature: float) -> Probabilities:
    """Return probabilities p as p^(1 / temperature), normalised: the softmax of the log probabilities, scaled.

    A temperature above 1 makes them less confident (Guo et al. 2017, On calibration of modern neural networks).
    """
    powered = np.maximum(probabilities.astype(np.float64), MIN_PROBABILITY) ** (1 / temperature)
    calibrated: Probabilities = (powered / powered.sum(axis=1, keepdims=True)).astype(np.float32)
    return calibrated


def fit_temperature(probabilities: Probabilities, labels: Rows) -> float:
    """Return the temperature of the lowest log loss of `calibrate`, within `TEMPERATURE_RANGE`; 1.0 without chunks."""
    from scipy.optimize import minimize_scalar

    if not len(labels):
        return 1.0
    logits = np.log(np.maximum(probabilities.astype(np.float64), MIN_PROBABILITY))

    def log_loss(log_temperature: float) -> float:
        scaled = logits / math.exp(log_temperature)
        scaled -= scaled.max(axis=1, keepdims=True)
        normaliser = np.log(np.exp(scaled).sum(axis=1))
        return float(np.mean(normaliser - scaled[np.arange(len(labels)), labels]))

    low, high = map(math.log, TEMPERATURE_RANGE)
    return math.exp(minimize_scalar(log_loss, bounds=(low, high), method="bounded").x)


def shuffled_songs(labels: Rows, songs: Sequence[str], rng: np.random.Generator) -> list[list[str]]:
    """Return the songs of each genre in random order, given the genre and the song of each chunk."""
    genre_of = dict(zip(songs, labels.tolist(), strict=True))
    by_genre = [
        sorted(song for song in genre_of if genre_of[song] == genre) for genre in sorted(set(genre_of.values()))
    ]
    return [[names[i] for i in rng.permutation(len(names))] for names in by_genre]


def validation_folds(labels: Rows, songs: Sequence[str], n_folds: int, rng: np.random.Generator) -> Iterator[Rows]:
    """Yield the rows of each validation fold: whole songs, the songs of each genre dealt out evenly.

    The only song of a genre is in no fold, so that every genre is always trained on.
    """
    fold_of: dict[str, int] = {}
    for names in shuffled_songs(labels, songs, rng):
        if len(names) > 1:
            fold_of |= {song: position % n_folds for position, song in enumerate(names)}
    folds = np.array([fold_of.get(song, -1) for song in songs])
    for fold in range(n_folds):
        rows = np.flatnonzero(folds == fold)
        if len(rows):
            yield rows


def common_predictions(validations: Sequence[Validation]) -> tuple[Rows, list[Probabilities]]:
    """Return the rows that every model has predicted, and the predictions of each; repeated rows are averaged."""
    rows = np.array(sorted(set.intersection(*(set(v.rows.tolist()) for v in validations))), np.int64)
    if not len(rows):
        return rows, [validation.probabilities[:0] for validation in validations]
    return rows, [
        np.stack([validation.probabilities[validation.rows == row].mean(axis=0) for row in rows])
        for validation in validations
    ]


def drop_true_genre(probabilities: Probabilities, labels: Rows) -> Probabilities:
    """Return probabilities [shape=(chunks, genres)] without the true genre of each chunk; the rest sums to 1.

    This approximates, without retraining, a model that was never trained on that genre.
    """
    rest = probabilities.astype(np.float64)
    rest[np.arange(len(labels)), labels] = 0.0
    normalised: Probabilities = (rest / np.maximum(rest.sum(axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return normalised


def fit_thresholds(
    validations: Sequence[Validation], labels: Rows, songs: Sequence[str], temperature: float = 1.0
) -> dict[str, Any] | None:
    """Return the confidence threshold of each false acceptance rate that there are enough songs for.

    The threshold is just above the k-th lowest confidence of n out-of-set songs, k = ceil((n + 1)(1 - rate)) (split
    conformal prediction, Vovk et al. 2005).

    Parameters
    ----------
    validations : sequence of Validation
        Of a model, or of all models that an ensemble averages.
    labels, songs : npt.NDArray[np.int64] [shape=(chunks,)], sequence of str
        Genre and song of each training chunk.
    temperature : float
        Of the average.

    Returns
    -------
    dict or None
        For a model card: the number of `genres` and `songs`, and of each of the `rates` the `false_acceptance` rate,
        the `threshold`, and `lost`, the share of correctly classified songs below it. None with few genres or songs.
    """
    rows, predictions = common_predictions(validations)
    labels, songs = labels[rows], [songs[row] for row in rows]
    n_genres = len(np.unique(labels))
    if n_genres < MIN_GENRES:
        return None
    without_genre = [drop_true_genre(probabilities, labels) for probabilities in predictions]
    out_of_set = vote_by_song(calibrate(np.mean(without_genre, axis=0), temperature), songs)
    votes = vote_by_song(calibrate(np.mean(predictions, axis=0), temperature), songs)
    genre_of = dict(zip(songs, labels.tolist(), strict=True))
    confidences = np.sort([vote.confidence for vote in out_of_set.values()])
    correct = np.array([vote.confidence for song, vote in votes.items() if vote.genre == genre_of[song]])
    rates = []
    for rate in FALSE_ACCEPTANCE_RATES:
        position = math.ceil((len(confidences) + 1) * (1 - rate) - 1e-9) - 1
        if position >= len(confidences):
            continue
        threshold = (math.floor(confidences[position] * 10**DIGITS) + 1) / 10**DIGITS
        if threshold <= 1.0:
            lost = float(np.mean(correct < threshold)) if len(correct) else 0.0
            rates.append({"false_acceptance": rate, "threshold": threshold, "lost": round(lost, DIGITS)})
    return {"genres": n_genres, "songs": len(confidences), "rates": rates} if rates else None


def threshold(thresholds: Mapping[str, Any] | None, max_false_acceptance: float | None) -> float | None:
    """Return the threshold of the highest rate not above `max_false_acceptance`, from those of `fit_thresholds`.

    It is None if `max_false_acceptance` is None or there is no such rate.
    """
    if not thresholds or max_false_acceptance is None:
        return None
    rates = [rate for rate in thresholds["rates"] if rate["false_acceptance"] <= max_false_acceptance + 1e-9]
    return float(rates[-1]["threshold"]) if rates else None


def write_validation(path: Path, validation: Validation, genres: Sequence[str]) -> None:
    """Write validation predictions as CSV: the row, then a probability per genre."""
    import pandas as pd

    table = pd.DataFrame(validation.probabilities, columns=list(genres), index=pd.Index(validation.rows, name="row"))
    files.write_text(path, table.to_csv(float_format="%.9g", lineterminator="\n"))


def read_validation(path: Path) -> Validation:
    """Read the CSV that `write_validation` wrote; raise ModelError if it is missing or damaged."""
    import pandas as pd

    try:
        table = pd.read_csv(path, dtype=np.float32)
        return Validation(table.pop("row").to_numpy(np.int64), table.to_numpy(np.float32))
    except OSError:
        raise ModelError(f"{path} is missing: train the model first (`dvc repro`)") from None
    except (ValueError, KeyError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error
