"""The queue of the HTTP service: admission by time, and the end of work that is no longer wanted."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter

import pytest

from genre.web.workers import AbandonedError, QueueFullError, Workers

pytestmark = pytest.mark.slow

LONG_S = 30.0


async def _never() -> None:
    await asyncio.sleep(LONG_S)


async def _outcome(workers: Workers, job_s: float) -> str:
    try:
        await workers.run(lambda left_s, cancelled: left_s > 0 and not cancelled.wait(job_s), _never())
    except (QueueFullError, TimeoutError) as error:
        assert not isinstance(error, QueueFullError) or 1 <= error.retry_after_s <= LONG_S
        return type(error).__name__
    return "answered"


@pytest.mark.parametrize("measured_s", [0.1, 0.002])  # the true duration of the jobs, and a misleading one
def test_no_job_of_a_crowd_waits_in_vain(measured_s: float) -> None:
    async def crowd() -> tuple[Counter[str], str]:
        workers = Workers(2, 200, 2.0)
        for _ in range(8):
            assert await _outcome(workers, measured_s) == "answered"
        outcomes = await asyncio.gather(*(_outcome(workers, 0.1) for _ in range(100)))
        return Counter(outcomes), await _outcome(workers, 0.1)

    outcomes, next_one = asyncio.run(crowd())
    assert next_one == "answered"
    assert set(outcomes) == {"answered", "QueueFullError"}
    assert outcomes["answered"] >= 5


@pytest.mark.parametrize("abandoned", [True, False])
def test_work_that_is_no_longer_wanted_is_cancelled_and_frees_its_thread(abandoned: bool) -> None:
    ended = threading.Event()

    def work(_: float, cancelled: threading.Event) -> None:
        if cancelled.wait(LONG_S):
            ended.set()
            raise TimeoutError

    async def unwanted() -> str:
        workers = Workers(1, 1, 0.5)
        with pytest.raises(AbandonedError if abandoned else TimeoutError):
            await workers.run(work, asyncio.sleep(0) if abandoned else _never())
        assert await asyncio.to_thread(ended.wait, LONG_S)
        while workers.running:
            await asyncio.sleep(0.01)
        return await _outcome(workers, 0.0)

    assert asyncio.run(unwanted()) == "answered"
