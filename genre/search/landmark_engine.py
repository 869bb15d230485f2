"""Identify a snippet by landmarks: hashes vote for offsets in songs, then all peaks are compared at the best offsets.

Every hash that snippet and song share votes for an offset of the snippet in the song; votes for the true offset agree.
At the offsets with most votes the peaks are compared: the number of the song's peaks that the snippet has, against the
number expected by chance (binomial log likelihood ratio), over the part of the snippet that overlaps the song. Changes
of speed, pitch and tempo are tried, one kind after the other, until the evidence exceeds `CERTAIN`; the pairs of low
peaks vote for all changes of a kind together. The best songs are compared again at fine steps.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from genre.search import landmarks
from genre.search.engine import MAX_SNIPPET_S, Candidate, probability
from genre.search.landmark_index import STEPS, LandmarkIndex
from genre.search.landmarks import Floats, Integers, Peaks

STEP = 0.01  # between two changes; halfway between them, half of the peaks still match
FINE_STEPS = (-0.005, 0.0, 0.005)  # added to the changes of the best songs
LOW_BINS = 128  # first peaks of the pairs that vote for changes: up to 1380 Hz, where an error of a change is small
TOLERANCE = (0.4, 0.5, 0.5)  # bins, bins and frames: largest error of a hash of a snippet
N_OFFSETS = 50  # offsets with most votes that are compared in full, of all changes of a kind
N_REFINED = 3  # best songs that are compared at fine steps
MAX_PEAKS = 400  # peaks of 13 s; more add no evidence, because different songs can agree for whole bars
CERTAIN = 60.0  # evidence above which no other change is tried

# Logistic function from evidence to score, fitted by `python -m benchmarks.identify --fit`.
CENTRE, SPREAD = 4.0, 1.2

MAX_CHANCE = 0.9  # upper bound of the probability that a peak agrees by chance

Kind = Literal["speed", "pitch", "tempo"]  # of changes; speed changes tempo and pitch

_AXIS = 2**40  # frames; larger than any index
_BORDER = 3  # empty frames before and after the peaks of a snippet
_N_BINS = landmarks.N_FFT // 2 + 1


@dataclass(frozen=True, slots=True)
class LandmarkEngine:
    """The identification engine `landmarks`."""

    index: LandmarkIndex
    max_change: float = 0.08  # of speed, pitch or tempo, as a fraction
    load = staticmethod(landmarks.load)

    def recognise(self, snippet: Floats, *, without: Collection[str] = ()) -> list[Candidate]:
        """Return one candidate per song, best first, leaving out songs of these SHA-256.

        The samples are as `landmarks.load` returns them; at most `engine.MAX_SNIPPET_S` are used.
        """
        samples = snippet[: round(MAX_SNIPPET_S * landmarks.SAMPLE_RATE)]
        return self.recognise_peaks(landmarks.find_peaks(samples, landmarks.SNIPPET_NEIGHBOURHOOD), without=without)

    def recognise_peaks(self, peaks: Peaks, *, without: Collection[str] = ()) -> list[Candidate]:
        """Return the candidates of `recognise` for the peaks of a snippet, which may be those of an indexed song."""
        steps = [STEP * n for n in range(1, int(self.max_change / STEP + 1e-6) + 1)]
        factors = [1 + change for step in steps for change in (step, -step)]
        kinds: list[list[Change]] = [[Change(factor, kind) for factor in factors] for kind in get_args(Kind)]
        excluded = np.array([song.sha256 in without for song in self.index.songs], bool)
        search = _Search(self.index, peaks, excluded, np.log(1 + len(kinds) * len(factors)))
        for changes in ([Change()], *filter(None, kinds)):
            search.vote(changes)
            if search.best and search.ranking()[0].evidence >= CERTAIN:
                break
        for alignment in search.ranking()[:N_REFINED]:
            search.refine(alignment)
        begins = self.index.begins
        return [
            Candidate(
                song=self.index.songs[a.song],
                offset_s=float((a.position - begins[a.song]) / STEPS * landmarks.FRAME_S),
                evidence=a.evidence,
                score=probability(a.evidence, CENTRE, SPREAD),
                speed=a.change.of_times,
                pitch=a.change.of_bins / a.change.of_times,
                n_agreeing=a.n_agreeing,
            )
            for a in search.ranking()
        ]


@dataclass(frozen=True, slots=True, order=True)
class Change:
    """A change of a snippet relative to its song."""

    factor: float = 1.0
    kind: Kind = "speed"

    @property
    def of_times(self) -> float:
        """Return the tempo of the snippet, relative to the song."""
        return 1.0 if self.kind == "pitch" else self.factor

    @property
    def of_bins(self) -> float:
        """Return the frequencies of the snippet, relative to the song."""
        return 1.0 if self.kind == "tempo" else self.factor

    def undone(self, peaks: Peaks) -> Peaks:
        """Return the peaks of a snippet without the change."""
        n_frames = int(np.ceil(peaks.n_frames * self.of_times)) + 1
        return Peaks(peaks.times * np.float32(self.of_times), peaks.bins / np.float32(self.of_bins), n_frames)


@dataclass(frozen=True, slots=True, order=True)
class _Alignment:
    evidence: float
    song: int
    position: int  # of the snippet's start on the axis of the index
    change: Change
    n_agreeing: int  # peaks of the song that the snippet has


@dataclass(frozen=True, slots=True)
class _Search:
    """A search for the alignments of a snippet with the songs of an index."""

    index: LandmarkIndex
    peaks: Peaks
    excluded: npt.NDArray[np.bool_]  # songs, shape (songs,)
    penalty: float  # subtracted from the evidence of a change: the log of the number of changes that are tried
    best: dict[int, _Alignment] = field(default_factory=dict)  # by song

    def ranking(self) -> list[_Alignment]:
        """Return the best alignment of each song, best first."""
        return sorted(self.best.values(), reverse=True)

    def vote(self, changes: Sequence[Change]) -> None:
        """Compare the peaks at the offsets with most votes."""
        numbers, starts = _most_voted(self.peaks, changes, self.index)
        songs = self.index.song_at(starts * STEPS)
        for number, change in enumerate(changes):
            kept = (numbers == number) & ~self.excluded[songs]
            if kept.any():
                self.compare(change, starts[kept] * STEPS, songs[kept])

    def refine(self, coarse: _Alignment) -> None:
        """Compare alignments shifted by parts of a frame, and with nearby changes around the middle of the snippet."""
        shifts = np.arange(-STEPS, STEPS + 1)
        for step in FINE_STEPS:
            change = replace(coarse.change, factor=coarse.change.factor + step)
            drift = STEPS * self.peaks.n_frames / 2 * (coarse.change.of_times - change.of_times)
            positions = coarse.position + shifts + round(drift)
            self.compare(change, positions, np.full(len(positions), coarse.song))

    def compare(self, change: Change, positions: Integers, songs: Integers) -> None:
        """Compare the peaks at positions [shape=(n,)] in songs [shape=(n,)]; keep the best alignment of each song."""
        evidence, n_agreeing = _evidence(change.undone(self.peaks), positions, self.index)
        if abs(change.factor - 1) > max(FINE_STEPS):
            evidence -= self.penalty
        columns = (evidence, songs, positions, n_agreeing)
        for value, song, position, n in zip(*(column.tolist() for column in columns), strict=True):
            alignment = _Alignment(value, song, position, change, int(n))
            if song not in self.best or alignment > self.best[song]:
                self.best[song] = alignment


def _most_voted(peaks: Peaks, changes: Sequence[Change], index: LandmarkIndex) -> tuple[Integers, Integers]:
    """Return the offsets of the snippet with most votes: the index of the change, and the frame [shape=(n,) each].

    Frames are counted over all indexed songs end to end.
    """
    firsts, seconds = landmarks.pairs(peaks)
    if changes != [Change()]:
        low = peaks.bins[firsts] < LOW_BINS
        firsts, seconds = firsts[low], seconds[low]
    hashes, times = [], []
    for number, change in enumerate(changes):
        song = change.undone(peaks)
        apart, frames = song.bins[seconds] - song.bins[firsts], song.times[seconds] - song.times[firsts]
        of_change, owners = landmarks.snippet_hashes(song.bins[firsts], apart, frames, TOLERANCE)
        hashes.append(of_change)
        times.append(song.times[firsts][owners].astype(np.float64) - number * _AXIS)
    distinct, inverse = np.unique(np.concatenate(hashes), return_inverse=True)
    matched, positions = index.lookup(distinct)
    edges = np.searchsorted(matched, np.arange(len(distinct) + 1))
    owners, indices = landmarks.ranges(edges[inverse], edges[inverse + 1])
    votes = np.rint(positions[indices] / STEPS - np.concatenate(times)[owners]).astype(np.int64)
    starts, counts = np.unique(votes, return_counts=True)
    with_adjacent = counts.copy()
    adjacent = np.diff(starts) == 1
    with_adjacent[:-1] += counts[1:] * adjacent
    with_adjacent[1:] += counts[:-1] * adjacent
    most = np.argsort(-with_adjacent, kind="stable")[:N_OFFSETS]
    return np.divmod(starts[most], _AXIS)


def _evidence(
    peaks: Peaks, positions: Integers, index: LandmarkIndex
) -> tuple[npt.NDArray[np.float64], npt.NDArray[Any]]:
    """Return the evidence that the snippet starts at these positions, and how many peaks agree [shape=(positions,)].

    The evidence is the log likelihood ratio of the peaks that agree, less the log of the number of frames in the index.
    """
    nearby = _vicinity(peaks)
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


def _vicinity(peaks: Peaks) -> npt.NDArray[np.bool_]:
    """Return True within one frame and one bin of a peak of the snippet [shape=(frames, bins)]."""
    nearby = np.zeros((peaks.n_frames + 2 * _BORDER, _N_BINS), bool)
    frames = np.rint(peaks.times).astype(np.int64) + _BORDER
    bins = np.rint(peaks.bins).astype(np.int64)
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
