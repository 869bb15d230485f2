"""Snippets are spoiled as the conditions say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genre.audio import ffmpeg
from genre.errors import AudioError
from genre.search import degradations
from genre.search.degradations import BEYOND, CONDITIONS, SAMPLE_RATE


def _tone(hz: float, seconds: float = 2.0) -> degradations.Signal:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE).astype(np.float32)


def _loudest_hz(signal: degradations.Signal) -> float:
    return float(np.argmax(np.abs(np.fft.rfft(signal))) * SAMPLE_RATE / len(signal))


@pytest.mark.parametrize("snr_db", [10.0, 0.0, -5.0])
def test_noise_has_the_power_that_is_asked_for(snr_db: float) -> None:
    signal, noise = 0.3 * _tone(440.0), degradations.pink_noise(2 * SAMPLE_RATE, np.random.default_rng(0))
    added = degradations.mix(signal, noise, snr_db) - signal
    assert 10 * np.log10(np.mean(signal**2) / np.mean(added**2)) == pytest.approx(snr_db, abs=0.01)


def test_a_faster_song_is_shorter_and_higher() -> None:
    faster = degradations.played(_tone(1000.0), 1.02)
    assert len(faster) == pytest.approx(2 * SAMPLE_RATE / 1.02, abs=2)
    assert _loudest_hz(faster) == pytest.approx(1020, abs=1)


def test_a_telephone_passes_speech_and_no_bass() -> None:
    low, middle = (degradations.band_pass(_tone(hz), 300, 3400, SAMPLE_RATE) for hz in (80.0, 1000.0))
    assert np.std(low) < 0.01
    assert np.std(middle) == pytest.approx(np.sqrt(0.5), rel=0.02)


def test_a_room_goes_on_when_the_music_has_stopped() -> None:
    burst = _tone(500.0)
    burst[SAMPLE_RATE:] = 0
    heard = degradations.in_room(burst, 0.4, SAMPLE_RATE, np.random.default_rng(0))
    assert np.std(heard[SAMPLE_RATE : SAMPLE_RATE + 2000]) > 0.05
    assert np.std(heard[-2000:]) < 1e-4


@pytest.mark.parametrize("condition", [c for c in CONDITIONS if c.name not in BEYOND], ids=lambda c: c.name)
def test_every_condition_writes_a_file_that_can_be_heard(condition: degradations.Condition, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    piece = degradations.played(0.5 * _tone(700.0), condition.speed)
    spoiled = condition.apply(piece, 0.5 * _tone(1500.0)[: len(piece)], rng)
    degradations.write_snippet(tmp_path / "snippet", spoiled, condition.codec)
    samples = np.concatenate(list(ffmpeg.stream_pcm(tmp_path / "snippet", sample_rate=SAMPLE_RATE)))
    assert len(samples) == pytest.approx(len(spoiled), rel=0.05)


def test_a_codec_that_ffmpeg_lacks_is_named(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match="libnothing"):
        degradations.write_snippet(tmp_path / "snippet", _tone(440.0), ("-c:a", "libnothing", "-f", "ogg"))
