"""The built-in engine: the numbers of sonic-annotator's qm-mfcc and bbc-spectral-contrast, with NumPy alone.

Source: sonic-annotator 1.6, qm-vamp-plugins 1.8 and bbc-vamp-plugins 1.1 at their defaults. Window and FFT are
float64 and the spectrum is rounded to float32, as in the Vamp host; magnitudes are float64; the MFCC stay so to
the end, the contrast is averaged in float32, as in the plugins. Hence the printed digits are theirs too.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from genre.errors import FeatureError
from genre.features.transforms import (
    CONTRAST_PEAKS,
    CONTRAST_VALLEYS,
    HOST_CHUNK,
    MFCC,
    TRANSFORMS,
    Features,
    Samples,
    Transform,
)

VERSION = "1"  # increased with every change of the numbers

BATCH_CHUNKS = 32  # host chunks transformed together: their spectra stay in the L2 cache
PART_BATCHES = 32  # batches yielded together: 48 s at 22,050 Hz
PART_CHUNKS = PART_BATCHES * BATCH_CHUNKS

N_MEL = 40
MEL_FIRST_HZ = 66.6666666
MEL_STEP_HZ = 66.66666666  # of the first 13 edges
MEL_RATIO = 1.0711703  # of the edges after them
N_LINEAR_EDGES = 13
MEL_GROUP = 8  # filters multiplied together: few zeros, and too small for BLAS to start threads

BAND_EDGES = (0, 8, 16, 32, 64, 128, 256, 512)  # bins of the contrast bands, the same at every sample rate
BAND_ENDS = (1, 1, 1, 1, 1, 3, 5)  # magnitudes averaged at either end: alpha = 0.02 of a band, at least 1


def compute(
    samples: Samples, sample_rate: int, *, transforms: Sequence[Transform] = tuple(TRANSFORMS.values())
) -> Features:
    """Compute the features of a whole signal.

    Parameters
    ----------
    samples : int16 or float32 array [shape=(n,)]
        Mono signal. int16 is divided by 32768; float32 has full scale 1.0 and is clipped there.
    sample_rate : int
        Hz.
    transforms : sequence of Transform
        What to compute, out of the transform table.

    Returns
    -------
    dict of float32 array [shape=(frames, columns)]
        By feature name. `Transform.n_frames(n)` rows each; row i is centred on sample i * step.

    Raises
    ------
    FeatureError
        If the signal is not one-dimensional int16 or finite float32, or the sample rate is not positive.
    """
    parts = list(compute_blocks((samples,), sample_rate, transforms=transforms))
    if not parts:
        return {t.feature: np.empty((0, t.columns), np.float32) for t in transforms}
    return {t.feature: np.concatenate([part[t.feature] for part in parts]) for t in transforms}


def compute_blocks(
    blocks: Iterable[Samples],
    sample_rate: int,
    *,
    transforms: Sequence[Transform] = tuple(TRANSFORMS.values()),
) -> Iterator[Features]:
    """Compute the features of a signal that arrives in blocks of any length, in bounded memory.

    The rows yielded, one part after the other, are bit for bit those of `compute` on the joined blocks.

    Parameters
    ----------
    blocks : iterable of int16 or float32 array [shape=(any,)]
        Consecutive pieces of one mono signal.
    sample_rate, transforms
        As for `compute`.

    Yields
    ------
    dict of float32 array [shape=(frames, columns)]
        The next rows of each feature, by feature name.

    Raises
    ------
    FeatureError
        As for `compute`.
    """
    if sample_rate <= 0:
        raise FeatureError(f"the sample rate is {sample_rate} Hz: it must be positive")
    names = [t.feature for t in transforms]
    signal = np.zeros((1 + BATCH_CHUNKS) * HOST_CHUNK)  # the last chunk of the batch before, and the batch
    plugins: list[_Mfcc | _Contrast] = []
    if MFCC.feature in names:
        plugins.append(_Mfcc(signal, sample_rate))
    if CONTRAST_PEAKS.feature in names or CONTRAST_VALLEYS.feature in names:
        plugins.append(_Contrast(signal))

    part_chunks = 0
    for n_chunks in _fill(signal, blocks):
        for plugin in plugins:
            plugin.add_batch(part_chunks // BATCH_CHUNKS)
        part_chunks += n_chunks
        if part_chunks == PART_CHUNKS:
            yield _part(plugins, names, part_chunks)
            part_chunks = 0
    if part_chunks:
        yield _part(plugins, names, part_chunks)


@functools.lru_cache(maxsize=8)
def mel_filters(sample_rate: int) -> npt.NDArray[np.float64]:
    """Return the filter bank of qm-mfcc: 40 triangles of unit area in Hz, at the same places at every rate.

    Returns
    -------
    float64 array [shape=(bins, 40)]
        Weights of the bins of a 2048-point spectrum, up to the last that any filter uses; read-only.
    """
    edges = MEL_FIRST_HZ + MEL_STEP_HZ * np.arange(N_MEL + 2)
    edges[N_LINEAR_EDGES:] = edges[N_LINEAR_EDGES - 1] * MEL_RATIO ** np.arange(1, N_MEL + 3 - N_LINEAR_EDGES)
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    frequency = np.arange(MFCC.block // 2)[:, np.newaxis] * sample_rate / MFCC.block
    rising = np.where((low < frequency) & (frequency <= centre), (frequency - low) / (centre - low), 0.0)
    falling = np.where((centre < frequency) & (frequency < high), (high - frequency) / (high - centre), 0.0)
    weights: npt.NDArray[np.float64] = 2 / (high - low) * (rising + falling)
    weights.flags.writeable = False
    return weights[: int(np.flatnonzero(weights.any(axis=1)).max(initial=0)) + 1]


def _fill(signal: npt.NDArray[np.float64], blocks: Iterable[Samples]) -> Iterator[int]:
    """Put one batch after the other into `signal` and yield the number of host chunks in it.

    The last batch is filled up with zeros, so every batch has the same shape.
    """
    end = HOST_CHUNK
    for block in blocks:
        _check(block)
        rest = block
        while rest.size:
            piece, rest = rest[: signal.size - end], rest[signal.size - end :]
            free = signal[end : end + piece.size]
            if piece.dtype == np.int16:
                np.multiply(piece, 1 / 32768, out=free)
            else:
                np.clip(piece, -1.0, 1.0, out=free)
            end += piece.size
            if end == signal.size:
                yield BATCH_CHUNKS
                signal[:HOST_CHUNK] = signal[-HOST_CHUNK:]
                end = HOST_CHUNK
    if end > HOST_CHUNK:
        signal[end:] = 0.0
        yield -(-end // HOST_CHUNK) - 1


def _check(block: Samples) -> None:
    if block.ndim != 1 or block.dtype not in (np.int16, np.float32):
        raise FeatureError(
            f"the samples are {block.dtype} of shape {block.shape}: they must be int16 or float32 of shape (n,)"
        )
    if block.dtype == np.float32 and not np.isfinite(block).all():
        raise FeatureError("the samples have NaN or infinity among them: decode the audio again")


def _part(plugins: Iterable[_Mfcc | _Contrast], names: Iterable[str], n_chunks: int) -> Features:
    found: Features = {}
    for plugin in plugins:
        found |= plugin.features(-(-n_chunks // BATCH_CHUNKS))
    return {name: found[name][: TRANSFORMS[name].n_frames(n_chunks * HOST_CHUNK)] for name in names}


class _Power:
    """The squared magnitudes of the lowest bins of each frame of the batch that is in `signal`."""

    def __init__(self, signal: npt.NDArray[np.float64], transform: Transform, n_bins: int) -> None:
        block = transform.block
        centred = signal[HOST_CHUNK - block // 2 :]
        self._signal_frames = np.lib.stride_tricks.sliding_window_view(centred, block)[:: transform.step]
        n_frames = len(self._signal_frames)
        self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(block) / block)  # periodic Hann
        self._frames = np.empty((n_frames, block))
        self._spectrum = np.empty((n_frames, block // 2 + 1), np.complex128)
        self._parts = self._spectrum.view(np.float64)[:, : 2 * n_bins]  # real, imaginary, real, ...
        self._single = np.empty((n_frames, 2 * n_bins), np.float32)
        squares = self._frames.reshape(-1)[: self._single.size]  # the frames are done with by then
        self._squares = squares.reshape(self._single.shape)
        self._power = np.empty((n_frames, n_bins))

    def __call__(self) -> npt.NDArray[np.float64]:
        """Return an array [shape=(frames, bins)] that the next call overwrites."""
        np.multiply(self._signal_frames, self._window, out=self._frames)
        np.fft.rfft(self._frames, axis=1, out=self._spectrum)
        self._single[:] = self._parts
        self._squares[:] = self._single
        np.multiply(self._squares, self._squares, out=self._squares)
        return np.add(self._squares[:, ::2], self._squares[:, 1::2], out=self._power)


class _Mfcc:
    """qm-mfcc: the mel energies batch by batch, logarithm and cosine transform once a part."""

    def __init__(self, signal: npt.NDArray[np.float64], sample_rate: int) -> None:
        filters = mel_filters(sample_rate)
        self._groups = [_without_zeros(filters, q, q + MEL_GROUP) for q in range(0, N_MEL, MEL_GROUP)]
        self._power = _Power(signal, MFCC, len(filters))
        self._energies = np.zeros((PART_BATCHES, BATCH_CHUNKS * HOST_CHUNK // MFCC.step, N_MEL))
        mel, coefficient = np.arange(N_MEL)[:, np.newaxis], np.arange(MFCC.columns)
        self._dct = np.sqrt(2 / N_MEL) * np.cos(np.pi * coefficient * (mel + 0.5) / N_MEL)
        self._dct[:, 0] = np.sqrt(1 / N_MEL)

    def add_batch(self, batch: int) -> None:
        power = self._power()
        magnitude = np.sqrt(power, out=power)
        for bins, filters, weights in self._groups:
            np.matmul(magnitude[:, bins], weights, out=self._energies[batch, :, filters])

    def features(self, n_batches: int) -> Features:
        energies = self._energies[:n_batches]
        energies[energies == 0.0] = 1.0  # the plugin takes 0 for the logarithm of nothing
        coefficients = np.log10(energies) @ self._dct
        return {MFCC.feature: coefficients.reshape(-1, MFCC.columns).astype(np.float32)}


def _without_zeros(
    weights: npt.NDArray[np.float64], first: int, end: int
) -> tuple[slice, slice, npt.NDArray[np.float64]]:
    """Return the bins that filters `first` to `end` - 1 use, these filters, and their weights."""
    used = np.flatnonzero(weights[:, first:end].any(axis=1))
    bins = slice(used[0], used[-1] + 1) if used.size else slice(0)
    return bins, slice(first, end), np.ascontiguousarray(weights[bins, first:end])


class _Contrast:
    """bbc-spectral-contrast: the extreme powers of each band batch by batch, their mean magnitudes once a part."""

    def __init__(self, signal: npt.NDArray[np.float64]) -> None:
        self._power = _Power(signal, CONTRAST_PEAKS, BAND_EDGES[-1])
        shape = (PART_BATCHES, BATCH_CHUNKS * HOST_CHUNK // CONTRAST_PEAKS.step, sum(BAND_ENDS))
        self._lowest, self._highest = np.zeros(shape), np.zeros(shape)

    def add_batch(self, batch: int) -> None:
        power = self._power()
        lowest, highest = self._lowest[batch], self._highest[batch]
        n_single = BAND_ENDS.count(1)  # the low bands, whose ends are just minimum and maximum
        starts, single = BAND_EDGES[:n_single], power[:, : BAND_EDGES[n_single]]
        np.minimum.reduceat(single, starts, axis=1, out=lowest[:, :n_single])
        np.maximum.reduceat(single, starts, axis=1, out=highest[:, :n_single])
        column = n_single
        for band in range(n_single, len(BAND_ENDS)):
            ascending = power[:, BAND_EDGES[band] : BAND_EDGES[band + 1]]
            ascending.sort(axis=1)  # faster than a partition: NumPy sorts with SIMD
            n = BAND_ENDS[band]
            lowest[:, column : column + n] = ascending[:, :n]
            highest[:, column : column + n] = ascending[:, -n:]
            column += n

    def features(self, n_batches: int) -> Features:
        return {
            CONTRAST_PEAKS.feature: _band_means(self._highest[:n_batches]),
            CONTRAST_VALLEYS.feature: _band_means(self._lowest[:n_batches]),
        }


def _band_means(power: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the mean magnitudes [shape=(frames, bands)], added up in ascending order as the plugin does."""
    magnitude = np.sqrt(power.reshape(-1, power.shape[-1])).astype(np.float32)
    means = np.empty((len(magnitude), len(BAND_ENDS)), np.float32)
    column = 0
    for band, n in enumerate(BAND_ENDS):
        total = magnitude[:, column]
        for other in range(column + 1, column + n):
            total = total + magnitude[:, other]
        means[:, band] = total / np.float32(n)
        column += n
    return means
