"""Landmarks: peaks of the spectrogram, and hashes of pairs of peaks, which are robust to noise and codecs.

After Wang, "An industrial-strength audio search algorithm" (ISMIR 2003). A peak is a local maximum of the log
spectrogram; two peaks near each other in time and frequency form a hash of (frequency, difference of frequencies,
difference of times). Which pairs are formed depends on the positions of the two peaks only, so peaks of added noise
remove none. Peaks are interpolated between the points of the spectrogram, so that the hashes at another playing speed
can be computed from the peaks.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre.audio import ffmpeg

VERSION = 2  # part of the cache key: raise it with every change of the landmarks
SAMPLE_RATE = 11_025  # Hz
N_FFT = 1024  # samples, 93 ms: bins of 10.8 Hz
HOP = 256  # samples, 23 ms
FRAME_S = HOP / SAMPLE_RATE
SONG_NEIGHBOURHOOD = (8, 16)  # frames and bins on each side of a peak that are lower than it
SNIPPET_NEIGHBOURHOOD = (5, 10)  # smaller: a snippet has all peaks of its song, and more
LOWEST_BIN, HIGHEST_BIN = 8, 508  # 86 to 5470 Hz
FLOOR_DB = 80.0  # below the level of the loudest sample; lower points are no peaks
MAX_BINS, MIN_FRAMES, MAX_FRAMES = 40, 2, 44  # of the second peak of a pair after the first
BLOCK_FRAMES = 4096  # frames of the spectrogram in memory

_BIN_BITS, _DIFFERENCE_BITS, _FRAME_BITS = 9, 7, 6
HASH_BITS = _BIN_BITS + _DIFFERENCE_BITS + _FRAME_BITS
_MULTIPLIER = np.uint32(0x9E3779B1)  # 2**32 / golden ratio, odd (Knuth, The Art of Computer Programming, 6.4)

SETTINGS = {
    "version": VERSION,
    "sample_rate": SAMPLE_RATE,
    "n_fft": N_FFT,
    "hop": HOP,
    "neighbourhood": list(SONG_NEIGHBOURHOOD),
    "bins": [LOWEST_BIN, HIGHEST_BIN],
    "floor_db": FLOOR_DB,
    "pairs": [MAX_BINS, MIN_FRAMES, MAX_FRAMES],
}

Floats = npt.NDArray[np.float32]
Integers = npt.NDArray[np.int64]
Unsigned = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peaks of a recording, sorted by time."""

    times: Floats  # in frames, shape (n,)
    bins: Floats  # frequencies in bins, shape (n,)
    n_frames: int


def load(path: Path, *, start: float = 0.0, duration: float | None = None) -> Floats:
    """Return samples of a file, mono at `SAMPLE_RATE`; full scale is 1.0 [shape=(n,)]. Raise AudioError."""
    blocks = list(ffmpeg.stream_pcm(path, sample_rate=SAMPLE_RATE, start=start, duration=duration))
    return np.concatenate(blocks).astype(np.float32) / np.float32(32768)


