"""Landmarks identify the song, offset and score of a degraded snippet, and reject songs that are not indexed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genre.audio import ffmpeg
from genre.search import landmarks
from genre.search.landmark_engine import LandmarkEngine
from genre.search.landmarks import SAMPLE_RATE
from tests.made import Signal, music
from tests.search.conftest import landmark_index

pytestmark = pytest.mark.slow

N_SONGS = 8
THRESHOLD = 0.5


@pytest.fixture(scope="module")
def songs() -> list[Signal]:
    return [music(seed) for seed in range(N_SONGS)]


@pytest.fixture(scope="module")
def engine(songs: list[Signal]) -> LandmarkEngine:
    return LandmarkEngine(landmark_index(songs))


def _cut(song: Signal, start_s: float, seconds: float = 5.0) -> Signal:
    return song[round(start_s * SAMPLE_RATE) : round((start_s + seconds) * SAMPLE_RATE)]


def _named(engine: LandmarkEngine, snippet: Signal) -> list[str]:
    """Return the songs with a score above the threshold."""
    return [c.song.song for c in engine.recognise(snippet) if c.score > THRESHOLD]


def test_a_snippet_is_identified_under_noise_as_loud_as_the_music(songs: list[Signal], engine: LandmarkEngine) -> None:
    snippet = _cut(songs[3], 4.0)
    noise = np.random.default_rng(0).standard_normal(len(snippet)).astype(np.float32) * snippet.std()
    assert _named(engine, snippet + noise) == ["song3"]


@pytest.mark.parametrize(
    ("speed", "tempo"),  # the second without a change of pitch; the last two are changes of pitch
    [
        *((speed, 1) for speed in (0.93, 0.97, 0.987, 1.026, 1.07)),
        (1, 0.95),
        (1, 1.05),
        (1.0595, 0.9438),
        (0.944, 1.06),
    ],
)
def test_a_snippet_is_identified_at_another_speed_tempo_or_pitch(
    speed: float, tempo: float, songs: list[Signal], engine: LandmarkEngine, tmp_path: Path
) -> None:
    pcm = (30000 * _cut(songs[5], 6.0, 8.0)[:, np.newaxis]).astype(np.int16)
    filters = f"asetrate={SAMPLE_RATE * speed:.0f},aresample={SAMPLE_RATE},atempo={tempo}"
    ffmpeg.encode(tmp_path / "changed.wav", pcm, sample_rate=SAMPLE_RATE, format="wav", af=filters)
    best = engine.recognise(engine.load(tmp_path / "changed.wav"))[0]
    assert best.song.song == "song5"
    assert best.offset_s == pytest.approx(6.0, abs=0.1)
    assert best.score > THRESHOLD
    assert best.speed == pytest.approx(speed * tempo, abs=0.006)


@pytest.mark.parametrize("silence_s", [0, 18])
def test_out_of_set_songs_score_below_the_threshold(silence_s: int, engine: LandmarkEngine) -> None:
    silence = np.zeros(silence_s * SAMPLE_RATE, np.float32)
    for seed in range(100, 110):
        assert _named(engine, np.concatenate([silence, music(seed, 5.0)])) == []


def test_a_snippet_may_start_before_its_song_or_end_after_it(songs: list[Signal], engine: LandmarkEngine) -> None:
    gap = np.random.default_rng(1).standard_normal(2 * SAMPLE_RATE).astype(np.float32) * 1e-3
    early = engine.recognise(np.concatenate([gap, songs[4][: 4 * SAMPLE_RATE]]))[0]
    late = engine.recognise(np.concatenate([songs[4][-4 * SAMPLE_RATE :], gap]))[0]
    assert (early.song.song, late.song.song) == ("song4", "song4")
    assert early.offset_s == pytest.approx(-2.0, abs=0.05)
    assert late.offset_s == pytest.approx(16.0, abs=0.05)


def test_songs_with_the_same_drums_are_not_confused() -> None:
    def drummed(seed: int) -> Signal:
        rng, hit = np.random.default_rng(seed), SAMPLE_RATE // 4
        beat = [rng.standard_normal(hit) * np.exp(-40 * np.arange(hit) / SAMPLE_RATE) for _ in range(80)]
        notes = music(seed)
        return (0.3 * notes + 0.5 * np.resize(np.concatenate(beat), len(notes))).astype(np.float32)

    engine = LandmarkEngine(landmark_index([drummed(i) for i in range(4)]))
    for seed in range(100, 104):
        assert _named(engine, _cut(drummed(seed), 0.0, 10.0)) == []
    best = engine.recognise(_cut(drummed(2), 7.0))[0]
    assert best.song.song == "song2"
    assert best.score > 0.99


def test_only_the_first_30_seconds_of_a_recording_are_used(songs: list[Signal], engine: LandmarkEngine) -> None:
    assert _named(engine, np.concatenate(songs[:3])) == ["song0", "song1"]


def test_both_songs_of_a_crossfade_are_candidates_and_a_copy_is_not(songs: list[Signal]) -> None:
    engine = LandmarkEngine(landmark_index([*songs, songs[1] * np.float32(0.5)]))
    fade = np.linspace(1, 0, 2 * SAMPLE_RATE, dtype=np.float32)
    first, second = _cut(songs[1], 3.0, 8.0), _cut(songs[6], 10.0, 8.0)
    mixed = first[-len(fade) :] * fade + second[: len(fade)] * fade[::-1]
    snippet = np.concatenate([first[: -len(fade)], mixed, second[len(fade) :]])
    present = {c.song.song: c.offset_s for c in engine.recognise(snippet) if c.score > THRESHOLD}
    assert set(present) in ({"song6", "song1"}, {"song6", "song8"})
    assert sorted(present.values()) == pytest.approx([3.0, 4.0], abs=0.1)


@pytest.mark.parametrize("n_samples", [0, 1, landmarks.N_FFT, 5 * SAMPLE_RATE])
def test_silence_and_an_empty_index_have_no_candidates(
    n_samples: int, songs: list[Signal], engine: LandmarkEngine
) -> None:
    assert engine.recognise(np.zeros(n_samples, np.float32)) == []
    assert LandmarkEngine(landmark_index([])).recognise(songs[0][:n_samples]) == []
