"""A bounded number of threads for CPU work, with time-outs."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import Future
from typing import Any, TypeVar

Result = TypeVar("Result")

INITIAL_MEAN_S = 1.0  # estimated duration of the first job
SMOOTHING = 0.2  # weight of the newest job in the mean duration
MAX_RETRY_S = 60


class QueueFullError(Exception):
    """The queue is full."""


class AbandonedError(Exception):
    """The client has disconnected."""


class Workers:
    """Jobs run in order of arrival on daemon threads: an unfinished job does not keep the process alive.

    The state changes on the thread of the event loop only.
    """

    def __init__(self, count: int, queue_size: int) -> None:
        """Run at most `count` jobs at once; at most `queue_size` more are queued."""
        self._count, self._queue_size = count, queue_size
        self._slots = asyncio.Semaphore(count)
        self.waiting = self.running = 0  # number of jobs
        self._mean_s = INITIAL_MEAN_S

    @property
    def full(self) -> bool:
        """Whether `run` would raise QueueFullError."""
        return self.waiting + self.running >= self._count + self._queue_size

    @property
    def retry_after_s(self) -> int:
        """Estimated time until a place in the queue is free, in whole seconds."""
        return min(MAX_RETRY_S, max(1, math.ceil(self._mean_s * (self.waiting + 1) / self._count)))

    async def run(self, job: Callable[[], Result], *, timeout_s: float, disconnected: Awaitable[None]) -> Result:
        """Return the result of `job`, called on a thread; a started job always runs to its end.

        Raises QueueFullError if the queue is full, TimeoutError if waiting and running took longer than `timeout_s`,
        and AbandonedError if `disconnected` completed first.
        """
        gone: asyncio.Future[None] = asyncio.ensure_future(disconnected)
        result = asyncio.ensure_future(self._queued(job))
        try:
            futures: set[asyncio.Future[Any]] = {result, gone}
            await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            raise AbandonedError if gone.done() else TimeoutError
        finally:
            gone.cancel()
            result.cancel()

    async def _queued(self, job: Callable[[], Result]) -> Result:
        if self.full:
            raise QueueFullError
        self.waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self.waiting -= 1
        self.running += 1
        started = asyncio.ensure_future(self._started(job))
        started.add_done_callback(lambda task: task.cancelled() or task.exception())  # even if not awaited
        return await asyncio.shield(started)

    async def _started(self, job: Callable[[], Result]) -> Result:
        start, future = time.perf_counter(), Future[Result]()
        threading.Thread(target=_work, args=(job, future), daemon=True).start()
        try:
            return await asyncio.wrap_future(future)
        finally:
            self.running -= 1
            self._mean_s += SMOOTHING * (time.perf_counter() - start - self._mean_s)
            self._slots.release()


def _work(job: Callable[[], Result], future: Future[Result]) -> None:
    future.set_running_or_notify_cancel()  # from now on it cannot be cancelled
    try:
        future.set_result(job())
    except BaseException as error:
        future.set_exception(error)
