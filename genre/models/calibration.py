"""Calibration on validation songs: temperatures.

A validation prediction is made by a model whose weights were fitted without the song; the standardisation constants of
networks use all training songs. Test songs are not used.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import ModelError

Rows = npt.NDArray[np.int64]  # row numbers or labels [shape=(chunks,)]
Probabilities = npt.NDArray[np.float32]  # [shape=(chunks, genres)]

TEMPERATURE_RANGE = (0.2, 5.0)  # bounds of the fit: few validation songs must not make it extreme
MIN_PROBABILITY = 1e-7


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
