"""Work off the event loop: a few threads, a queue that is bounded, and nobody waits for ever."""

from __future__ import annotations

import asyncio
import concurrent.futures as futures
import math
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Result = TypeVar("Result")

FIRST_GUESS_S = 1.0  # of work, before any was done
SMOOTHING = 0.2  # weight of the newest in the mean time of work
MAX_RETRY_S = 60


class QueueFullError(Exception):
    """As many wait as may."""


class TooSlowError(Exception):
    """The result did not come in time."""


class AbandonedError(Exception):
    """Nobody waits for the result any more."""


class Workers:
    """Threads that work on what is given to them, first come first served."""

    def __init__(self, count: int, queue: int) -> None:
        """Start with `count` threads, for which `queue` more may wait."""
        self._pool = futures.ThreadPoolExecutor(count, thread_name_prefix="work")
        self._count, self._queue = count, queue
        self._lock = threading.Lock()
        self._held = 0  # given and not done, whether or not somebody still waits for it
        self._running = 0
        self._mean_s = FIRST_GUESS_S

    @property
    def full(self) -> bool:
        """Whether more would be refused."""
        return self._held >= self._count + self._queue

    @property
    def running(self) -> int:
        """How many are worked on."""
        return self._running

    @property
    def waiting(self) -> int:
        """How many wait."""
        return max(self._held - self._running, 0)

    @property
    def retry_after_s(self) -> int:
        """Whole seconds after which there should be room again."""
        return min(MAX_RETRY_S, max(1, math.ceil(self._mean_s * (self.waiting + 1) / self._count)))

    async def run(
        self, function: Callable[[], Result], *, timeout_s: float, abandoned: Callable[[], Awaitable[Any]]
    ) -> Result:
        """Return what a function returns, called on one of the threads.

        Parameters
        ----------
        function : callable
            A thread cannot be stopped: once it has begun it ends, and what it returns is dropped if nobody waits.
        timeout_s : float
            How long to wait, in the queue and for the result.
        abandoned : callable
            Ends when nobody waits for the result any more.

        Raises
        ------
        QueueFullError, TooSlowError, AbandonedError
            The function is not called, or what it returns is dropped.
        """
        work = asyncio.wrap_future(self._submit(function))
        gone = asyncio.ensure_future(abandoned())
        try:
            await asyncio.wait({work, gone}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if work.done():
                return work.result()
            raise AbandonedError if gone.done() else TooSlowError
        finally:
            work.cancel()
            gone.cancel()

    def close(self) -> None:
        """Begin nothing more."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _submit(self, function: Callable[[], Result]) -> futures.Future[Result]:
        with self._lock:
            if self.full:
                raise QueueFullError
            self._held += 1
        try:
            future = self._pool.submit(self._timed, function)
        except RuntimeError:  # closed
            self._done()
            raise QueueFullError from None
        future.add_done_callback(lambda _: self._done())
        return future

    def _timed(self, function: Callable[[], Result]) -> Result:
        began = time.perf_counter()
        with self._lock:
            self._running += 1
        try:
            return function()
        finally:
            with self._lock:
                self._running -= 1
                self._mean_s += SMOOTHING * (time.perf_counter() - began - self._mean_s)

    def _done(self) -> None:
        with self._lock:
            self._held -= 1
