"""Which song is this snippet from? Votes of landmarks for a start in a song, then a comparison of all peaks there.

Every landmark that snippet and song share votes for the place in the song where the snippet would begin; true ones
agree. At the places with most votes the peaks themselves are compared: how many of the song's peaks the snippet has,
against how many it would have by chance (the binomial log likelihood ratio). Only the part of the snippet that lies in
the song counts, for both. All this is done at several playing speeds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from genre.search import landmarks
from genre.search.landmark_index import MAX_SNIPPET_S, STEPS, Index, Song
from genre.search.landmarks import Floats, Peaks

MAX_SPEED_CHANGE = 0.03  # share by which a snippet may be faster or slower
SPEED_STEP = 0.01  # of the search; between two steps half of the peaks still agree
FINE_STEPS = (-0.005, 0.0, 0.005)  # tried around the best answers
TOLERANCE = (0.4, 0.5, 0.5)  # bins, bins and frames by which a landmark of a snippet may be off
N_PLACES = 50  # with most votes, compared in full at each speed
N_REFINED = 3  # songs
MAX_PEAKS = 400  # 13 s: music agrees with other music in whole bars, so more peaks than these count no more than these
CERTAIN = 60.0  # evidence that ends the search without trying other speeds

# From evidence to score: where right answers and false ones are equally frequent, and how fast that changes, as
# `python -m benchmarks.identify --fit` shows. 1 in 900 snippets of songs that are not indexed got 0.5 or more.
CENTRE, SPREAD = 4.0, 1.2

MAX_CHANCE = 0.9  # that a peak agrees by chance

_BORDER = 3  # frames around the map of a snippet's peaks
_N_BINS = landmarks.N_FFT // 2 + 1


class Found(Protocol):
    """A song that a snippet may be from, whatever found it."""

    @property
    def song(self) -> Song:
        """The song."""

    @property
    def offset_s(self) -> float:
        """Where in the song the snippet starts; negative if it starts before the song does."""

    @property
    def evidence(self) -> float:
        """What speaks for it, on a scale of its own."""

    @property
    def score(self) -> float:
        """Probability that it is the right one, 0 to 1, if half of all snippets are of indexed songs."""


@dataclass(frozen=True, slots=True)
class Match:
    """A song and where the snippet lies in it."""

    song: Song
    offset_s: float  # of the snippet's start in the song; negative if it starts before the song does
    speed: float  # of the snippet, 1.02: played 2 % faster than the song
    evidence: float  # log likelihood ratio against chance, less the log of the frames it could have been found at

    @property
    def score(self) -> float:
        """Probability that the song is the right one, 0 to 1, if half of all snippets are of indexed songs."""
        return float(1 / (1 + np.exp(-np.clip((self.evidence - CENTRE) / SPREAD, -50, 50))))


def recognise(
    samples: Floats, index: Index, *, max_speed_change: float = MAX_SPEED_CHANGE, without: Collection[str] = ()
) -> list[Match]:
    """Return the songs that a snippet may be from, the best first, each once.

    Parameters
    ----------
    samples : npt.NDArray[np.float32] [shape=(n,)]
        Mono at `landmarks.SAMPLE_RATE`; what is beyond `fingerprints.MAX_SNIPPET_S` does not count.
    index : Index
    max_speed_change : float
        0 is the fastest; 0.03 finds snippets that are up to 3 % faster or slower.
    without : collection of str
        SHA-256 of songs that do not count, as if they were not in the index.
    """
    samples = samples[: round(MAX_SNIPPET_S * landmarks.SAMPLE_RATE)]
    peaks = landmarks.find_peaks(samples, landmarks.SNIPPET_REACH)
    snippet = _Snippet(peaks, *landmarks.pairs(peaks))
    barred = np.array([song.sha256 in without for song in index.songs], bool)
    found: dict[int, _Candidate] = {}
    for speed in _speeds(max_speed_change):
        _keep_best(found, _candidates(snippet, speed, index, barred))
        if found and max(found.values()).evidence >= CERTAIN:
            break
    for best in sorted(found.values(), reverse=True)[:N_REFINED]:
        _keep_best(found, _refined(snippet, best, index))
    return [
        Match(
            index.songs[c.song],
            float((c.place - index.begins[c.song]) / STEPS * landmarks.FRAME_S),
            c.speed,
            c.evidence,
        )
        for c in sorted(found.values(), reverse=True)
    ]


@dataclass(frozen=True, slots=True)
class _Snippet:
    peaks: Peaks
    firsts: npt.NDArray[np.int64]
    seconds: npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, order=True)
class _Candidate:
    evidence: float
    song: int
    place: int  # on the index's axis, of the snippet's start
    speed: float


def _speeds(max_change: float) -> list[float]:
    n_steps = int(max_change / SPEED_STEP + 1e-6)
    return [1.0, *(1.0 + side * k * SPEED_STEP for k in range(1, n_steps + 1) for side in (1, -1))]


def _keep_best(found: dict[int, _Candidate], candidates: Iterable[_Candidate]) -> None:
    for candidate in candidates:
        if candidate.song not in found or candidate > found[candidate.song]:
            found[candidate.song] = candidate


def _candidates(snippet: _Snippet, speed: float, index: Index, barred: npt.NDArray[np.bool_]) -> Iterable[_Candidate]:
    starts = _most_voted(snippet, speed, index)
    songs = index.song_at(starts * STEPS)
    starts, songs = starts[~barred[songs]], songs[~barred[songs]]
    evidence = _evidence(snippet.peaks, speed, starts * STEPS, index)
    for value, song, start in zip(evidence, songs, starts, strict=True):
        yield _Candidate(float(value), int(song), int(start) * STEPS, speed)


def _refined(snippet: _Snippet, best: _Candidate, index: Index) -> Iterable[_Candidate]:
    """Yield the candidate moved by parts of a frame, at nearby speeds, its middle where it was."""
    moves = np.arange(-STEPS, STEPS + 1)
    for step in FINE_STEPS:
        speed = best.speed + step
        drift = STEPS * snippet.peaks.n_frames / 2 * (best.speed - speed)
        places = best.place + moves + round(drift)
        for value, place in zip(_evidence(snippet.peaks, speed, places, index), places, strict=True):
            yield _Candidate(float(value), best.song, int(place), speed)


def _most_voted(snippet: _Snippet, speed: float, index: Index) -> npt.NDArray[np.int64]:
    """Return the frames on the index's axis where most landmarks would have the snippet begin."""
    times, bins = snippet.peaks.times * np.float32(speed), snippet.peaks.bins / np.float32(speed)
    firsts, seconds = snippet.firsts, snippet.seconds
    keys, owners = landmarks.keys_of_snippet(
        bins[firsts], bins[seconds] - bins[firsts], times[seconds] - times[firsts], TOLERANCE
    )
    found, places = index.lookup(keys)
    votes = np.rint(places / STEPS - times[firsts][owners[found]]).astype(np.int64)
    starts, counts = np.unique(votes, return_counts=True)
    together = counts.copy()
    adjacent = np.diff(starts) == 1
    together[:-1] += counts[1:] * adjacent
    together[1:] += counts[:-1] * adjacent
    if len(starts) <= N_PLACES:
        return starts
    chosen: npt.NDArray[np.int64] = starts[np.argpartition(-together, N_PLACES)[:N_PLACES]]
    return chosen


