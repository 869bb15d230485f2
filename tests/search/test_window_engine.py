"""The engine embeddings: the windows of a snippet vote for a song and an offset."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest

from genre.models import embeddings
from genre.paths import Paths
from genre.search import embedding_index, store, window_engine
from genre.search.store import Neighbour, Window
from genre.search.window_engine import HOP_S, SNIPPET_HOP_S, EmbeddingEngine, embed, vote
from tests.search.conftest import music, search_params

SAMPLE_RATE = 22_050
N_SONGS = 5


def _samples(seed: int, seconds: float = 12.0) -> window_engine.Samples:
    return np.rint(music(seed, seconds, SAMPLE_RATE) * 32767).astype(np.int16)


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddingEngine]:
    """Yield the engine with the statistics of features, which need no network."""
    paths = Paths(tmp_path_factory.mktemp("project"))
    embedder = embeddings.load("statistics", paths)
    embedded = [embed(_samples(seed), embedder, SAMPLE_RATE) for seed in range(N_SONGS)]
    projection = embedding_index.fit(np.concatenate(embedded))
    items = [
        (Window(f"{seed:064x}", k, f"song{seed}", "synthetic", k * HOP_S), vector)
        for seed, values in enumerate(embedded)
        for k, vector in enumerate(projection(values))
    ]
    with store.connect(
        search_params(), paths, kind="windows", digest="0" * 64, dimension=projection.dimension
    ) as collection:
        collection.create()
        collection.write(items)
        yield EmbeddingEngine(embedder, SAMPLE_RATE, projection, collection)


@pytest.mark.parametrize("seed", range(N_SONGS))
def test_a_clean_snippet_gets_its_song_and_offset(seed: int, engine: EmbeddingEngine) -> None:
    start = round(3.2 * SAMPLE_RATE)
    best = engine.recognise(engine.embed(_samples(seed)[start : start + 6 * SAMPLE_RATE]))[0]
    assert best.song.song == f"song{seed}"
    assert best.offset_s == pytest.approx(3.2, abs=HOP_S / 2)
    assert best.score > 0.5


def test_a_song_that_is_left_out_is_no_candidate(engine: EmbeddingEngine) -> None:
    candidates = engine.recognise(engine.embed(_samples(2)), without={f"{2:064x}"})
    assert candidates
    assert all(candidate.song.song != "song2" for candidate in candidates)


@pytest.mark.parametrize("n_samples", [0, 1, 5 * SAMPLE_RATE])
def test_silence_has_no_candidates(n_samples: int, engine: EmbeddingEngine) -> None:
    assert engine.recognise(engine.embed(np.zeros(n_samples, np.int16))) == []


def _neighbour(song: int, start_s: float, similarity: float) -> Neighbour:
    return Neighbour(Window(f"{song:064x}", round(start_s / HOP_S), f"song{song}", "rock", start_s), similarity)


def test_windows_that_agree_on_an_offset_outvote_a_single_nearer_window() -> None:
    neighbours = [
        [_neighbour(2, 40.0 - 7.0 * i, 0.99), _neighbour(1, round((10.0 + i * SNIPPET_HOP_S) * 2) / 2, 0.8)]
        for i in range(10)
    ]
    first, second = vote(neighbours)
    assert (first.song.song, second.song.song) == ("song1", "song2")
    assert first.score > 0.5 > second.score
    assert first.offset_s == pytest.approx(10.0, abs=0.1)


def test_windows_without_a_neighbour_in_the_song_reduce_its_score() -> None:
    windows = [[_neighbour(1, round((10.0 + i * SNIPPET_HOP_S) * 2) / 2, 0.8)] for i in range(18)]
    assert vote(windows)[0].score > 0.9
    assert vote([*windows[:9], *([] for _ in range(9))])[0].score < 0.5


def test_the_same_similarity_of_fewer_windows_is_less_evidence() -> None:
    windows = [[_neighbour(1, round((10.0 + i * SNIPPET_HOP_S) * 2) / 2, 0.7)] for i in range(18)]
    assert vote(windows[:6])[0].score < 0.5 < vote(windows)[0].score
