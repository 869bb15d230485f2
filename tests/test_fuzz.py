"""A small run of the fuzzer; `python -m tests.fuzz` is the large one."""

from __future__ import annotations

import numpy as np
import pytest

from tests import fuzz


@pytest.mark.slow
def test_no_mutated_file_crashes_hangs_or_leaves_anything_behind() -> None:
    outcomes = fuzz.run(48, seed=7)
    assert [outcome for outcome in outcomes if outcome.kind not in ("answered", "refused")] == []
    assert {outcome.kind for outcome in outcomes} == {"answered", "refused"}


def test_the_same_seed_makes_the_same_inputs() -> None:
    data = bytes(range(256)) * 8
    made = [fuzz.mutate(data, np.random.default_rng([3, number])) for number in range(50)]
    again = [fuzz.mutate(data, np.random.default_rng([3, number])) for number in range(50)]
    assert made == again
    assert sum(one != data for one in made) > 40
