"""Landmarks: spectral peaks of a recording, and hashes of pairs of them that survive noise, codecs and rooms.

After Wang, "An industrial-strength audio search algorithm" (ISMIR 2003). A peak is a local maximum of the log
spectrogram; two peaks that lie near each other in time and frequency make a hash of (frequency, difference of
frequencies, difference of times). Which pairs are made depends on nothing but the places of the two peaks, so peaks
that noise adds displace none. Peaks are placed between the points of the spectrogram by interpolation: the hashes of a
snippet that was played faster or slower follow from its peaks by arithmetic.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre.search import songs

VERSION = 1  # raised with every change of what a landmark is
SAMPLE_RATE = 11_025  # Hz
N_FFT = 1024  # samples, 93 ms: bins of 10.8 Hz
HOP = 256  # samples, 23 ms
FRAME_S = HOP / SAMPLE_RATE
SONG_REACH = (8, 16)  # frames and bins on each side within which a peak of a song is the largest point
SNIPPET_REACH = (5, 10)  # a snippet has more peaks: those of the song, and what lies around it
LOWEST_BIN, HIGHEST_BIN = 8, 508  # 86 to 5470 Hz
FLOOR_DB = 80.0  # a point this far below the loudest is silence
MAX_BINS, MIN_FRAMES, MAX_FRAMES = 40, 2, 44  # of the second peak of a pair after the first
BLOCK_FRAMES = 4096  # of the spectrogram held in memory at a time

_BIN_BITS, _DIFFERENCE_BITS, _FRAME_BITS = 9, 7, 6
KEY_BITS = _BIN_BITS + _DIFFERENCE_BITS + _FRAME_BITS

SETTINGS = {
    "version": VERSION,
    "sample_rate": SAMPLE_RATE,
    "n_fft": N_FFT,
    "hop": HOP,
    "reach": list(SONG_REACH),
    "bins": [LOWEST_BIN, HIGHEST_BIN],
    "floor_db": FLOOR_DB,
    "pairs": [MAX_BINS, MIN_FRAMES, MAX_FRAMES],
}

Floats = npt.NDArray[np.float32]

load = functools.partial(songs.load, sample_rate=SAMPLE_RATE)


@dataclass(frozen=True, slots=True)
class Peaks:
    """Peaks of a recording in the order of their times."""

    times: Floats  # frames, shape (n,)
    bins: Floats  # of the spectrogram, shape (n,)
    n_frames: int

    def __len__(self) -> int:
        return len(self.times)


def find_peaks(samples: Floats, reach: tuple[int, int]) -> Peaks:
    """Return the peaks of a recording.

    Parameters
    ----------
    samples : npt.NDArray[np.float32] [shape=(n,)]
        Mono at `SAMPLE_RATE`.
    reach : tuple of int
        Frames and bins on each side within which a peak is the largest point.
    """
    n_frames = max(0, 1 + (len(samples) - N_FFT) // HOP)
    margin = reach[0] + 1
    times, bins = [], []
    loudest = _loudest(samples)
    for first in range(0, n_frames, BLOCK_FRAMES):
        begin, end = max(0, first - margin), min(n_frames, first + BLOCK_FRAMES + margin)
        levels = _levels(samples[begin * HOP : (end - 1) * HOP + N_FFT])
        frames, positions = np.nonzero(_largest(levels, reach) & (levels > loudest - FLOOR_DB * np.log(10) / 20))
        kept = (positions >= LOWEST_BIN) & (positions < HIGHEST_BIN)
        kept &= (frames + begin >= first) & (frames + begin < first + BLOCK_FRAMES)
        frames, positions = frames[kept], positions[kept]
        times.append(begin + frames + _between(levels, frames, positions, 0))
        bins.append(positions + _between(levels, frames, positions, 1))
    if not times:
        return Peaks(np.empty(0, np.float32), np.empty(0, np.float32), n_frames)
    found_times, found_bins = np.concatenate(times), np.concatenate(bins)
    order = np.argsort(found_times, kind="stable")
    return Peaks(found_times[order].astype(np.float32), found_bins[order].astype(np.float32), n_frames)


def pairs(peaks: Peaks) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the positions of the first and second peak of every pair [shape=(pairs,) each]."""
    begin = np.searchsorted(peaks.times, peaks.times + MIN_FRAMES)
    end = np.searchsorted(peaks.times, peaks.times + MAX_FRAMES)
    firsts, seconds = ranges(begin, end)
    near = np.abs(peaks.bins[seconds] - peaks.bins[firsts]) < MAX_BINS
    return firsts[near], seconds[near]


