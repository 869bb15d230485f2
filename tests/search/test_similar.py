"""The votes of neighbours, on made hits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genre.search.settings import IndexSettings
from genre.search.similar import decide, leave_one_out
from genre.search.store import Neighbour, VectorStore, Window


def _hits(*found: tuple[str, str, float]) -> list[Neighbour]:
    """Make hits of (genre, song, similarity)."""
    return [Neighbour(Window("0" * 64, 0, song, genre, 0.0), similarity) for genre, song, similarity in found]


def test_the_genre_is_the_mode_of_the_chunks_modes() -> None:
    rock = _hits(("rock", "a", 0.5), ("rock", "b", 0.4), ("jazz", "c", 0.3))
    jazz = _hits(("jazz", "c", 0.9), ("jazz", "d", 0.9), ("jazz", "e", 0.9))
    outcome = decide([rock, rock, jazz], 3)
    assert outcome.genre == "rock"
    assert outcome.votes == {"rock": 2, "jazz": 1}


def test_a_tie_goes_to_the_more_similar_genre() -> None:
    tie = _hits(("rock", "a", 0.9), ("jazz", "b", 0.8), ("jazz", "c", 0.2), ("rock", "d", 0.2))
    assert decide([tie], 4).genre == "rock"


def test_near_neighbours_weigh_more_in_the_weighted_vote() -> None:
    outcome = decide([_hits(("jazz", "a", 0.99), ("rock", "b", 0.5), ("rock", "c", 0.5))], 3)
    assert (outcome.genre, outcome.weighted_genre) == ("rock", "jazz")


def test_only_the_nearest_decide_the_genre_but_all_are_named() -> None:
    outcome = decide([_hits(("jazz", "a", 0.9), ("rock", "b", 0.8), ("rock", "c", 0.7))], 1)
    assert outcome.genre == "jazz"
    assert [song.song for song in outcome.songs] == ["a", "b", "c"]


def test_a_song_is_named_once_with_its_best_chunks() -> None:
    outcome = decide([_hits(("jazz", "a", 0.9), ("jazz", "a", 0.2)), _hits(("jazz", "a", 0.7), ("rock", "b", 0.6))], 2)
    assert [(song.song, song.similarity) for song in outcome.songs] == [("a", pytest.approx(0.8)), ("b", 0.4)]


def test_songs_of_one_name_in_two_genres_are_two() -> None:
    outcome = decide([_hits(("jazz", "intro", 0.9), ("rock", "intro", 0.8))], 2)
    assert [(song.genre, song.song) for song in outcome.songs] == [("jazz", "intro"), ("rock", "intro")]


def test_without_neighbours_there_is_no_genre() -> None:
    assert decide([[], []], 3).genre == ""


def test_leaving_a_song_out_leaves_out_all_its_windows(tmp_path: Path) -> None:
    # each song's windows are alike, and nearest to a song of the other genre: only a song itself would be right
    vectors = {f"{i:064x}": np.full((2, 2), v, np.float32) for i, v in enumerate(([1, 0], [1, 0.1], [0, 1], [0.1, 1]))}
    genres = {f"{i:064x}": genre for i, genre in enumerate(("rock", "jazz", "jazz", "rock"))}
    settings = IndexSettings(uri=str(tmp_path / "songs.db"))
    with VectorStore(settings, kind="chunks", fingerprint="a" * 64, dimension=2) as store:
        store.create()
        for sha256, array in vectors.items():
            store.write((Window(sha256, n, sha256, genres[sha256], 0.0), vector) for n, vector in enumerate(array))
        assert leave_one_out(store, vectors, genres, 2) == {"mode": 0.0, "weighted": 0.0}
