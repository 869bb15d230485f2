"""Made music for the tests of search: random notes, every song its own."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest

from stages.search.landmarks import SAMPLE_RATE

Signal = npt.NDArray[np.float32]
Music = Callable[..., Signal]


@pytest.fixture(scope="session")
def music() -> Music:
    """Return a function that makes a song of a seed: random notes with harmonics, over a little noise."""
    return _music


def _music(seed: int, seconds: float = 20.0, sample_rate: int = SAMPLE_RATE) -> Signal:
    rng = np.random.default_rng(seed)
    n_samples = round(seconds * sample_rate)
    song = 0.003 * rng.standard_normal(n_samples)
    for _ in range(round(6 * seconds)):
        begin = int(rng.integers(0, n_samples))
        t = np.arange(min(round(rng.uniform(0.2, 0.8) * sample_rate), n_samples - begin)) / sample_rate
        hz = 440.0 * 2 ** (rng.integers(-24, 24) / 12)
        tones = sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 5) if k * hz < sample_rate / 2)
        song[begin : begin + len(t)] += rng.uniform(0.1, 0.4) * tones * np.exp(-4 * t)
    scaled: Signal = (0.5 * song / np.abs(song).max()).astype(np.float32)
    return scaled
