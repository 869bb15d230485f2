"""When to say "unknown": the confidence that songs of genres a model was never trained on rarely reach.

The songs are validation songs, and the genre left out is each song's own: it is struck out of the answer, and what
the model says of the remaining genres is what a model without that genre would say, nearly. No model is trained again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from genre.evaluation import metrics

Probabilities = npt.NDArray[np.float32]  # shape (chunks, genres)

RATES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5)  # of false acceptance: songs of unknown genres that get a name
MIN_GENRES = 5  # with four, 28 % of foreign songs got a name where 5 % were asked for
DIGITS = 6


def strike(probabilities: Probabilities, labels: npt.NDArray[np.int64]) -> Probabilities:
    """Return the probabilities [shape=(chunks, genres)] without those of the genres `labels`; the rest sums to 1."""
    struck = probabilities.astype(np.float64)
    struck[np.arange(len(labels)), labels] = 0.0
    rest: Probabilities = (struck / np.maximum(struck.sum(axis=1, keepdims=True), 1e-12)).astype(np.float32)
    return rest


def fit(
    probabilities: Probabilities,
    struck: Probabilities,
    labels: npt.NDArray[np.int64],
    songs: Sequence[str],
) -> dict[str, Any] | None:
    """Return, for each rate that there are songs enough for, the lowest confidence to answer at.

    The threshold of a rate is the quantile with the correction for few songs of conformal prediction (Vovk et al.
    2005): of n songs, the ceil((n + 1)(1 - rate))th lowest confidence does not reach it.

    Parameters
    ----------
    probabilities : npt.NDArray[np.float32] [shape=(chunks, genres)]
        What a model says of validation chunks.
    struck : npt.NDArray[np.float32] [shape=(chunks, genres)]
        The same as `strike` makes it.
    labels, songs
        Genre and song of each chunk.

    Returns
    -------
    dict or None
        For a model card: the number of `genres` and `songs`, and of each of the `rates` `far` (the rate),
        `threshold` and `lost` (share of the songs answered rightly that would become unknown). None if there are too
        few genres or songs for any rate.
    """
    n_genres = len(np.unique(labels))
    if n_genres < MIN_GENRES:
        return None
    strangers = np.sort([p.confidence for p in metrics.by_song(struck, labels, songs)])
    answered = metrics.by_song(probabilities, labels, songs)
    right = np.array([p.confidence for p in answered if p.actual == p.predicted])
    rates = []
    for far in RATES:
        position = math.ceil((len(strangers) + 1) * (1 - far) - 1e-9) - 1
        if position >= len(strangers):
            continue
        threshold = (math.floor(strangers[position] * 10**DIGITS) + 1) / 10**DIGITS
        if threshold <= 1.0:
            lost = float(np.mean(right < threshold)) if len(right) else 0.0
            rates.append({"far": far, "threshold": threshold, "lost": round(lost, DIGITS)})
    return {"genres": n_genres, "songs": len(strangers), "rates": rates} if rates else None


def threshold(fitted: Mapping[str, Any] | None, far: float | None) -> float | None:
    """Return the lowest confidence to answer at, so that at most `far` of the songs of unknown genres get a name.

    Parameters
    ----------
    fitted : mapping or None
        As `fit` returns it.
    far : float or None
        The rate; between two rates the lower one counts. None for no threshold.

    Returns
    -------
    float or None
        None if there is no threshold: none is asked for, or there were too few songs or genres for that rate.
    """
    if not fitted or far is None:
        return None
    held = [rate for rate in fitted["rates"] if rate["far"] <= far + 1e-9]
    return float(held[-1]["threshold"]) if held else None
