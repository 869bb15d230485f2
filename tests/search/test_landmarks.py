"""Peaks and the hashes of their pairs."""

from __future__ import annotations

import numpy as np
import pytest

from genre.search import landmarks
from genre.search.landmarks import HOP, SAMPLE_RATE, SNIPPET_REACH, SONG_REACH
from tests.search.conftest import Music


def test_a_tone_that_rings_once_is_a_peak_at_its_time_and_frequency() -> None:
    t = np.arange(2 * SAMPLE_RATE) / SAMPLE_RATE
    samples = (np.sin(2 * np.pi * 1000 * t) * np.exp(-(((t - 1.0) / 0.1) ** 2))).astype(np.float32)
    peaks = landmarks.find_peaks(samples, SONG_REACH)
    nearest = np.argmin(np.abs(peaks.bins - 1000 * landmarks.N_FFT / SAMPLE_RATE))
    assert peaks.bins[nearest] == pytest.approx(1000 * landmarks.N_FFT / SAMPLE_RATE, abs=0.1)
    centre_s = (peaks.times[nearest] * HOP + landmarks.N_FFT / 2) / SAMPLE_RATE
    assert centre_s == pytest.approx(1.0, abs=0.01)


def test_silence_and_a_sound_shorter_than_a_frame_have_no_peaks() -> None:
    for n_samples in (0, 100, 5 * SAMPLE_RATE):
        peaks = landmarks.find_peaks(np.zeros(n_samples, np.float32), SONG_REACH)
        assert len(peaks) == 0
        assert len(landmarks.pairs(peaks)[0]) == 0


def test_the_level_does_not_matter(music: Music) -> None:
    song = music(1, 6.0)
    loud, quiet = (landmarks.find_peaks(song * gain, SONG_REACH) for gain in (1.0, 0.01))
    assert len(loud) == len(quiet)
    np.testing.assert_allclose(loud.times, quiet.times, atol=1e-2)


def test_the_blocks_in_which_a_long_song_is_worked_off_do_not_show(
    music: Music, monkeypatch: pytest.MonkeyPatch
) -> None:
    song = music(2, 12.0)
    whole = landmarks.find_peaks(song, SONG_REACH)
    monkeypatch.setattr(landmarks, "BLOCK_FRAMES", 50)
    pieces = landmarks.find_peaks(song, SONG_REACH)
    np.testing.assert_array_equal(whole.times, pieces.times)
    np.testing.assert_array_equal(whole.bins, pieces.bins)


def test_the_peaks_of_a_song_are_among_those_of_a_snippet(music: Music) -> None:
    song = music(3, 6.0)
    of_song, of_snippet = (landmarks.find_peaks(song, reach) for reach in (SONG_REACH, SNIPPET_REACH))
    assert set(zip(of_song.times, of_song.bins, strict=True)) <= set(
        zip(of_snippet.times, of_snippet.bins, strict=True)
    )


def test_pairs_lie_within_their_zone(music: Music) -> None:
    peaks = landmarks.find_peaks(music(4, 6.0), SONG_REACH)
    firsts, seconds = landmarks.pairs(peaks)
    frames = peaks.times[seconds] - peaks.times[firsts]
    assert len(firsts)
    assert frames.min() >= landmarks.MIN_FRAMES
    assert frames.max() < landmarks.MAX_FRAMES
    assert np.abs(peaks.bins[seconds] - peaks.bins[firsts]).max() < landmarks.MAX_BINS


def test_the_keys_of_a_snippet_hold_that_of_the_song_within_the_tolerance(music: Music) -> None:
    peaks = landmarks.find_peaks(music(5, 6.0), SONG_REACH)
    keys, _ = landmarks.keys_of_song(peaks)
    firsts, seconds = landmarks.pairs(peaks)
    rng = np.random.default_rng(0)
    off = [rng.uniform(-0.3, 0.3, len(firsts)).astype(np.float32) for _ in range(3)]
    found, owners = landmarks.keys_of_snippet(
        peaks.bins[firsts] + off[0],
        peaks.bins[seconds] - peaks.bins[firsts] + off[1],
        peaks.times[seconds] - peaks.times[firsts] + off[2],
        (0.31, 0.31, 0.31),
    )
    both = set(zip(owners.tolist(), found.tolist(), strict=True))
    assert set(enumerate(keys.tolist())) <= both
    assert len(both) == len(found)


def test_keys_fit_their_bits(music: Music) -> None:
    keys, _ = landmarks.keys_of_song(landmarks.find_peaks(music(6, 6.0), SONG_REACH))
    assert keys.max() < 2**landmarks.KEY_BITS
