"""Calibration on out-of-fold songs: temperatures and prediction sets.

A validation prediction is made by a model whose weights were fitted without the song; the standardisation constants of
networks use all training songs. Test songs are not used.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import ModelError

Rows = npt.NDArray[np.int64]  # row numbers or labels [shape=(chunks,)]
Probabilities = npt.NDArray[np.float32]  # [shape=(chunks, genres)]

PRIOR_DEVIATION = 0.5  # standard deviation of the logarithm of the temperature
MAX_LOG_TEMPERATURE = 3.0  # of the search
MIN_PROBABILITY = 1e-7
DIGITS = 6  # of the conformal scores

log = logging.getLogger(__name__)


class Validation(NamedTuple):
    """Predictions of a model for training chunks that it was not trained on."""

    rows: Rows  # positions among the training chunks
    probabilities: Probabilities


@dataclass(frozen=True, slots=True)
class Calibration:
    """Calibration of a model, fitted on out-of-fold songs."""

    temperature: float = 1.0
    scores: list[float] = field(default_factory=list)  # of each song 1 - probability of its genre, in ascending order

    @property
    def n_songs(self) -> int:
        """Return the number of out-of-fold songs."""
        return len(self.scores)

    def genre_set(self, means: npt.NDArray[np.float64], genre: int, coverage: float) -> list[int] | None:
        """Return the prediction set of a song, `genre` first, the others by probability; None with too few songs.

        The set holds the genre of about the fraction `coverage` of songs like the out-of-fold songs (cross-conformal
        prediction, Vovk 2015). `means` [shape=(genres,)] are the song's mean probabilities, `genre` its predicted one.
        """
        rank = max(1, math.ceil((self.n_songs + 1) * coverage - 1e-9))
        if rank > self.n_songs:
            return None
        order = sorted(range(len(means)), key=lambda other: (other != genre, -means[other]))
        return [other for other in order if other == genre or 1 - means[other] <= self.scores[rank - 1] + 10**-DIGITS]


def calibrate(probabilities: Probabilities, calibration: Calibration) -> Probabilities:
    """Return probabilities p as p^(1 / temperature), normalised, and mixed with the uniform distribution.

    A temperature above 1 makes them less confident (Guo et al. 2017, On calibration of modern neural networks). The
    mixture turns a probability of 1 into (n + 1) / (n + 2) for n >= 1 out-of-fold songs (rule of succession).
    """
    powered = np.maximum(probabilities.astype(np.float64), MIN_PROBABILITY) ** (1 / calibration.temperature)
    softmax = powered / powered.sum(axis=1, keepdims=True)
    n_genres = probabilities.shape[1]
    share = min(1.0, n_genres / max(1, n_genres - 1) / (max(1, calibration.n_songs) + 2))  # of the uniform distribution
    calibrated: Probabilities = ((1 - share) * softmax + share / n_genres).astype(np.float32)
    return calibrated


def fit(probabilities: Probabilities, labels: Rows, songs: Sequence[str]) -> Calibration:
    """Return the calibration of a model from its out-of-fold predictions; without songs the temperature is 1.

    The temperature minimises the sum over songs of the negative logarithm of `true_probabilities` plus that of a
    Gaussian prior of its logarithm, so that few songs change little. At the end of the search a warning is logged.
    `labels` and `songs` are those of the chunks [shape=(chunks,)].
    """
    from scipy.optimize import minimize_scalar

    if not len(labels):
        return Calibration()
    n_songs = len(set(songs))

    def calibrated(log_temperature: float) -> npt.NDArray[np.float64]:
        fitted = Calibration(math.exp(log_temperature), [0.0] * n_songs)
        return true_probabilities(calibrate(probabilities, fitted), labels, songs)

    def loss(log_temperature: float) -> float:
        return float((log_temperature / PRIOR_DEVIATION) ** 2 / 2 - np.log(calibrated(log_temperature)).sum())

    best = float(minimize_scalar(loss, bounds=(-MAX_LOG_TEMPERATURE, MAX_LOG_TEMPERATURE), method="bounded").x)
    if abs(best) > MAX_LOG_TEMPERATURE - 0.01:
        log.warning("the temperature %.3g is at the end of the search: confidences are not reliable", math.exp(best))
    return Calibration(math.exp(best), np.sort(1 - calibrated(best)).round(DIGITS).tolist())


def true_probabilities(probabilities: Probabilities, labels: Rows, songs: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the mean probability of each song's genre over its chunks [shape=(songs,)], the songs sorted by name."""
    true = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return song_means(true, np.unique(np.array(songs), return_inverse=True)[1])


