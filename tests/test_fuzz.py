"""A small run of the fuzzer; `python -m tests.fuzz` is the large one."""

from __future__ import annotations

import pytest

from tests import fuzz


@pytest.mark.slow
def test_mutated_files_are_answered_or_refused_and_no_file_remains() -> None:
    outcomes = fuzz.run(40, seed=7)
    assert [outcome for outcome in outcomes if outcome.kind not in ("answered", "refused")] == []
    assert {outcome.kind for outcome in outcomes} == {"answered", "refused"}
