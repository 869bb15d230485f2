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
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genre.search import landmarks
from genre.search.engine import MAX_SNIPPET_S, Candidate, probability
from genre.search.landmark_index import AXIS_BITS, STEPS, LandmarkIndex
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
CENTRE, SPREAD = 2.5, 1.2

MAX_CHANCE = 0.9  # upper bound of the probability that a peak agrees by chance

KINDS = ((1, 1), (0, 1), (1, 0))  # of changes, in tempo and in frequency: of speed, pitch and tempo

Doubles = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

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

        Peaks that agree with a song add no evidence to the songs after it, so that other copies of its recording have
        none. The samples are as `landmarks.load` returns them; at most `engine.MAX_SNIPPET_S` are used.
        """
        samples = snippet[: round(MAX_SNIPPET_S * landmarks.SAMPLE_RATE)]
        peaks = landmarks.find_peaks(samples, landmarks.SNIPPET_NEIGHBOURHOOD)
        return [self._candidate(alignment) for alignment in self._search(peaks, without).distinct()]

    def recognise_peaks(self, peaks: Peaks, *, without: Collection[str] = ()) -> list[Candidate]:
        """Return one candidate per song, copies included, for peaks, which may be those of an indexed song."""
        return [self._candidate(alignment) for alignment in self._search(peaks, without).ranking()]

    def _search(self, peaks: Peaks, without: Collection[str]) -> _Search:
        n_steps = int(self.max_change / STEP + 1e-6)
        amounts = [sign * STEP * step for step in range(1, n_steps + 1) for sign in (1, -1)]
        changes = [[Change(1 + amount * a, 1 + amount * b) for amount in amounts] for a, b in KINDS if amounts]
        excluded = np.array([song.sha256 in without for song in self.index.songs], bool)
        search = _Search(self.index, peaks, excluded, np.log(1 + sum(map(len, changes))))
        for of_one_kind in ([Change()], *changes):
            search.vote(of_one_kind)
            if search.alignments and max(search.alignments).evidence >= CERTAIN:
                break
        for alignment in search.ranking()[:N_REFINED]:
            search.refine(alignment)
        return search

    def _candidate(self, alignment: _Alignment) -> Candidate:
        evidence, song, position, n_agreeing, change = alignment
        return Candidate(
            song=self.index.songs[song],
            offset_s=float((position - self.index.begins[song]) / STEPS * landmarks.FRAME_S),
            evidence=evidence,
            score=probability(evidence, CENTRE, SPREAD),
            speed=change.tempo,
            n_agreeing=n_agreeing,
        )


class Change(NamedTuple):
    """Tempo and frequencies of a snippet, relative to the song."""

    tempo: float = 1.0
    frequency: float = 1.0

    def undone(self, peaks: Peaks) -> Peaks:
        """Return the peaks of a snippet without the change."""
        n_frames = int(np.ceil(peaks.n_frames * self.tempo)) + 1
        return Peaks(peaks.times * np.float32(self.tempo), peaks.bins / np.float32(self.frequency), n_frames)

    def nearby(self) -> list[Change]:
        """Return changes of the same kind, at fine steps; those of the speed near no change."""
        kind = KINDS[0] if self == Change() else (self.tempo != 1, self.frequency != 1)
        return [Change(self.tempo + step * kind[0], self.frequency + step * kind[1]) for step in FINE_STEPS]


class _Alignment(NamedTuple):
    evidence: float
    song: int
    position: int  # of the snippet's start on the axis of the index
    n_agreeing: int  # peaks of the song that the snippet has
    change: Change


@dataclass(frozen=True, slots=True)
class _Search:
    """A search for the alignments of a snippet with the songs of an index."""

    index: LandmarkIndex
    peaks: Peaks
    excluded: Mask  # songs, shape (songs,)
    penalty: float  # subtracted from the evidence of a change: the log of the number of changes that are tried
    alignments: list[_Alignment] = field(default_factory=list)

    def ranking(self) -> list[_Alignment]:
        """Return the best alignment of each song, best first."""
        return sorted({alignment.song: alignment for alignment in sorted(self.alignments)}.values(), reverse=True)

    def distinct(self) -> list[_Alignment]:
        """Return the ranking, in which peaks that agree with a song add no evidence to the songs after it."""
        ranking = self.ranking()
        n_likely = sum(alignment.evidence > 0 for alignment in ranking)
        if n_likely < 2:
            return ranking
        others = replace(self, peaks=self.unexplained(ranking[0]), alignments=ranking[n_likely:])
        for alignment in ranking[1:n_likely]:
            others.compare(alignment.change, np.array([alignment.position]), np.array([alignment.song]))
        return [ranking[0], *others.distinct()]

    def unexplained(self, alignment: _Alignment) -> Peaks:
        """Return the peaks of the snippet that do not agree with a song."""
        aligned = alignment.change.undone(self.peaks)
        first = round((alignment.position - self.index.begins[alignment.song]) / STEPS)
        nearby = _vicinity(self.index.peaks(alignment.song, first, aligned.n_frames))
        frames, bins = np.rint(aligned.times).astype(np.int64), np.rint(aligned.bins).astype(np.int64)
        kept = ~nearby[frames + _BORDER, np.minimum(bins, _N_BINS - 1)]
        return Peaks(self.peaks.times[kept], self.peaks.bins[kept], self.peaks.n_frames)

    def vote(self, changes: Sequence[Change]) -> None:
        """Compare the peaks at the offsets with most votes."""
        numbers, starts = _most_voted(self.peaks, changes, self.index)
        songs = self.index.song_at(starts * STEPS)
        for number, change in enumerate(changes):
            kept = (numbers == number) & ~self.excluded[songs]
            self.compare(change, starts[kept] * STEPS, songs[kept])

    def refine(self, coarse: _Alignment) -> None:
        """Compare alignments shifted by parts of a frame, and with nearby changes around the middle of the snippet."""
        shifts = np.arange(-STEPS, STEPS + 1)
        for change in coarse.change.nearby():
            drift = STEPS * self.peaks.n_frames / 2 * (coarse.change.tempo - change.tempo)
            self.compare(change, coarse.position + shifts + round(drift), np.full(len(shifts), coarse.song))

    def compare(self, change: Change, positions: Integers, songs: Integers) -> None:
        """Compare the peaks at positions [shape=(n,)] in songs [shape=(n,)]."""
        if len(positions):
            evidence, n_agreeing = _evidence(change.undone(self.peaks), positions, songs, self.index)
            evidence -= self.penalty * (change not in Change().nearby())
            columns = (column.tolist() for column in (evidence, songs, positions, n_agreeing))
            self.alignments.extend(_Alignment._make((*row, change)) for row in zip(*columns, strict=True))


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
        times.append(song.times[firsts][owners].astype(np.float64) - number * 2.0**AXIS_BITS)
    distinct, inverse = np.unique(np.concatenate(hashes), return_inverse=True)
    matched, in_index = index.lookup(distinct)
    edges = np.searchsorted(matched, np.arange(len(distinct) + 1))
    owners, indices = landmarks.ranges(edges[inverse], edges[inverse + 1])
    votes = np.rint(in_index[indices] - np.concatenate(times)[owners]).astype(np.int64)
    starts, counts = np.unique(votes, return_counts=True)
    with_adjacent = counts.copy()
    adjacent = np.diff(starts) == 1
    with_adjacent[:-1] += counts[1:] * adjacent
    with_adjacent[1:] += counts[:-1] * adjacent
    most = np.argsort(-with_adjacent, kind="stable")[:N_OFFSETS]
    return np.divmod(starts[most], 2**AXIS_BITS)


def _evidence(peaks: Peaks, positions: Integers, songs: Integers, index: LandmarkIndex) -> tuple[Doubles, Integers]:
    """Return the evidence that the snippet starts at these positions, and how many peaks agree [shape=(positions,)].

    The evidence is the log likelihood ratio of the peaks that agree, less the log of the number of frames in the index.
    """
    nearby = _vicinity(peaks)
    owners, peak_positions, peak_bins = index.peaks_between(positions, positions + STEPS * peaks.n_frames)
    frames = np.rint((peak_positions - positions[owners]) / STEPS).astype(np.int64) + _BORDER
    bins = np.rint(peak_bins).astype(np.int64)
    n_peaks = np.bincount(owners, minlength=len(positions))
    hits = np.bincount(owners[nearby[frames, bins]], minlength=len(positions))
    begins = index.begins[songs] - positions
    ends = begins + STEPS * index.n_frames[songs]
    firsts = np.clip(begins // STEPS, 0, peaks.n_frames - 1)
    ends = np.clip(-(-ends // STEPS), firsts + 1, peaks.n_frames)
    chances = _chances(nearby, frames, bins, firsts[owners], ends[owners])
    by_chance = np.bincount(owners, chances, minlength=len(positions))
    shares = np.minimum(1, MAX_PEAKS / np.maximum(n_peaks, 1))
    return shares * _likelihood_ratio(hits, by_chance, n_peaks) - float(np.log(max(index.n_frames.sum(), 1))), hits


def _chances(nearby: Mask, frames: Integers, bins: Integers, firsts: Integers, ends: Integers) -> Doubles:
    """Return the probability that each peak agrees by chance [shape=(peaks,)], from the density of its bin and frame.

    `firsts` and `ends` are the first frame of the overlap of snippet and song, and the frame after it, for each peak.
    The density of the frame counts because a drum fills its frames, and so agrees with any song that has a beat there.
    """
    inside = nearby[_BORDER:-_BORDER]
    cumulated = np.zeros((len(inside) + 1, _N_BINS), np.uint16)
    np.cumsum(inside, axis=0, dtype=np.uint16, out=cumulated[1:])
    n_frames = ends - firsts
    bin_density = (cumulated[ends, bins] - cumulated[firsts, bins]) / n_frames
    n_set = nearby.sum(axis=1)
    total = np.concatenate([[0], np.cumsum(n_set[_BORDER:-_BORDER])])
    mean = (total[ends] - total[firsts]) / n_frames
    chances: Doubles = np.minimum(bin_density * n_set[frames] / np.maximum(mean, 1e-6), MAX_CHANCE)
    return chances


def _vicinity(peaks: Peaks) -> Mask:
    """Return True within one frame and one bin of a peak of the snippet [shape=(frames, bins)]."""
    nearby = np.zeros((peaks.n_frames + 2 * _BORDER, _N_BINS), bool)
    frames = np.rint(peaks.times).astype(np.int64) + _BORDER
    bins = np.rint(peaks.bins).astype(np.int64)
    frames, bins = frames[bins < _N_BINS - 1], bins[bins < _N_BINS - 1]
    for frame in (-1, 0, 1):
        for step in (-1, 0, 1):
            nearby[frames + frame, bins + step] = True
    return nearby


def _likelihood_ratio(hits: Integers, by_chance: npt.NDArray[Any], n: Integers) -> Doubles:
    """Return the log likelihood ratio of the observed rate `hits / n` against chance; 0 if it is not above chance."""
    n = np.maximum(n, 1)
    rate = np.clip(hits / n, 1e-6, 1 - 1e-6)
    chance = np.clip(by_chance / n, 1e-3, MAX_CHANCE)
    ratio = n * (rate * np.log(rate / chance) + (1 - rate) * np.log((1 - rate) / (1 - chance)))
    return np.where(rate > chance, ratio, 0.0)