def find_peaks(samples: Floats, neighbourhood: tuple[int, int]) -> Peaks:
    """Return the peaks of samples [shape=(n,)], mono at `SAMPLE_RATE`.

    `neighbourhood` is `SONG_NEIGHBOURHOOD` or `SNIPPET_NEIGHBOURHOOD`.
    """
    from scipy.ndimage import maximum_filter

    n_frames = max(0, 1 + (len(samples) - N_FFT) // HOP)
    margin = neighbourhood[0] + 1
    times, bins = [], []
    peak = float(np.max(np.abs(samples), initial=0.0))
    full_level = np.log(max(peak, 1e-4) * N_FFT / 4)  # of a sine with the amplitude of the largest sample
    floor = full_level - FLOOR_DB * np.log(10) / 20
    for first in range(0, n_frames, BLOCK_FRAMES):
        begin, end = max(0, first - margin), min(n_frames, first + BLOCK_FRAMES + margin)
        levels = _levels(samples[begin * HOP : (end - 1) * HOP + N_FFT])
        maxima = levels == maximum_filter(levels, [2 * n + 1 for n in neighbourhood])
        frames, positions = np.nonzero(maxima & (levels > floor))
        kept = (positions >= LOWEST_BIN) & (positions < HIGHEST_BIN)
        kept &= (frames + begin >= first) & (frames + begin < first + BLOCK_FRAMES)
        frames, positions = frames[kept], positions[kept]
        times.append(begin + frames + _interpolated(levels, frames, positions, 0))
        bins.append(positions + _interpolated(levels, frames, positions, 1))
    all_times, all_bins = (np.concatenate([np.empty(0), *blocks]) for blocks in (times, bins))
    order = np.argsort(all_times, kind="stable")
    return Peaks(all_times[order].astype(np.float32), all_bins[order].astype(np.float32), n_frames)


def pairs(peaks: Peaks) -> tuple[Integers, Integers]:
    """Return the indices of the first and second peak of every pair [shape=(pairs,) each]."""
    begin = np.searchsorted(peaks.times, peaks.times + MIN_FRAMES)
    end = np.searchsorted(peaks.times, peaks.times + MAX_FRAMES)
    firsts, seconds = ranges(begin, end)
    near = np.abs(peaks.bins[seconds] - peaks.bins[firsts]) < MAX_BINS
    return firsts[near], seconds[near]


def ranges(begin: npt.NDArray[np.integer[Any]], end: npt.NDArray[np.integer[Any]]) -> tuple[Integers, Integers]:
    """Return i and j of every i and j with begin[i] <= j < end[i] [shape=(n,) each]."""
    counts = end.astype(np.int64) - begin
    owners = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return owners, np.arange(counts.sum()) + (begin - before)[owners]


def song_hashes(peaks: Peaks) -> tuple[Unsigned, Floats]:
    """Return the hash of every pair, and the time of its first peak in frames [shape=(pairs,) each]."""
    firsts, seconds = pairs(peaks)
    low, apart = peaks.bins[firsts], peaks.bins[seconds] - peaks.bins[firsts]
    hashes = _hash(np.floor(low), np.floor(apart), np.floor(peaks.times[seconds] - peaks.times[firsts]))
    return hashes, peaks.times[firsts]


def snippet_hashes(
    low: Floats, apart: Floats, frames: Floats, tolerance: tuple[float, float, float]
) -> tuple[Unsigned, Integers]:
    """Return the hashes that pairs may have in the song, and the index of the pair of each hash [shape=(n,) each].

    `low`, `apart` and `frames` [shape=(pairs,) each] are the bin of the first peak, and bins and frames from it to the
    second one; `tolerance` is the largest error of each of the three.
    """
    values, errors = np.stack([low, apart, frames]), np.array(tolerance, np.float32)[:, None]
    edges = np.floor([values - errors, values + errors])
    roundings = np.array(list(itertools.product((0, 1), repeat=3)))  # each value down or up
    distinct = ((roundings[:, :, None] == 0) | (edges[1] != edges[0])).all(axis=1)
    low_edges, apart_edges, frame_edges = (edges[roundings[:, k], k][distinct] for k in range(3))
    return _hash(low_edges, apart_edges, frame_edges), np.nonzero(distinct)[1]


def in_sample(hashes: Unsigned, density: float) -> npt.NDArray[np.bool_]:
    """Return a mask of hashes that are in a random sample; `density` is its share of all hashes [shape=(n,)]."""
    scattered: Unsigned = hashes * _MULTIPLIER & np.uint32(2**HASH_BITS - 1)
    return np.asarray(scattered < density * 2**HASH_BITS)


def _hash(low: Floats, apart: Floats, frames: Floats) -> Unsigned:
    """Return numbers below 2**`HASH_BITS`, near each other for values near each other [shape=(n,)]."""
    shifted = apart + 2 ** (_DIFFERENCE_BITS - 1)
    hashes: Unsigned = np.zeros(len(low), np.uint32)
    for value, n_bits in ((low, _BIN_BITS), (shifted, _DIFFERENCE_BITS), (frames, _FRAME_BITS)):
        hashes = (hashes << np.uint32(n_bits)) + np.clip(value, 0, 2**n_bits - 1).astype(np.uint32)
    return hashes


def _levels(samples: Floats) -> Floats:
    """Return the log magnitude spectrogram [shape=(frames, bins)]."""
    from scipy import fft

    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP] * window
    spectrum = fft.rfft(frames, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    levels: Floats = np.log(np.maximum(power, np.float32(1e-12))) / 2
    return levels


def _interpolated(levels: Floats, frames: Integers, bins: Integers, axis: int) -> Floats:
    """Return the distance from a peak to the vertex of the parabola through it and its neighbours, -0.5 to 0.5."""
    step = (1, 0) if axis == 0 else (0, 1)
    last = levels.shape[0] - 1
    before = levels[np.maximum(frames - step[0], 0), bins - step[1]]
    after = levels[np.minimum(frames + step[0], last), bins + step[1]]
    curve = before - 2 * levels[frames, bins] + after
    shift = np.where(curve < -1e-6, (before - after) / (2 * np.where(curve < -1e-6, curve, -1)), 0)
    return np.clip(shift, -0.5, 0.5).astype(np.float32)
