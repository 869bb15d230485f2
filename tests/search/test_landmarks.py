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


def test_peaks_do_not_depend_on_the_level() -> None:
    loud, quiet = (find_peaks(music(1, 6.0) * gain, SONG_NEIGHBOURHOOD) for gain in (1.0, 0.01))
    assert len(loud.times) == len(quiet.times)
    np.testing.assert_allclose(loud.times, quiet.times, atol=1e-2)


def test_peaks_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = find_peaks(music(2, 12.0), SONG_NEIGHBOURHOOD)
    monkeypatch.setattr(landmarks, "BLOCK_FRAMES", 50)
    blocks = find_peaks(music(2, 12.0), SONG_NEIGHBOURHOOD)
    np.testing.assert_array_equal(whole.times, blocks.times)
    np.testing.assert_array_equal(whole.bins, blocks.bins)


def test_pairs_are_within_the_limits() -> None:
    peaks = find_peaks(music(4, 6.0), SONG_NEIGHBOURHOOD)
    firsts, seconds = landmarks.pairs(peaks)
    frames = peaks.times[seconds] - peaks.times[firsts]
    assert len(firsts)
    assert frames.min() >= landmarks.MIN_FRAMES
    assert frames.max() < landmarks.MAX_FRAMES
    assert np.abs(peaks.bins[seconds] - peaks.bins[firsts]).max() < landmarks.MAX_BINS


def test_the_hashes_of_a_snippet_contain_those_of_its_song_within_the_tolerance() -> None:
    peaks = find_peaks(music(5, 6.0), SONG_NEIGHBOURHOOD)
    of_song, _ = landmarks.song_hashes(peaks)
    firsts, seconds = landmarks.pairs(peaks)
    rng = np.random.default_rng(0)
    errors = [rng.uniform(-0.3, 0.3, len(firsts)).astype(np.float32) for _ in range(3)]
    of_snippet, owners = landmarks.snippet_hashes(
        peaks.bins[firsts] + errors[0],
        peaks.bins[seconds] - peaks.bins[firsts] + errors[1],
        peaks.times[seconds] - peaks.times[firsts] + errors[2],
        (0.31, 0.31, 0.31),
    )
    pairs_and_hashes = set(zip(owners.tolist(), of_snippet.tolist(), strict=True))
    assert set(enumerate(of_song.tolist())) <= pairs_and_hashes
    assert len(pairs_and_hashes) == len(of_snippet)
    assert of_snippet.max() < 2**landmarks.HASH_BITS
