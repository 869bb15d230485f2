"""A bounded number of threads for CPU work. Work is admitted if the expected time of the queue fits the time-out."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, TypeVar

from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from genre.audio import process

Result = TypeVar("Result")

INITIAL_S = 1.0  # duration of a job, until one has been measured
N_MEASURED = 8  # latest jobs whose mean duration is the expected one of the next
MAX_RATIO = 10.0  # of a measured duration to the expected one; one odd song does not stop the service
ADMITTED_FRACTION = 0.8  # part of the time-out that the expected time of a new job may take


@dataclass(eq=False, slots=True)
class _Job:
    """Work on a song; times are those of `time.monotonic`."""

    deadline: float  # of the answer
    start: float = math.inf
    cancelled: threading.Event = field(default_factory=threading.Event)


class Workers:
    """Jobs run in order of arrival on threads; `jobs` are the running and then the waiting ones."""

    def __init__(self, count: int, queue_size: int, timeout_s: float) -> None:
        """Run at most `count` jobs at once, queue at most `queue_size` more, and complete each within `timeout_s`."""
        self._count, self._queue_size, self._timeout_s = count, queue_size, timeout_s
        self.jobs: list[_Job] = []
        self._pool = ThreadPoolExecutor(count)
        self._durations_s: deque[float] = deque([INITIAL_S], N_MEASURED)

    @property
    def n_running(self) -> int:
        """Number of jobs that have started."""
        return sum(math.isfinite(job.start) for job in self.jobs)

    def check(self) -> None:
        """Raise HTTPException 429 if a song would not be admitted."""
        n_waiting = len(self.jobs) - self._count
        if n_waiting < 0:
            return
        if n_waiting >= self._queue_size:
            raise _queue_full(self._backlog_s / (n_waiting + 1))
        excess_s = self._backlog_s + self._job_s - ADMITTED_FRACTION * self._timeout_s
        if excess_s > 0:
            raise _queue_full(excess_s)

    async def run(self, work: Callable[[], Result], disconnected: Callable[[], Awaitable[None]]) -> Result:
        """Return the result of `work` on a song, called on a thread within `process.time_limit`.

        Raises HTTPException 429 if it is not admitted or, later, is expected to take too long, 504 if it ran for too
        long, and ClientDisconnect if `disconnected()` completed first. In all cases its reading of files ends.
        """
        self.check()
        job = _Job(time.monotonic() + self._timeout_s)
        self.jobs.append(job)
        future = self._pool.submit(self._work, work, job)
        result, gone = asyncio.wrap_future(future), asyncio.ensure_future(disconnected())
        try:
            futures: set[asyncio.Future[Any]] = {result, gone}
            await asyncio.wait(futures, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            if gone.done():
                raise ClientDisconnect
            if math.isinf(job.start):
                raise _queue_full(self._backlog_s)
            raise HTTPException(504, f"the answer took longer than {self._timeout_s:g} s")
        finally:
            job.cancelled.set()
            gone.cancel()
            result.cancel()
            if future.cancel():  # has not started
                self.jobs.remove(job)

    def close(self) -> None:
        """Cancel all jobs and wait for their ends."""
        for job in list(self.jobs):  # threads remove theirs
            job.cancelled.set()
        self._pool.shutdown(cancel_futures=True)

    def _work(self, work: Callable[[], Result], job: _Job) -> Result:
        """Do the work on a thread of the pool, unless it has waited for so long that it would end too late."""
        start, expected_s = time.monotonic(), self._job_s
        succeeded = False
        try:
            if job.deadline - start < min(expected_s, ADMITTED_FRACTION * self._timeout_s):
                raise _queue_full(self._backlog_s)
            job.start = start
            with process.time_limit(job.deadline - start, job.cancelled):
                result = work()
            succeeded = True
            return result
        finally:
            duration_s = time.monotonic() - start
            if succeeded or duration_s > expected_s:
                self._durations_s.append(min(duration_s, MAX_RATIO * expected_s))
            self.jobs.remove(job)

    @property
    def _job_s(self) -> float:
        """Expected duration of a job. The size of a file tells little: formats differ by a factor of 30."""
        return sum(self._durations_s) / len(self._durations_s)

    @property
    def _backlog_s(self) -> float:
        """Seconds until all jobs are expected to have ended; one that is late is expected to take as long again."""
        now, expected_s, left_s = time.monotonic(), self._job_s, 0.0
        for job in self.jobs:
            age_s = max(0.0, now - job.start)  # 0 of one that has not started
            left_s += min(expected_s - age_s if age_s < expected_s else age_s, max(0.0, job.deadline - now))
        return left_s / self._count


def _queue_full(retry_after_s: float) -> HTTPException:
    seconds = max(1, math.ceil(retry_after_s))
    return HTTPException(429, f"the queue is full: retry after {seconds} s", {"Retry-After": str(seconds)})
