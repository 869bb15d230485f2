"""A song is recognised from a spoiled snippet, and nothing else is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.signal import resample_poly

from genre.search import landmarks
from genre.search.identify import recognise
from genre.search.landmark_index import Index, Song, fingerprint
from genre.search.landmarks import SAMPLE_RATE
from tests.search.conftest import Music, Signal

N_SONGS = 8
THRESHOLD = 0.5


@pytest.fixture(scope="module")
def songs(music: Music) -> list[Signal]:
    return [music(seed) for seed in range(N_SONGS)]


@pytest.fixture(scope="module")
def index(songs: list[Signal]) -> Index:
    items = [(Song(f"{i:064x}", f"song{i}", "made"), fingerprint(song)) for i, song in enumerate(songs)]
    return Index.empty().with_songs(items)


def _cut(song: Signal, start_s: float, seconds: float = 5.0) -> Signal:
    return song[round(start_s * SAMPLE_RATE) : round((start_s + seconds) * SAMPLE_RATE)]


@pytest.mark.parametrize("number", range(N_SONGS))
def test_a_clean_snippet_is_found_with_its_offset(number: int, songs: list[Signal], index: Index) -> None:
    best = recognise(_cut(songs[number], 7.123), index)[0]
    assert best.song.song == f"song{number}"
    assert best.offset_s == pytest.approx(7.123, abs=0.03)
    assert best.score > 0.99


def test_noise_as_loud_as_the_music_is_borne(songs: list[Signal], index: Index) -> None:
    snippet = _cut(songs[3], 4.0)
    noise = np.random.default_rng(0).standard_normal(len(snippet)).astype(np.float32) * snippet.std()
    best = recognise(snippet + noise, index)[0]
    assert (best.song.song, best.score > THRESHOLD) == ("song3", True)


@pytest.mark.parametrize("percent", [-3.0, -2.0, -1.3, 0.5, 2.0, 2.6])
def test_another_playing_speed_is_found_and_told(percent: float, songs: list[Signal], index: Index) -> None:
    played = resample_poly(_cut(songs[5], 6.0, 8.0), 1000, round(1000 + 10 * percent)).astype(np.float32)
    best = recognise(played, index)[0]
    assert best.song.song == "song5"
    assert best.speed == pytest.approx(1 + percent / 100, abs=0.006)
    assert best.offset_s == pytest.approx(6.0, abs=0.1)
    assert best.score > THRESHOLD


def test_without_other_speeds_a_faster_snippet_is_not_found(songs: list[Signal], index: Index) -> None:
    played = resample_poly(_cut(songs[5], 6.0, 8.0), 1000, 1030).astype(np.float32)
    found = recognise(played, index, max_speed_change=0.0)
    assert not found or found[0].evidence < recognise(played, index)[0].evidence / 2


def test_songs_that_are_not_indexed_are_not_found(music: Music, index: Index) -> None:
    for seed in range(100, 110):
        found = recognise(music(seed, 5.0), index)
        assert not found or found[0].score < THRESHOLD


def test_a_song_that_does_not_count_is_not_found(songs: list[Signal], index: Index) -> None:
    found = recognise(_cut(songs[2], 3.0), index, without={index.songs[2].sha256})
    assert all(match.song.song != "song2" and match.score < THRESHOLD for match in found)


def test_a_snippet_may_begin_before_its_song_and_end_after_it(songs: list[Signal], index: Index) -> None:
    gap = np.random.default_rng(1).standard_normal(2 * SAMPLE_RATE).astype(np.float32) * 1e-3
    early = recognise(np.concatenate([gap, songs[4][: 4 * SAMPLE_RATE]]), index)[0]
    late = recognise(np.concatenate([songs[4][-4 * SAMPLE_RATE :], gap]), index)[0]
    assert (early.song.song, late.song.song) == ("song4", "song4")
    assert early.offset_s == pytest.approx(-2.0, abs=0.05)
    assert late.offset_s == pytest.approx(16.0, abs=0.05)


def test_silence_around_other_music_does_not_make_it_a_song(music: Music, index: Index) -> None:
    """Where only the end of a snippet lies in a song, chance is what agrees with that end by chance."""
    silence = np.zeros(18 * SAMPLE_RATE, np.float32)
    for seed in range(100, 110):
        found = recognise(np.concatenate([silence, music(seed, 5.0)]), index)
        assert not found or found[0].score < THRESHOLD


def test_songs_with_the_same_drums_are_not_taken_for_each_other(music: Music) -> None:
    def drummed(seed: int) -> Signal:
        rng, hit = np.random.default_rng(seed), SAMPLE_RATE // 4
        beat = [rng.standard_normal(hit) * np.exp(-40 * np.arange(hit) / SAMPLE_RATE) for _ in range(80)]
        notes = music(seed)
        return (0.3 * notes + 0.5 * np.resize(np.concatenate(beat), len(notes))).astype(np.float32)

    items = [(Song(f"{i:064x}", f"song{i}", "made"), fingerprint(drummed(i))) for i in range(4)]
    index = Index.empty().with_songs(items)
    for seed in range(100, 104):
        found = recognise(_cut(drummed(seed), 0.0, 10.0), index)
        assert not found or found[0].score < THRESHOLD
    best = recognise(_cut(drummed(2), 7.0), index)[0]
    assert (best.song.song, best.score > 0.99) == ("song2", True)
    assert best.offset_s == pytest.approx(7.0, abs=0.03)


def test_of_a_long_recording_the_beginning_counts(songs: list[Signal], index: Index) -> None:
    best = recognise(np.concatenate([songs[0], songs[1], songs[2]]), index)
    assert best[0].song.song == "song0"
    assert best[0].offset_s == pytest.approx(0, abs=0.03)
    assert all(match.song.song != "song2" or match.score < THRESHOLD for match in best)


def test_each_song_is_named_once_and_the_best_first(songs: list[Signal], index: Index) -> None:
    found = recognise(_cut(songs[1], 2.0), index)
    assert len({match.song for match in found}) == len(found)
    assert [match.evidence for match in found] == sorted((match.evidence for match in found), reverse=True)


@pytest.mark.parametrize("n_samples", [0, 1, landmarks.N_FFT, 5 * SAMPLE_RATE])
def test_silence_is_no_song(n_samples: int, index: Index) -> None:
    assert recognise(np.zeros(n_samples, np.float32), index) == []


def test_an_empty_index_knows_nothing(songs: list[Signal]) -> None:
    assert recognise(_cut(songs[0], 1.0), Index.empty()) == []
