"""Parallel work: order, errors of single items, and worker processes that die."""

from __future__ import annotations

import os

import pytest

from genre.errors import AudioError, WorkerError
from genre.parallel import run


def _double(number: int) -> int:
    if number == 3:
        raise AudioError("three is broken")
    if number == 99:
        raise ZeroDivisionError
    return 2 * number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order_and_an_error_takes_only_its_own_place(workers: int) -> None:
    results = list(run(_double, range(6), description="", workers=workers))
    assert [str(r) if isinstance(r, AudioError) else r for r in results] == [0, 2, 4, "three is broken", 8, 10]


@pytest.mark.parametrize("workers", [1, 2])
def test_a_defect_is_not_swallowed(workers: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(run(_double, [1, 99, 2], description="", workers=workers))


def test_no_items_is_no_work() -> None:
    assert list(run(_double, [], description="")) == []


def _die(number: int) -> int:
    if number == 2:
        os._exit(9)
    return number


def test_a_worker_that_dies_is_an_error_that_says_what_to_do() -> None:
    with pytest.raises(WorkerError, match=r"parallel\.workers"):
        list(run(_die, range(4), description="", workers=2))
