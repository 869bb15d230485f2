"""The vote of neighbours for a genre, and the ranking of songs."""

from __future__ import annotations

import pytest

from genre.search.engine import IndexedSong
from genre.search.similar import n_voters, nearest_songs, vote
from genre.search.store import Neighbour


def _neighbours(*triples: tuple[str, str, float]) -> list[Neighbour]:
    """Return neighbours of (genre, song, similarity)."""
    return [Neighbour(IndexedSong("0" * 64, song, genre), 0.0, similarity) for genre, song, similarity in triples]


ROCK = _neighbours(("rock", "a", 0.5), ("rock", "b", 0.4), ("jazz", "c", 0.3))
JAZZ = _neighbours(("jazz", "c", 0.9), ("jazz", "d", 0.9), ("jazz", "e", 0.9))
TIE = _neighbours(("rock", "a", 0.9), ("jazz", "b", 0.8), ("jazz", "c", 0.2), ("rock", "d", 0.2))
ONE_NEAR = _neighbours(("jazz", "a", 0.99), ("rock", "b", 0.5), ("rock", "c", 0.5))


@pytest.mark.parametrize(
    ("neighbours", "expected"),
    [
        ([ROCK, ROCK, JAZZ], ("rock", "jazz", {"rock": 2, "jazz": 1})),  # the mode over the chunks
        ([TIE], ("rock", "rock", {"rock": 1})),  # the genre with the larger similarity
        ([ONE_NEAR], ("rock", "jazz", {"rock": 1})),  # near neighbours have more weight
        ([[], []], ("", "", {})),
    ],
)
def test_the_genre_is_that_of_most_neighbours_and_of_the_greatest_weight(
    neighbours: list[list[Neighbour]], expected: tuple[str, str, dict[str, int]]
) -> None:
    assert vote(neighbours, 4) == expected


@pytest.mark.parametrize("top_k", [1, 5, 10])
@pytest.mark.parametrize(("own", "other"), [(3, 4), (1, 30), (30, 1)])
def test_a_small_genre_can_have_all_votes_in_an_index_with_few_songs(own: int, other: int, top_k: int) -> None:
    jazz = [("jazz", str(n), 0.9 - 0.001 * n) for n in range(own)]
    nearest = _neighbours(*jazz, *(("rock", str(n), 0.8 - 0.001 * n) for n in range(other)))
    assert vote([nearest, nearest], n_voters([nearest, nearest], top_k))[0] == "jazz"
    assert n_voters([[], []], top_k) == top_k


def test_the_score_of_a_song_is_the_mean_of_its_largest_similarity_to_each_chunk() -> None:
    neighbours = [
        _neighbours(("jazz", "a", 0.9), ("jazz", "a", 0.2)),
        _neighbours(("jazz", "a", 0.7), ("rock", "a", 0.6)),  # another song
    ]
    songs = [(song["genre"], song["song"], song["score"]) for song in nearest_songs(neighbours, [0.5, 0.5])]
    assert songs == [("jazz", "a", 0.8), ("rock", "a", 0.4)]
    assert [song["score"] for song in nearest_songs(neighbours, [0.25, 0.75])] == [0.75, 0.5]
