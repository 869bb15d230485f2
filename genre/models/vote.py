"""Songs from their chunks: the vote, and the middle chunk."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class Vote(NamedTuple):
    """The prediction for one song from those for its chunks."""

    genre: int  # position of the genre
    confidence: float  # mean probability of that genre over the chunks
    vector: list[int]  # genre of each chunk
    counts: list[int]  # chunks for each genre
    means: npt.NDArray[np.float64]  # mean probability of each genre over the chunks [shape=(genres,)]


def vote(probabilities: npt.NDArray[np.float32]) -> Vote:
    """Return the mode of the chunks' genres, from their probabilities [shape=(chunks, genres)].

    A tie goes to the genre with the higher mean probability. There must be at least one chunk.
    """
    vector = probabilities.argmax(axis=1)
    counts = np.bincount(vector, minlength=probabilities.shape[1])
    means = probabilities.mean(axis=0, dtype=np.float64)
    genre = int(np.lexsort((means, counts))[-1])
    return Vote(genre, float(means[genre]), vector.tolist(), counts.tolist(), means)


def vote_by_song(probabilities: npt.NDArray[np.float32], songs: Sequence[str]) -> dict[str, Vote]:
    """Return the vote of each song, in order of first appearance, from the predictions and songs of chunks."""
    return {song: vote(probabilities[rows]) for song, rows in _rows_by_song(songs).items()}


def middle_rows(songs: Sequence[str]) -> npt.NDArray[np.int64]:
    """Return the row of the middle chunk of each song, in order of first appearance, given the song of every chunk."""
    return np.array([rows[len(rows) // 2] for rows in _rows_by_song(songs).values()], np.int64)


def _rows_by_song(songs: Sequence[str]) -> dict[str, list[int]]:
    rows: dict[str, list[int]] = {}
    for row, song in enumerate(songs):
        rows.setdefault(song, []).append(row)
    return rows