def ranges(
    begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return, for every range begin[i] <= j < end[i], all i (repeated) and all j."""
    counts = end - begin
    owners = np.repeat(np.arange(len(counts)), counts)
    before = np.cumsum(counts) - counts
    return owners, np.arange(counts.sum()) + (begin - before)[owners]


def keys_of_song(peaks: Peaks) -> tuple[npt.NDArray[np.uint32], Floats]:
    """Return the key of every pair, and the time of its first peak in frames."""
    firsts, seconds = pairs(peaks)
    low, apart = peaks.bins[firsts], peaks.bins[seconds] - peaks.bins[firsts]
    keys = _key(np.floor(low), np.floor(apart), np.floor(peaks.times[seconds] - peaks.times[firsts]))
    return keys, peaks.times[firsts]


def keys_of_snippet(
    low: Floats, apart: Floats, frames: Floats, tolerance: tuple[float, float, float]
) -> tuple[npt.NDArray[np.uint32], npt.NDArray[np.int64]]:
    """Return the keys that a pair may have in the song, and which pair each is of.

    Parameters
    ----------
    low, apart, frames : npt.NDArray[np.float32] [shape=(pairs,)]
        Bin of the first peak, bins and frames from it to the second.
    tolerance : tuple of float
        How far each of the three may be off.
    """
    edges = [(np.floor(x - t), np.floor(x + t)) for x, t in zip((low, apart, frames), tolerance, strict=True)]
    keys, owners = [], []
    for choice in range(8):
        sides = [choice >> k & 1 for k in range(3)]
        new = np.ones(len(low), bool)
        for side, (lower, upper) in zip(sides, edges, strict=True):
            if side:
                new &= upper != lower
        owner = np.flatnonzero(new)
        keys.append(_key(*(edge[side][owner] for side, edge in zip(sides, edges, strict=True))))
        owners.append(owner)
    return np.concatenate(keys), np.concatenate(owners)


def _key(low: Floats, apart: Floats, frames: Floats) -> npt.NDArray[np.uint32]:
    shifted = apart + 2 ** (_DIFFERENCE_BITS - 1)
    key: npt.NDArray[np.uint32] = np.zeros(len(low), np.uint32)
    for value, n_bits in ((low, _BIN_BITS), (shifted, _DIFFERENCE_BITS), (frames, _FRAME_BITS)):
        key = (key << np.uint32(n_bits)) + np.clip(value, 0, 2**n_bits - 1).astype(np.uint32)
    return key


def _levels(samples: Floats) -> Floats:
    """Return the log magnitude spectrogram [shape=(frames, bins)]."""
    from scipy import fft

    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(samples, N_FFT)[::HOP] * window
    spectrum = fft.rfft(frames, axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    levels: Floats = np.log(np.maximum(power, np.float32(1e-12))) / 2
    return levels


def _loudest(samples: Floats) -> float:
    """Return the level that a sine of the largest amplitude would have."""
    peak = float(np.max(np.abs(samples), initial=0.0))
    return float(np.log(max(peak, 1e-4) * N_FFT / 4))


def _largest(levels: Floats, reach: tuple[int, int]) -> npt.NDArray[np.bool_]:
    from scipy.ndimage import maximum_filter1d

    largest = maximum_filter1d(levels, 2 * reach[1] + 1, axis=1)
    peaks: npt.NDArray[np.bool_] = levels == maximum_filter1d(largest, 2 * reach[0] + 1, axis=0)
    return peaks


def _between(levels: Floats, frames: npt.NDArray[np.int64], bins: npt.NDArray[np.int64], axis: int) -> Floats:
    """Return where the top of the parabola through a peak and its two neighbours lies, -0.5 to 0.5."""
    step = (1, 0) if axis == 0 else (0, 1)
    last = levels.shape[0] - 1
    before = levels[np.maximum(frames - step[0], 0), bins - step[1]]
    after = levels[np.minimum(frames + step[0], last), bins + step[1]]
    curve = before - 2 * levels[frames, bins] + after
    shift = np.where(curve < -1e-6, (before - after) / (2 * np.where(curve < -1e-6, curve, -1)), 0)
    return np.clip(shift, -0.5, 0.5).astype(np.float32)
