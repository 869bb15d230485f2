"""A song is recognised by the vectors of its windows, whether the network was trained on it or not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from genre.search import windows
from genre.search.degradations import played
from genre.search.network import SAMPLE_RATE, Network
from genre.search.settings import IndexSettings
from genre.search.store import VectorStore, Window
from genre.search.windows import recognise
from tests.search.conftest import N_SONGS, SONG_S, Music, Signal

THRESHOLD = 0.5


@pytest.fixture(scope="module")
def its_network(network_made: Path) -> Network:
    return Network.load(network_made)


@pytest.fixture(scope="module")
def songs(music: Music) -> list[Signal]:
    """Return the songs of the project and as many that the network never saw."""
    return [music(seed, SONG_S, SAMPLE_RATE) for seed in range(2 * N_SONGS)]


@pytest.fixture(scope="module")
def store(songs: list[Signal], its_network: Network, tmp_path_factory: pytest.TempPathFactory) -> Iterator[VectorStore]:
    folder = tmp_path_factory.mktemp("store")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MILVUS_URI", raising=False)
        with windows.open_store(IndexSettings(uri=str(folder / "songs.db")), its_network) as opened:
            opened.create()
            for i, song in enumerate(songs):
                opened.write(
                    (Window(f"{i:064x}", k, f"song{i}", "made", its_network.seconds(k)), vector)
                    for k, vector in enumerate(its_network.embed(song))
                )
            yield opened


def _cut(song: Signal, start_s: float, seconds: float = 5.0) -> Signal:
    return song[round(start_s * SAMPLE_RATE) : round((start_s + seconds) * SAMPLE_RATE)]


@pytest.mark.parametrize("number", range(0, 2 * N_SONGS, 3))
def test_a_snippet_is_found_with_its_offset(
    number: int, songs: list[Signal], its_network: Network, store: VectorStore
) -> None:
    best = recognise(_cut(songs[number], 6.123, 7.0), its_network, store)[0]
    assert best.song.song == f"song{number}"
    assert best.offset_s == pytest.approx(6.123, abs=0.15)
    assert best.score > THRESHOLD


def test_noise_half_as_loud_as_the_music_is_borne(
    songs: list[Signal], its_network: Network, store: VectorStore
) -> None:
    snippet = _cut(songs[N_SONGS + 3], 4.0)
    noise = np.random.default_rng(0).standard_normal(len(snippet)).astype(np.float32) * snippet.std() / 2
    assert recognise(snippet + noise, its_network, store)[0].song.song == f"song{N_SONGS + 3}"


@pytest.mark.parametrize("speed", [0.98, 1.02])
def test_another_playing_speed_is_borne(
    speed: float, songs: list[Signal], its_network: Network, store: VectorStore
) -> None:
    best = recognise(played(_cut(songs[9], 3.0, 8.0), speed), its_network, store)[0]
    assert best.song.song == "song9"
    assert best.offset_s == pytest.approx(3.0, abs=0.3)


def test_a_song_that_does_not_count_is_not_found(songs: list[Signal], its_network: Network, store: VectorStore) -> None:
    found = recognise(_cut(songs[2], 3.0), its_network, store, without={f"{2:064x}"})
    assert found
    assert all(match.song.song != "song2" for match in found)


def test_each_song_is_named_once_and_the_best_first(
    songs: list[Signal], its_network: Network, store: VectorStore
) -> None:
    found = recognise(_cut(songs[1], 2.0), its_network, store)
    assert len({match.song for match in found}) == len(found)
    assert [match.evidence for match in found] == sorted((match.evidence for match in found), reverse=True)


@pytest.mark.parametrize("n_samples", [0, 1, 5 * SAMPLE_RATE])
def test_silence_is_no_song(n_samples: int, its_network: Network, store: VectorStore) -> None:
    assert recognise(np.zeros(n_samples, np.float32), its_network, store) == []
