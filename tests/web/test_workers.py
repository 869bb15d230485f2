"""The queue of the HTTP service: admission by time."""

from __future__ import annotations

import asyncio
import time
from collections import Counter

import pytest
from starlette.exceptions import HTTPException

from genre.web.workers import Workers

pytestmark = pytest.mark.slow

LONG_S = 30.0


async def _status(workers: Workers, job_s: float) -> int:
    try:
        await workers.run(lambda: time.sleep(job_s), lambda: asyncio.sleep(LONG_S))
    except HTTPException as error:
        assert error.status_code != 429 or 1 <= int((error.headers or {})["Retry-After"]) <= LONG_S
        return error.status_code
    return 200


@pytest.mark.parametrize("measured_s", [0.1, 0.002])  # the true duration of the jobs, and a misleading one
def test_a_crowd_is_refused_but_for_the_jobs_that_fit_the_time_out(measured_s: float) -> None:
    async def crowd() -> tuple[Counter[int], int]:
        workers = Workers(2, 200, 2.0)
        for _ in range(8):
            assert await _status(workers, measured_s) == 200
        statuses = await asyncio.gather(*(_status(workers, 0.1) for _ in range(100)))
        return Counter(statuses), await _status(workers, 0.1)

    statuses, next_one = asyncio.run(crowd())
    assert next_one == 200
    assert set(statuses) <= {200, 429, 504}
    assert statuses[200] >= 5
    assert statuses[504] <= 2  # the two that ran at the time-out


def test_a_job_that_would_end_too_late_is_not_started() -> None:
    async def two() -> tuple[int, list[str]]:
        workers, started = Workers(1, 10, 2.0), []
        assert await _status(workers, 0.5) == 200
        first = asyncio.ensure_future(_status(workers, 1.7))
        await asyncio.sleep(0)
        with pytest.raises(HTTPException) as error:
            await workers.run(lambda: started.append("second"), lambda: asyncio.sleep(LONG_S))
        await first
        return error.value.status_code, started

    assert asyncio.run(two()) == (429, [])
