"""The engine embeddings: the windows of a snippet vote for a song and an offset."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genre.models import embeddings
from genre.paths import Paths
from genre.search import embedding_index, store
from genre.search.engine import IndexedSong
from genre.search.window_engine import SNIPPET_HOP_S, EmbeddingEngine, vote
from tests.search.conftest import SHA, connected, windows_of


def test_songs_that_are_left_out_are_no_candidates_and_silence_has_none(tmp_path: Path) -> None:
    windows, vectors = windows_of(*range(4))
    with connected(str(tmp_path / "songs.db")) as collection:
        collection.write(windows, vectors)
        embedder, projection = embeddings.load("statistics", Paths()), embedding_index.fit(vectors)
        engine = EmbeddingEngine(embedder, 22_050, projection, collection)
        candidates = engine.recognise(vectors, without=SHA[2:4])
        assert {candidate.song.sha256 for candidate in candidates} == {*SHA[:2]}
        for n_samples in (0, 1, 5 * 22_050):
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
