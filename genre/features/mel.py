"""The mel scale of M. Slaney's Auditory Toolbox (1998): linear below 1 kHz, logarithmic above."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt


def filters(sample_rate: int, n_fft: int, n_mels: int, lowest_hz: float = 0.0) -> npt.NDArray[np.float64]:
    """Return the weights of mel filters of unit area from `lowest_hz` to half the sample rate, equal to librosa's.

    Returns
    -------
    npt.NDArray[np.float64] [shape=(n_fft // 2 + 1, n_mels)]
    """
    edges = _hz(np.linspace(_mel(lowest_hz), _mel(sample_rate / 2), n_mels + 2))
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    frequency = np.fft.rfftfreq(n_fft, 1 / sample_rate)[:, np.newaxis]
    triangles = np.minimum((frequency - low) / (centre - low), (high - frequency) / (high - centre))
    return np.maximum(triangles, 0.0) * 2 / (high - low)


def _mel(hz: float) -> float:
    return hz * 3 / 200 if hz < 1000 else 15 + 27 * math.log(hz / 1000, 6.4)


def _hz(mel: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