def song_means(values: npt.NDArray[np.float64], song_of: Rows) -> npt.NDArray[np.float64]:
    """Return the mean of each song's values [shape=(songs,)]; `song_of` are the numbers of the chunks' songs."""
    return np.bincount(song_of, values) / np.bincount(song_of)


def validation_folds(labels: Rows, songs: Sequence[str], n_folds: int, groups: Sequence[str] = ()) -> list[Rows]:
    """Return the rows of each validation fold: whole groups, in blocks of neighbouring names of a genre.

    Neighbours, such as the songs of an album's folder, are often alike, so a fold that holds out all of them is more
    like new music than one of random songs. A group without which a genre has no song is in no fold, so that every
    genre is always trained on; with one fold no song is held out.

    `groups` are those of the chunks, by default their songs. A group counts in the genre of most of its songs.
    """
    units = groups or songs
    genre_of = dict(zip(songs, labels.tolist(), strict=True))
    members: dict[str, list[str]] = {}
    for song, group in sorted(dict.fromkeys(zip(songs, units, strict=True)), key=lambda pair: _natural(pair[0])):
        members.setdefault(group, []).append(song)
    main_genre = {group: statistics.mode(genre_of[song] for song in names) for group, names in members.items()}
    fold_of: dict[str, int] = {}
    n_dealt = 0
    for genre in sorted(set(main_genre.values())):
        of_genre = [group for group in members if main_genre[group] == genre]
        starts = [0, *itertools.accumulate(len(members[group]) for group in of_genre)]
        blocks = np.array_split(np.arange(starts[-1]), min(n_folds, len(of_genre)))
        if len(blocks) > 1:
            block_of = np.repeat(np.arange(len(blocks)), [len(block) for block in blocks])
            for group, start in zip(of_genre, starts, strict=False):  # a group is in the block of its middle song
                fold_of[group] = (n_dealt + block_of[start + len(members[group]) // 2]) % n_folds
            n_dealt += starts[-1]
    folds = np.array([fold_of.get(group, -1) for group in units], np.int64)
    for fold, genre in itertools.product(range(n_folds), np.unique(labels)):
        if not np.any(labels[folds != fold] == genre):
            folds[np.isin(units, np.array(units)[labels == genre])] = -1
    return [np.flatnonzero(folds == fold) for fold in range(n_folds)]


def _natural(name: str) -> list[str | int]:
    """Return the sort key in which song 2 precedes song 10."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", name)]


def common_predictions(validations: Sequence[Validation]) -> tuple[Rows, list[Probabilities]]:
    """Return the rows that every model has predicted, and the predictions of each; repeated rows are averaged."""
    import pandas as pd

    tables = [pd.DataFrame(v.probabilities, v.rows).groupby(level=0).mean() for v in validations]
    rows = functools.reduce(pd.Index.intersection, (table.index for table in tables)).sort_values()
    return rows.to_numpy(), [table.loc[rows].to_numpy(np.float32) for table in tables]


def write_validation(path: Path, validation: Validation, genres: Sequence[str]) -> None:
    """Write validation predictions as CSV: the row, then a probability per genre."""
    import pandas as pd

    table = pd.DataFrame(validation.probabilities, columns=list(genres), index=pd.Index(validation.rows, name="row"))
    files.write_text(path, table.to_csv(float_format="%.9g", lineterminator="\n"))


def read_validation(path: Path) -> Validation:
    """Read the CSV that `write_validation` wrote; raise ModelError if it is missing or damaged."""
    import pandas as pd

    with files.reading(path, ModelError, "train baselines"):
        table = pd.read_csv(path, dtype=np.float32)
        return Validation(table.pop("row").to_numpy(np.int64), table.to_numpy(np.float32))
