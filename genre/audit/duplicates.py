"""Pairs of songs with the same recording, by landmarks, and pairs with almost the same embedding."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from genre.audit.findings import Finding
from genre.audit.songs import AuditedSongs
from genre.parallel import run
from genre.search import landmarks
from genre.search.landmark_engine import LandmarkEngine
from genre.search.landmark_index import LandmarkIndex

EQUAL = 1e6  # evidence of equal files
MIN_EVIDENCE = 20.0  # log likelihood ratio; of different songs of GTZAN the highest is 8 (docs/audit.md)
MAX_SPEED_CHANGE = 0.03  # of a copy, as a fraction
MIN_SPEED_CHANGE = 0.004  # that is reported
MAX_PARTS, PART_S = 3, 15.0  # parts of each song that are searched for in the others, and their length
MIN_SIMILARITY = 0.97  # cosine of near-duplicates; different songs of GTZAN reach 0.963 (docs/audit.md)


class Match(NamedTuple):
    """A part of a song that is in another song; both are given by their SHA-256."""

    evidence: float  # log likelihood ratio
    song: str
    other: str
    offset_s: float  # of the start of `song` in `other`
    speed: float  # of `song` relative to `other`
    n_agreeing: int  # landmarks of `other` at this offset that `song` has


def find(audited: AuditedSongs) -> Iterator[Finding]:
    """Yield the pairs of songs with equal files or the same recording, then others with almost the same embedding."""
    copies = list(_copies(audited))
    yield from copies
    known, names = {frozenset((copy.song, *copy.others)) for copy in copies}, list(audited.songs)
    for i, j in np.argwhere(np.triu(audited.similarities, 1) >= MIN_SIMILARITY):
        if frozenset((names[i], names[j])) not in known:
            similarity = float(audited.similarities[i, j])
            evidence = f"cosine similarity {similarity:.3f}"
            yield Finding(names[i], "near-duplicate", evidence, "listen", similarity, (names[j],))


def _copies(audited: AuditedSongs) -> Iterator[Finding]:
    songs: dict[str, list[str]] = {}
    for song, row in audited.songs.items():
        songs.setdefault(row.source_sha256, []).append(song)
    for equal in songs.values():
        for song, other in itertools.pairwise(equal):
            yield _finding(audited, song, other, "the files are equal", 0.0, EQUAL)
    for m in matches(audited.paths.landmarks, audited.settings.parallel.workers):
        evidence = f"{m.n_agreeing} landmarks agree at one offset"
        evidence += f", {m.speed - 1:+.1%} speed" if abs(m.speed - 1) > MIN_SPEED_CHANGE else ""
        for song, other in itertools.product(songs.get(m.song, []), songs.get(m.other, [])):
            yield _finding(audited, song, other, evidence, m.offset_s, m.evidence)


def matches(index: Path, workers: int | None) -> list[Match]:
    """Return the pairs of songs with the same recording in a landmark index, each pair once."""
    function = functools.partial(_matches_of_song, index)
    songs = range(len(_engine(index).index.songs))
    results = run(function, songs, description="duplicates", workers=workers)
    ascending = sorted(itertools.chain.from_iterable(results))
    return list({frozenset((match.song, match.other)): match for match in ascending}.values())


def _finding(audited: AuditedSongs, song: str, other: str, evidence: str, offset_s: float, severity: float) -> Finding:
    first, second = audited.songs[song], audited.songs[other]
    kind, suggestion = "duplicate", "keep one"
    if first.split != second.split:
        kind, suggestion = "leak", "keep one, or put both into one split (--write-duplicates)"
    if first.genre != second.genre:
        suggestion += f"; its genre is {first.genre} or {second.genre}"
    return Finding(song, kind, evidence, suggestion, severity, (other,), offset_s)


@functools.lru_cache(maxsize=1)
def _engine(index: Path) -> LandmarkEngine:
    return LandmarkEngine(LandmarkIndex.load(index), MAX_SPEED_CHANGE)


def _matches_of_song(path: Path, number: int) -> list[Match]:
    engine = _engine(path)
    song, n_frames = engine.index.songs[number].sha256, int(engine.index.n_frames[number])
    length = max(1, min(n_frames, int(PART_S / landmarks.FRAME_S)))
    found = []
    for first in np.linspace(0, n_frames - length, min(MAX_PARTS, -(-n_frames // length)), dtype=int).tolist():
        for c in engine.recognise_peaks(engine.index.peaks(number, first, length), without=[song]):
            if c.evidence >= MIN_EVIDENCE:
                offset_s = round(c.offset_s - first * landmarks.FRAME_S * c.speed, 2)
                found.append(Match(c.evidence, song, c.song.sha256, offset_s, c.speed, c.n_agreeing))
    return found
