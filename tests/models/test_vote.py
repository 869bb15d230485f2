"""The genre of a song is that of most of its chunks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from genre.models.vote import vote


@given(npst.arrays(np.float32, st.tuples(st.integers(1, 8), st.integers(2, 5)), elements=st.floats(0, 1, width=32)))
def test_the_winner_has_the_most_votes_and_of_equal_ones_the_higher_mean_probability(rows: np.ndarray) -> None:
    outcome = vote(rows)
    assert outcome.counts[outcome.genre] == max(outcome.counts)
    assert sum(outcome.counts) == len(rows) == len(outcome.vector)
    assert vote(rows[::-1]).counts == outcome.counts
    rivals = [g for g, n in enumerate(outcome.counts) if n == max(outcome.counts)]
    assert outcome.confidence == pytest.approx(max(rows[:, g].mean(dtype=np.float64) for g in rivals))
