"""Degradations change a snippet as their names say; recognition rates and false acceptance of an engine."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from benchmarks import degradations, recognition
from benchmarks.degradations import CONDITIONS, SAMPLE_RATE
from genre.audio import chunks, ffmpeg
from genre.search.engine import Candidate, IndexedSong
from tests.made import Signal, music, pcm

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


@pytest.mark.parametrize("condition", CONDITIONS, ids=lambda condition: condition.name)
def test_every_condition_can_be_written_and_decoded(condition: degradations.Condition, tmp_path: Path) -> None:
    snippet = degradations.change_speed(0.5 * _tone(700.0), condition.speed)
    degraded = condition.apply(snippet, 0.5 * _tone(1500.0)[: len(snippet)], RNG)
    degradations.write_snippet(tmp_path / "snippet", degraded, condition.options)
    samples = np.concatenate(list(ffmpeg.stream_pcm(tmp_path / "snippet", sample_rate=SAMPLE_RATE)))
    assert len(samples) == pytest.approx(len(degraded) / condition.tempo, rel=0.05)


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[recognition.Recording]:
    folder = tmp_path_factory.mktemp("songs")
    for seed in range(3):
        chunks.write(folder / f"{seed}.wav", pcm(music(seed + 1, 8.0, SAMPLE_RATE)), sample_rate=SAMPLE_RATE)
    return [recognition.Recording(f"{seed:064x}", folder / f"{seed}.wav", 8 * SAMPLE_RATE) for seed in range(3)]


def _measured(songs: list[recognition.Recording], engine: Any, **changes: Any) -> pd.DataFrame:
    options: dict[str, Any] = {"conditions": CONDITIONS[:1], "seconds": [4.0], "n_snippets": 4, "seed": 1} | changes
    return recognition.measure(songs, engine, **options)


class _AlwaysFirst:
    """An engine that names the first song that is not left out, with a score of 0.7."""

    def load(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> None:
        return None

    def recognise(self, snippet: None, *, without: Collection[str] = ()) -> list[Candidate]:
        names = (f"{i:064x}" for i in range(3))
        return [Candidate(IndexedSong(sha256, "x", "rock"), 0.0, 1.0, 0.7) for sha256 in names if sha256 not in without]


def test_wrong_songs_and_false_acceptances_are_counted_from_min_score(songs: list[recognition.Recording]) -> None:
    outcomes = _measured(songs, _AlwaysFirst(), n_snippets=9)
    row, right = recognition.summary(outcomes, min_score=0.5).iloc[0], 100 * (outcomes["song"] == 0).mean()
    assert 0 < right < 100
    assert (row["top1"], row["wrong"], row["false_acceptance"]) == pytest.approx((right, 100 - right, 100), abs=0.01)
    row = recognition.summary(outcomes, min_score=0.8).iloc[0]
    assert (row["top1"], row["wrong"], row["false_acceptance"]) == (0, 0, 0)
