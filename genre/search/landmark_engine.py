"""Identify a snippet by landmarks: hashes vote for offsets in songs, then all peaks are compared at the best offsets.

Every hash that snippet and song share votes for an offset of the snippet in the song; votes for the true offset agree.
At the offsets with most votes the peaks are compared: the number of the song's peaks that the snippet has, against the
number expected by chance (binomial log likelihood ratio), over the part of the snippet that overlaps the song. Other
playing speeds are tried unless the evidence exceeds `CERTAIN`; the best songs are compared again at fine steps.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from genre.search import landmarks
from genre.search.engine import MAX_SNIPPET_S, Candidate, probability
from genre.search.landmark_index import STEPS, LandmarkIndex
from genre.search.landmarks import Floats, Integers, Peaks

SPEED_STEP = 0.01  # halfway between two steps, half of the peaks still match
FINE_STEPS = (-0.005, 0.0, 0.005)  # changes of speed tried for the best songs
TOLERANCE = (0.4, 0.5, 0.5)  # bins, bins and frames: largest error of a hash of a snippet
N_OFFSETS = 50  # offsets with most votes that are compared in full at each speed
N_REFINED = 3  # best songs that are compared at fine steps
MAX_PEAKS = 400  # peaks of 13 s; more add no evidence, because different songs can agree for whole bars
CERTAIN = 60.0  # evidence above which no other speed is tried

# Logistic function from evidence to score, fitted by `python -m benchmarks.identify --fit`.
CENTRE, SPREAD = 4.0, 1.2

MAX_CHANCE = 0.9  # upper bound of the probability that a peak agrees by chance

Pairs = tuple[Integers, Integers]  # as `landmarks.pairs` returns them

_BORDER = 3  # empty frames before and after the peaks of a snippet
_N_BINS = landmarks.N_FFT // 2 + 1


@dataclass(frozen=True, slots=True)
class LandmarkEngine:
    """The identification engine `landmarks`."""

    index: LandmarkIndex
    max_speed_change: float = 0.03  # as a fraction
    load = staticmethod(landmarks.load)

    def recognise(self, snippet: Floats, *, without: Collection[str] = ()) -> list[Candidate]:
        """Return one candidate per song, best first, leaving out songs of these SHA-256.

        The samples are as `landmarks.load` returns them; at most `engine.MAX_SNIPPET_S` are used.
        """
        samples = snippet[: round(MAX_SNIPPET_S * landmarks.SAMPLE_RATE)]
        return self.recognise_peaks(landmarks.find_peaks(samples, landmarks.SNIPPET_NEIGHBOURHOOD), without=without)

    def recognise_peaks(self, peaks: Peaks, *, without: Collection[str] = ()) -> list[Candidate]:
        """Return the candidates of `recognise` for the peaks of a snippet, which may be those of an indexed song."""
        pairs = landmarks.pairs(peaks)
        excluded = np.array([song.sha256 in without for song in self.index.songs], bool)
        best: dict[int, _Alignment] = {}
        n_steps = int(self.max_speed_change / SPEED_STEP + 1e-6)
        for step in sorted(range(-n_steps, n_steps + 1), key=lambda step: (abs(step), -step)):
            speed = 1.0 + step * SPEED_STEP
            starts = _most_voted(peaks, pairs, speed, self.index)
            songs = self.index.song_at(starts * STEPS)
            kept = ~excluded[songs]
            _keep_best(best, peaks, speed, starts[kept] * STEPS, songs[kept], self.index)
            if best and max(best.values()).evidence >= CERTAIN:
                break
        for alignment in sorted(best.values(), reverse=True)[:N_REFINED]:
            _refine(best, alignment, peaks, self.index)
        begins = self.index.begins
        return [
            Candidate(
                song=self.index.songs[a.song],
                offset_s=float((a.position - begins[a.song]) / STEPS * landmarks.FRAME_S),
                evidence=a.evidence,
                score=probability(a.evidence, CENTRE, SPREAD),
                speed=a.speed,
                n_agreeing=a.n_agreeing,
            )
            for a in sorted(best.values(), reverse=True)
        ]


@dataclass(frozen=True, slots=True, order=True)
class _Alignment:
    evidence: float
    song: int
    position: int  # of the snippet's start on the axis of the index
    speed: float
    n_agreeing: int  # peaks of the song that the snippet has


def _keep_best(
    best: dict[int, _Alignment], peaks: Peaks, speed: float, positions: Integers, songs: Integers, index: LandmarkIndex
) -> None:
    """Compare the peaks at positions [shape=(n,)] in songs [shape=(n,)]; keep the best alignment of each song."""
    evidence, n_agreeing = _evidence(peaks, speed, positions, index)
    columns = (evidence, songs, positions, n_agreeing)
    for value, song, position, n in zip(*(column.tolist() for column in columns), strict=True):
        alignment = _Alignment(value, song, position, speed, int(n))
        if song not in best or alignment > best[song]:
            best[song] = alignment


def _refine(best: dict[int, _Alignment], coarse: _Alignment, peaks: Peaks, index: LandmarkIndex) -> None:
    """Compare alignments shifted by parts of a frame, and at nearby speeds around the middle of the snippet."""
    shifts = np.arange(-STEPS, STEPS + 1)
    for step in FINE_STEPS:
        speed = coarse.speed + step
        drift = STEPS * peaks.n_frames / 2 * (coarse.speed - speed)
        positions = coarse.position + shifts + round(drift)
        _keep_best(best, peaks, speed, positions, np.full(len(positions), coarse.song), index)


def _most_voted(peaks: Peaks, pairs: Pairs, speed: float, index: LandmarkIndex) -> Integers:
    """Return the frames, in all indexed songs end to end, with most votes for the start of the snippet [shape=(n,)]."""
    times, bins = peaks.times * np.float32(speed), peaks.bins / np.float32(speed)
    anchors, targets = pairs
    hashes, owners = landmarks.snippet_hashes(
        bins[anchors], bins[targets] - bins[anchors], times[targets] - times[anchors], TOLERANCE
    )
    matched, positions = index.lookup(hashes)
    votes = np.rint(positions / STEPS - times[anchors][owners[matched]]).astype(np.int64)
    starts, counts = np.unique(votes, return_counts=True)
    with_adjacent = counts.copy()
    adjacent = np.diff(starts) == 1
    with_adjacent[:-1] += counts[1:] * adjacent
    with_adjacent[1:] += counts[:-1] * adjacent
    if len(starts) <= N_OFFSETS:
        return starts
    return starts[np.argpartition(-with_adjacent, N_OFFSETS)[:N_OFFSETS]]


def _evidence(
    peaks: Peaks, speed: float, positions: Integers, index: LandmarkIndex
) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    """Return the evidence that the snippet starts at these positions, and how many peaks agree [shape=(positions,)].

    The evidence is the log likelihood ratio of the peaks that agree, less the log of the number of frames in the index.
    """
    nearby = _vicinity(peaks, speed)
    n_frames = len(nearby) - 2 * _BORDER
    span = STEPS * n_frames
    owners, indices = landmarks.ranges(
        np.searchsorted(index.peak_positions, positions), np.searchsorted(index.peak_positions, positions + span)
    )
    frames = np.rint((index.peak_positions[indices] - positions[owners]) / STEPS).astype(np.int64) + _BORDER
    bins = np.rint(index.peak_bins[indices]).astype(np.int64)
    n_peaks = np.bincount(owners, minlength=len(positions))
    hits = np.bincount(owners, nearby[frames, bins], minlength=len(positions))
    chances = _chances(nearby, frames, bins, owners, _overlap(positions, n_frames, index))
    by_chance = np.bincount(owners, chances, minlength=len(positions))
    shares = np.minimum(1, MAX_PEAKS / np.maximum(n_peaks, 1))
    return shares * _likelihood_ratio(hits, by_chance, n_peaks) - float(np.log(max(index.total_frames, 1))), hits


def _chances(
    nearby: npt.NDArray[np.bool_],
    frames: Integers,
    bins: Integers,
    owners: Integers,
    overlap: tuple[Integers, Integers],
) -> npt.NDArray[np.float64]:
    """Return the probability that each peak agrees by chance [shape=(peaks,)], from the density of its bin and frame.

    The density of the frame counts because a drum fills its frames, and so agrees with any song that has a beat there.
    """
    firsts, ends = overlap
    inside = nearby[_BORDER:-_BORDER]
    cumulated = np.zeros((len(inside) + 1, _N_BINS), np.uint16)
    np.cumsum(inside, axis=0, dtype=np.uint16, out=cumulated[1:])
    n_frames = (ends - firsts)[owners]
    bin_density = (cumulated[ends[owners], bins] - cumulated[firsts[owners], bins]) / n_frames
    n_set = nearby.sum(axis=1)
    total = np.concatenate([[0], np.cumsum(n_set[_BORDER:-_BORDER])])
    mean = (total[ends] - total[firsts])[owners] / n_frames
    chances: npt.NDArray[np.float64] = np.minimum(bin_density * n_set[frames] / np.maximum(mean, 1e-6), MAX_CHANCE)
    return chances


def _overlap(positions: Integers, n_frames: int, index: LandmarkIndex) -> tuple[Integers, Integers]:
    """Return the first frame of the snippet that overlaps the song, and the frame after the last."""
    songs = index.song_at(positions)
    begins = index.begins[songs] - positions
    ends = begins + STEPS * np.array(index.n_frames, np.int64)[songs]
    firsts = np.clip(begins // STEPS, 0, n_frames - 1)
    return firsts, np.clip(-(-ends // STEPS), firsts + 1, n_frames)


def _vicinity(peaks: Peaks, speed: float) -> npt.NDArray[np.bool_]:
    """Return True within one frame and one bin of a peak of the snippet [shape=(frames, bins)]."""
    n_frames = int(np.ceil(peaks.n_frames * speed)) + 1
    nearby = np.zeros((n_frames + 2 * _BORDER, _N_BINS), bool)
    frames = np.rint(peaks.times * speed).astype(np.int64) + _BORDER
    bins = np.rint(peaks.bins / speed).astype(np.int64)
    frames, bins = frames[bins < _N_BINS - 1], bins[bins < _N_BINS - 1]
    for frame in (-1, 0, 1):
        for step in (-1, 0, 1):
            nearby[frames + frame, bins + step] = True
    return nearby


def _likelihood_ratio(hits: npt.NDArray[Any], by_chance: npt.NDArray[Any], n: Integers) -> npt.NDArray[np.float64]:
    """Return the log likelihood ratio of the observed rate `hits / n` against chance; 0 if it is not above chance."""
    n = np.maximum(n, 1)
    rate = np.clip(hits / n, 1e-6, 1 - 1e-6)
    chance = np.clip(by_chance / n, 1e-3, MAX_CHANCE)
    ratio = n * (rate * np.log(rate / chance) + (1 - rate) * np.log((1 - rate) / (1 - chance)))
    return np.where(rate > chance, ratio, 0.0)
