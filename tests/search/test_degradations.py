"""Degradations change a snippet as their names say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import degradations
from benchmarks.degradations import CONDITIONS, SAMPLE_RATE, Signal
from genre.audio import ffmpeg

RNG = np.random.default_rng(0)


def _tone(hz: float, seconds: float = 2.0) -> Signal:
    return np.sin(2 * np.pi * hz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE).astype(np.float32)


@pytest.mark.parametrize("snr_db", [10.0, 0.0, -5.0])
def test_noise_is_added_at_the_signal_to_noise_ratio(snr_db: float) -> None:
    signal, noise = 0.3 * _tone(440.0), degradations.pink_noise(2 * SAMPLE_RATE, RNG)
    added = degradations.mix(signal, noise, snr_db) - signal
    assert 10 * np.log10(np.mean(signal**2) / np.mean(added**2)) == pytest.approx(snr_db, abs=0.01)


def test_a_faster_song_is_shorter_and_higher() -> None:
    faster = degradations.change_speed(_tone(1000.0), 1.02)
    assert len(faster) == pytest.approx(2 * SAMPLE_RATE / 1.02, abs=2)
    assert np.argmax(np.abs(np.fft.rfft(faster))) * SAMPLE_RATE / len(faster) == pytest.approx(1020, abs=1)


def test_a_telephone_removes_the_bass() -> None:
    low, middle = (degradations.telephone(_tone(hz), _tone(hz), RNG) for hz in (80.0, 1000.0))
    assert np.std(low) < 0.01
    assert np.std(middle) == pytest.approx(np.sqrt(0.5), rel=0.02)


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.name)
def test_every_condition_can_be_written_and_decoded(condition: degradations.Condition, tmp_path: Path) -> None:
    snippet = degradations.change_speed(0.5 * _tone(700.0), condition.speed)
    degraded = condition.apply(snippet, 0.5 * _tone(1500.0)[: len(snippet)], RNG)
    degradations.write_snippet(tmp_path / "snippet", degraded, condition.options)
    samples = np.concatenate(list(ffmpeg.stream_pcm(tmp_path / "snippet", sample_rate=SAMPLE_RATE)))
    assert len(samples) == pytest.approx(len(degraded) / condition.tempo, rel=0.05)
