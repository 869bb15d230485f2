"""Peaks of the spectrogram, and hashes of pairs of peaks."""

from __future__ import annotations

import numpy as np
import pytest

from genre.search import landmarks
from genre.search.landmarks import HOP, SAMPLE_RATE, SONG_NEIGHBOURHOOD, find_peaks
from tests.search.conftest import music


def test_a_short_tone_is_a_peak_at_its_time_and_frequency() -> None:
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    samples = (np.sin(2 * np.pi * 1000 * t) * np.exp(-(((t - 1.0) / 0.1) ** 2))).astype(np.float32)
    peaks = find_peaks(samples, SONG_NEIGHBOURHOOD)
    expected_bin = 1000 * landmarks.N_FFT / SAMPLE_RATE
    nearest = np.argmin(np.abs(peaks.bins - expected_bin))
    assert peaks.bins[nearest] == pytest.approx(expected_bin, abs=0.1)
    assert (peaks.times[nearest] * HOP + landmarks.N_FFT / 2) / SAMPLE_RATE == pytest.approx(1.0, abs=0.01)


def test_peaks_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find_peaks(music(2, 12.0), SONG_NEIGHBOURHOOD)
    monkeypatch.setattr(landmarks, "BLOCK_FRAMES", 50)
    blocks = find_peaks(music(2, 12.0), SONG_NEIGHBOURHOOD)
    np.testing.assert_array_equal(whole.times, blocks.times)
    np.testing.assert_array_equal(whole.bins, blocks.bins)
