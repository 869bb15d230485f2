"""Parallel processes and threads: order of the results, errors of single items, workers that end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator

import pytest

from genre.errors import AudioError, WorkerError
from genre.parallel import map_threads, run


def _double(number: int) -> int:
    if number == 3:
        raise AudioError("three is broken")
    if number == 99:
        raise ZeroDivisionError
    time.sleep(3600 * (number > 99))
    return 2 * number


@pytest.mark.parametrize("workers", [1, 2])
def test_results_are_in_order_and_an_error_replaces_only_the_result_of_its_item(workers: int) -> None:
    results = list(run(_double, range(6), description="", workers=workers, keep_errors=True))
    assert [str(r) if isinstance(r, AudioError) else r for r in results] == [0, 2, 4, "three is broken", 8, 10]


@pytest.mark.parametrize("workers", [1, 2])
def test_an_error_in_the_code_is_raised_and_ends_the_workers(workers: int) -> None:
    with pytest.raises(ZeroDivisionError):
        list(run(_double, [1, 99, *range(100, 200)], description="", workers=workers))


def _die(number: int) -> int:
    if number == 2:
        os._exit(9)
    return number


def test_a_worker_process_that_ends_is_an_error_that_names_the_setting() -> None:
    with pytest.raises(WorkerError, match=r"parallel\.workers"):
        list(run(_die, range(4), description="", workers=2))


def test_threads_work_at_once_and_give_results_in_order_and_few_items_wait() -> None:
    taken: list[int] = []
    two_at_once = threading.Barrier(2)

    def square(number: int) -> int:
        if number < 2:
            two_at_once.wait(60)
        return number**2

    def items() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    results = map_threads(square, items(), 2)
    assert next(results) == 0
    assert len(taken) <= 4
    assert list(results) == [number**2 for number in range(1, 50)]
    stop = threading.Event()
    assert next(map_threads(lambda number: number == 0 or stop.wait(60), range(9), 2, stop))
    assert stop.is_set()  # as after Ctrl-C, before the items in progress end
