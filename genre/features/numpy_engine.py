"""The numbers of the built-in engine: qm-mfcc and bbc-spectral-contrast as sonic-annotator prints them, in NumPy.

Source: sonic-annotator 1.6, qm-vamp-plugins 1.8 and bbc-vamp-plugins 1.1 at their defaults. Window and FFT are
float64 and the spectrum is rounded to float32, as in the Vamp host; magnitudes and MFCC are float64, the contrast is
averaged in float32, as in the plugins.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator

import numpy as np
import numpy.typing as npt

from genre.features.transforms import (
    CONTRAST_PEAKS,
    CONTRAST_VALLEYS,
    MFCC,
    TRANSFORMS,
    Features,
    Samples,
    Transform,
    batches,
    spectra,
)

VERSION = "1"  # increased with every change of the numbers

N_MEL = 40
MEL_FIRST_HZ = 66.6666666
MEL_STEP_HZ = 66.66666666  # of the first 13 edges
MEL_RATIO = 1.0711703  # of the edges after them
N_LINEAR_EDGES = 13

BAND_EDGES = (0, 8, 16, 32, 64, 128, 256, 512)  # bins of the contrast bands, the same at every sample rate
BAND_ENDS = (1, 1, 1, 1, 1, 3, 5)  # magnitudes averaged at either end: alpha = 0.02 of a band, at least 1


def compute(samples: Samples, sample_rate: int) -> Features:
    """Return the features of n > 0 samples, by name, with `Transform.n_frames(n)` rows each; see `compute_blocks`."""
    parts = list(compute_blocks((samples,), sample_rate))
    return {feature: np.concatenate([part[feature] for part in parts]) for feature in TRANSFORMS}


def compute_blocks(blocks: Iterable[Samples], sample_rate: int) -> Iterator[Features]:
    """Yield the next rows [shape=(frames, columns)] of each feature of a signal, by name, in bounded memory.

    `blocks` are as for `batches`, at `sample_rate` in Hz. The rows, joined, are bit for bit those of `compute` on the
    joined blocks; row i describes the `block` samples centred on sample i * step, with zeros before the start and, up
    to a multiple of HOST_BLOCK, after the end. Raises FeatureError as `batches`.
    """
    for batch, n_samples in batches(blocks):  # of one shape, so that BLAS adds in one order
        features = {MFCC.feature: _mfcc(batch, sample_rate), **_contrast(batch)}
        yield {name: features[name][: TRANSFORMS[name].n_frames(n_samples)] for name in TRANSFORMS}


@functools.lru_cache(maxsize=8)
def mel_filters(sample_rate: int) -> npt.NDArray[np.float64]:
    """Return the filter bank of qm-mfcc: 40 triangles of unit area in Hz, at the same places at every rate.

    The array [shape=(bins, 40)] has the weights of the bins of a 2048-point spectrum, up to the last that any filter
    uses; it is read-only.
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


@functools.cache
def _dct() -> npt.NDArray[np.float64]:
    """Return the orthonormal DCT-II [shape=(40, 20)]."""
    mel, coefficient = np.arange(N_MEL)[:, np.newaxis], np.arange(MFCC.columns)
    dct: npt.NDArray[np.float64] = np.sqrt(2 / N_MEL) * np.cos(np.pi * coefficient * (mel + 0.5) / N_MEL)
    dct[:, 0] = np.sqrt(1 / N_MEL)
    return dct


def _power(batch: npt.NDArray[np.float64], transform: Transform, n_bins: int) -> npt.NDArray[np.float64]:
    """Return the squared magnitudes of the lowest bins of every frame [shape=(frames, n_bins)]."""
    squares = spectra(batch, transform, n_bins).view(np.float32).astype(np.float64)  # real, imaginary, real, ...
    squares *= squares
    return squares[:, ::2] + squares[:, 1::2]


def _mfcc(batch: npt.NDArray[np.float64], sample_rate: int) -> npt.NDArray[np.float32]:
    """Return the coefficients of qm-mfcc [shape=(frames, 20)]."""
    filters = mel_filters(sample_rate)
    magnitudes = np.sqrt(_power(batch, MFCC, len(filters))) @ filters  # of each mel band
    magnitudes[magnitudes == 0.0] = 1.0  # in the plugin, the logarithm of 0 is 0
    return (np.log10(magnitudes) @ _dct()).astype(np.float32)


def _contrast(batch: npt.NDArray[np.float64]) -> Features:
    """Return the peaks and valleys of bbc-spectral-contrast [shape=(frames, 7) each]."""
    power = _power(batch, CONTRAST_PEAKS, BAND_EDGES[-1])
    peaks = np.empty((len(power), len(BAND_ENDS)), np.float32)
    valleys = np.empty_like(peaks)
    for band, n in enumerate(BAND_ENDS):
        ascending = power[:, BAND_EDGES[band] : BAND_EDGES[band + 1]]
        ascending.sort(axis=1)
        peaks[:, band] = _mean_magnitude(ascending[:, -n:])
        valleys[:, band] = _mean_magnitude(ascending[:, :n])
    return {CONTRAST_PEAKS.feature: peaks, CONTRAST_VALLEYS.feature: valleys}


def _mean_magnitude(power: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the mean magnitude of each row, added up in float32 from left to right as the plugin does."""
    magnitude = np.sqrt(power).astype(np.float32)
    return np.cumsum(magnitude, axis=1, dtype=np.float32)[:, -1] / np.float32(power.shape[1])