def _evidence(peaks: Peaks, speed: float, places: npt.NDArray[np.int64], index: Index) -> npt.NDArray[np.float64]:
    """Return how much better than chance the songs' peaks agree with the snippet's, if it begins at these places."""
    nearby = _map(peaks, speed)
    n_frames = len(nearby) - 2 * _BORDER
    span = STEPS * n_frames
    owners, found = landmarks.ranges(
        np.searchsorted(index.peak_places, places), np.searchsorted(index.peak_places, places + span)
    )
    frames = np.rint((index.peak_places[found] - places[owners]) / STEPS).astype(np.int64) + _BORDER
    bins = np.rint(index.peak_bins[found]).astype(np.int64)
    n_peaks = np.bincount(owners, minlength=len(places))
    hits = np.bincount(owners, nearby[frames, bins], minlength=len(places))
    chances = _chances(nearby, frames, bins, owners, _overlap(places, n_frames, index))
    by_chance = np.bincount(owners, chances, minlength=len(places))
    shares = np.minimum(1, MAX_PEAKS / np.maximum(n_peaks, 1))
    return shares * _likelihood_ratio(hits, by_chance, n_peaks) - float(np.log(max(index.total_frames, 1)))


def _chances(
    nearby: npt.NDArray[np.bool_],
    frames: npt.NDArray[np.int64],
    bins: npt.NDArray[np.int64],
    owners: npt.NDArray[np.int64],
    overlap: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
) -> npt.NDArray[np.float64]:
    """Return the probability that each peak agrees by chance: how full its bin and its frame are, if independent.

    A drum fills its frames: whatever song has a beat at the same time agrees with it.
    """
    firsts, ends = overlap
    inside = nearby[_BORDER:-_BORDER]
    before = np.zeros((len(inside) + 1, _N_BINS), np.uint16)  # of each frame, how many of a bin are True
    np.cumsum(inside, axis=0, dtype=np.uint16, out=before[1:])
    n_frames = (ends - firsts)[owners]
    of_bin = (before[ends[owners], bins] - before[firsts[owners], bins]) / n_frames
    full = nearby.sum(axis=1)
    total = np.concatenate([[0], np.cumsum(full[_BORDER:-_BORDER])])
    mean = (total[ends] - total[firsts])[owners] / n_frames
    chances: npt.NDArray[np.float64] = np.minimum(of_bin * full[frames] / np.maximum(mean, 1e-6), MAX_CHANCE)
    return chances


