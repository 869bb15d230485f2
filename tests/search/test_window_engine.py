"""The engine embeddings: the windows of a snippet vote for a song and an offset."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from genre.models import embeddings
from genre.paths import Paths
from genre.search import embedding_index, store
from genre.search.engine import IndexedSong
from genre.search.window_engine import SNIPPET_HOP_S, EmbeddingEngine, embed, vote
from tests.made import music, pcm
from tests.search.conftest import search_params

SAMPLE_RATE = 22_050
N_SONGS = 5


def _samples(seed: int, seconds: float = 12.0) -> embeddings.Samples:
    return pcm(music(seed, seconds, SAMPLE_RATE))


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddingEngine]:
    """Yield the engine with the statistics of features, which need no network."""
    paths = Paths(tmp_path_factory.mktemp("project"))
    embedder = embeddings.load("statistics", paths)
    embedded = [embed(_samples(seed), embedder, SAMPLE_RATE) for seed in range(N_SONGS)]
    projection = embedding_index.fit(np.concatenate(embedded))
    windows = [
        store.Window(IndexedSong(f"{seed:064x}", f"song{seed}", "synthetic"), k * embedding_index.WINDOW_HOP_S)
        for seed, values in enumerate(embedded)
        for k in range(len(values))
    ]
    dimension = projection.dimension
    with store.connect(search_params(), paths, kind="windows", digest="0" * 64, dimension=dimension) as collection:
        collection.write(windows, projection(np.concatenate(embedded)))
        yield EmbeddingEngine(embedder, SAMPLE_RATE, projection, collection)


def test_songs_that_are_left_out_are_no_candidates(engine: EmbeddingEngine) -> None:
    candidates = engine.recognise(engine.embed(_samples(2)), without=[f"{2:064x}", f"{3:064x}"])
    assert {candidate.song.song for candidate in candidates} == {"song0", "song1", "song4"}


@pytest.mark.parametrize("n_samples", [0, 1, 5 * SAMPLE_RATE])
def test_silence_has_no_candidates(n_samples: int, engine: EmbeddingEngine) -> None:
    assert engine.recognise(engine.embed(np.zeros(n_samples, np.int16))) == []


def _neighbour(song: int, start_s: float, similarity: float) -> store.Neighbour:
    return store.Neighbour(IndexedSong(f"{song:064x}", f"song{song}", "rock"), start_s, similarity)


def _agreeing(n: int, similarity: float) -> list[list[store.Neighbour]]:
    """Return the neighbours of windows that agree on song1 and an offset of 10 s, to the hop of its windows."""
    return [[_neighbour(1, round((10.0 + i * SNIPPET_HOP_S) * 2) / 2, similarity)] for i in range(n)]


def test_windows_that_agree_on_an_offset_outvote_a_single_nearer_window() -> None:
    first, second = vote([[_neighbour(2, 40.0 - 7.0 * i, 0.99), *n] for i, n in enumerate(_agreeing(10, 0.8))])
    assert (first.song.song, second.song.song) == ("song1", "song2")
    assert first.score > 0.5 > second.score
    assert first.offset_s == pytest.approx(10.0, abs=0.1)


def test_windows_without_a_neighbour_in_the_song_reduce_its_score() -> None:
    windows = _agreeing(18, 0.8)
    assert vote(windows)[0].score > 0.9
    assert vote([*windows[:9], *([] for _ in range(9))])[0].score < 0.5
