"""The genre of a song is that of most of its chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from genre.models.vote import vote


def _vote(rows: list[list[float]]) -> tuple[int, float]:
    outcome = vote(np.array(rows, dtype=np.float32))
    return outcome.genre, outcome.confidence


def test_the_genre_of_most_chunks_wins_even_with_a_lower_mean() -> None:
    assert _vote([[0.51, 0.49], [0.51, 0.49], [0.0, 1.0]])[0] == 0


def test_a_tie_goes_to_the_higher_mean_probability() -> None:
    assert _vote([[0.6, 0.4], [0.1, 0.9]])[0] == 1
    assert _vote([[0.9, 0.1], [0.4, 0.6]])[0] == 0


@given(npst.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(2, 5)), elements=st.floats(0, 1, width=32)))
def test_the_winner_has_the_most_votes_in_any_order_of_the_chunks(rows: np.ndarray) -> None:
    outcome = vote(rows)
    assert outcome.counts[outcome.genre] == max(outcome.counts)
    assert sum(outcome.counts) == len(rows) == len(outcome.vector)
    assert vote(rows[::-1]).counts == outcome.counts
    rivals = [g for g, n in enumerate(outcome.counts) if n == max(outcome.counts)]
    assert outcome.confidence == pytest.approx(max(rows[:, g].mean(dtype=np.float64) for g in rivals))
