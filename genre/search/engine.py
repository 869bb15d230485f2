"""What the engines share: indexed songs, and the candidates that they return."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

MAX_SNIPPET_S = 30.0  # the rest of a longer snippet is not used


@dataclass(frozen=True, slots=True)
class IndexedSong:
    """A song in an index."""

    sha256: str  # of the file
    song: str  # name, unique in its genre
    genre: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """A song that a snippet may be from."""

    song: IndexedSong
    offset_s: float  # of the snippet's start in the song; negative if it starts before the song does
    evidence: float  # on the engine's own scale
    score: float  # probability that the song is right, if half of all snippets are of indexed songs
    speed: float = 1.0  # of the snippet relative to the song
    n_agreeing: int = 0  # landmarks of the song that the snippet has; 0 if the engine uses none


def probability(evidence: float, centre: float, spread: float) -> float:
    """Return the logistic function of evidence: 0.5 at `centre`."""
    return float(1 / (1 + np.exp(-np.clip((evidence - centre) / spread, -50, 50))))
