"""A bounded number of threads for CPU work. Work is admitted if the expected time of the queue fits the time-out."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")
Work = Callable[[float, threading.Event], Result]  # called with the seconds left and an event that cancels it

INITIAL_S = 1.0  # duration of a job, until one has been measured
N_MEASURED = 8  # latest jobs whose mean duration is the expected one of the next
MAX_RATIO = 10.0  # of a measured duration to the expected one; one odd song does not stop the service
CLOSE_S = 2.0
ADMITTED_FRACTION = 0.8  # part of the time-out that the expected time of a new job may take


class QueueFullError(Exception):
    """The queue is full; `retry_after_s` is the expected time until it is not."""

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = max(1, math.ceil(retry_after_s))
        super().__init__(f"the queue is full: retry after {self.retry_after_s} s")


class AbandonedError(Exception):
    """The client has disconnected."""


class _Job:
    """Work on a song."""

    def __init__(self, deadline: float) -> None:
        self.deadline = deadline  # of the answer, on the clock of `time.monotonic`
        self.start = math.inf
        self.slot: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # done when it may start
        self.cancelled = threading.Event()
        self.thread: threading.Thread | None = None


class Workers:
    """Jobs run in order of arrival on daemon threads: an unfinished job does not keep the process alive.

    The state changes on the thread of the event loop only.
    """

    def __init__(self, count: int, queue_size: int, timeout_s: float) -> None:
        """Run at most `count` jobs at once, queue at most `queue_size` more, and complete each within `timeout_s`."""
        self._count, self._queue_size, self._timeout_s = count, queue_size, timeout_s
        self.waiting: list[_Job] = []
        self.running: set[_Job] = set()
        self._durations_s: deque[float] = deque([INITIAL_S], N_MEASURED)

    def check(self) -> None:
        """Raise QueueFullError if a song would not be admitted."""
        if len(self.running) < self._count:
            return
        backlog_s = self._expected_s(len(self.waiting))
        if len(self.waiting) >= self._queue_size:
            raise QueueFullError(backlog_s / (len(self.waiting) + 1))
        excess_s = backlog_s + self._job_s - ADMITTED_FRACTION * self._timeout_s
        if excess_s > 0:
            raise QueueFullError(excess_s)

    async def run(self, work: Work[Result], disconnected: Awaitable[None]) -> Result:
        """Return the result of `work` on a song, called on a thread.

        Raises QueueFullError if it is not admitted or, later, is expected to take too long, TimeoutError if it ran for
        too long, and AbandonedError if `disconnected` completed first. In all cases the work is cancelled.
        """
        job = _Job(time.monotonic() + self._timeout_s)
        gone: asyncio.Future[None] = asyncio.ensure_future(disconnected)
        result = asyncio.ensure_future(self._run(work, job))
        try:
            futures: set[asyncio.Future[Any]] = {result, gone}
            await asyncio.wait(futures, timeout=self._timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            if gone.done():
                raise AbandonedError
            raise QueueFullError(self._expected_s(len(self.waiting))) if math.isinf(job.start) else TimeoutError
        finally:
            job.cancelled.set()
            gone.cancel()
            result.cancel()

    def close(self) -> None:
        """Cancel what runs, and wait for it for a short time."""
        for job in self.running:
            job.cancelled.set()
        end = time.monotonic() + CLOSE_S
        for thread in filter(None, [job.thread for job in self.running]):
            thread.join(max(0.0, end - time.monotonic()))

    async def _run(self, work: Work[Result], job: _Job) -> Result:
        self.check()
        self.waiting.append(job)
        self._start_next()
        try:
            await job.slot
        except asyncio.CancelledError:
            if job in self.waiting:
                self.waiting.remove(job)
            elif job in self.running:  # cancelled between the two
                self._end(job, succeeded=False)
            raise
        future = Future[Result]()
        future.set_running_or_notify_cancel()  # from now on it cannot be cancelled
        started = asyncio.wrap_future(future)
        started.add_done_callback(lambda task: self._end(job, not task.cancelled() and task.exception() is None))
        job.thread = threading.Thread(target=_work, args=(work, job, future), daemon=True)
        job.thread.start()
        return await asyncio.shield(started)

    def _start_next(self) -> None:
        while self.waiting and len(self.running) < self._count:
            job = self.waiting.pop(0)
            job.start = time.monotonic()
            self.running.add(job)
            job.slot.set_result(None)

    def _end(self, job: _Job, succeeded: bool) -> None:
        """Free the place of a job, and refuse queued ones that are expected to end too late."""
        self.running.discard(job)
        duration_s = time.monotonic() - job.start
        if succeeded or duration_s > self._job_s:
            self._durations_s.append(min(duration_s, MAX_RATIO * self._job_s))
        self._start_next()
        kept: list[_Job] = []
        for queued in self.waiting:
            late_s = time.monotonic() + self._expected_s(len(kept)) + self._job_s - queued.deadline
            if late_s > 0:
                queued.slot.set_exception(QueueFullError(late_s))
            else:
                kept.append(queued)
        self.waiting = kept

    @property
    def _job_s(self) -> float:
        """Expected duration of a job. The size of a file tells little: formats differ by a factor of 30."""
        return sum(self._durations_s) / len(self._durations_s)

    def _expected_s(self, n_waiting: int) -> float:
        """Return the seconds until the running jobs and a number of queued ones are expected to have ended."""
        now = time.monotonic()
        total_s = self._job_s * n_waiting
        for job in self.running:  # one that takes longer than expected is expected to take as long again
            age_s = now - job.start
            left_s = self._job_s - age_s
            total_s += min(left_s if left_s > 0 else age_s, max(0.0, job.deadline - now))
        return total_s / self._count


def _work(work: Work[Result], job: _Job, future: Future[Result]) -> None:
    try:
        future.set_result(work(job.deadline - time.monotonic(), job.cancelled))
    except BaseException as error:
        future.set_exception(error)