def _overlap(
    places: npt.NDArray[np.int64], n_frames: int, index: Index
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the first frame of a snippet of `n_frames` that lies in the song, and the one after the last."""
    songs = index.song_at(places)
    begins = index.begins[songs] - places
    ends = begins + STEPS * np.array(index.n_frames, np.int64)[songs]
    firsts = np.clip(begins // STEPS, 0, n_frames - 1)
    return firsts, np.clip(-(-ends // STEPS), firsts + 1, n_frames)


def _map(peaks: Peaks, speed: float) -> npt.NDArray[np.bool_]:
    """Return where a song may have a peak that agrees with one of the snippet: one frame and one bin around each."""
    n_frames = int(np.ceil(peaks.n_frames * speed)) + 1
    nearby = np.zeros((n_frames + 2 * _BORDER, _N_BINS), bool)
    frames = np.rint(peaks.times * speed).astype(np.int64) + _BORDER
    bins = np.rint(peaks.bins / speed).astype(np.int64)
    frames, bins = frames[bins < _N_BINS - 1], bins[bins < _N_BINS - 1]
    for frame in (-1, 0, 1):
        for step in (-1, 0, 1):
            nearby[frames + frame, bins + step] = True
    return nearby


def _likelihood_ratio(
    hits: npt.NDArray[Any], by_chance: npt.NDArray[Any], n: npt.NDArray[np.int64]
) -> npt.NDArray[np.float64]:
    """Return the log likelihood ratio of `hits` of `n` at the rate seen and at the rate by chance; 0 if it is lower."""
    n = np.maximum(n, 1)
    seen = np.clip(hits / n, 1e-6, 1 - 1e-6)
    chance = np.clip(by_chance / n, 1e-3, MAX_CHANCE)
    ratio = n * (seen * np.log(seen / chance) + (1 - seen) * np.log((1 - seen) / (1 - chance)))
    better: npt.NDArray[np.float64] = np.where(seen > chance, ratio, 0.0)
    return better
