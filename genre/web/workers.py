"""A bounded thread pool for CPU work, with time-outs."""

from __future__ import annotations

import asyncio
import math
import queue
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
    """Daemon threads that run jobs in order of arrival; an unfinished job does not keep the process alive."""

    def __init__(self, count: int, queue_size: int) -> None:
        """Start `count` threads; at most `queue_size` more jobs are queued."""
        self._count, self._capacity = count, count + queue_size
        self._jobs: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]]] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._n_open = 0  # jobs queued or running
        self.running = 0
        self._mean_s = INITIAL_MEAN_S
        for _ in range(count):
            threading.Thread(target=self._work, daemon=True).start()

    @property
    def full(self) -> bool:
        """Whether `run` would raise QueueFullError."""
        return self._n_open >= self._capacity

    @property
    def waiting(self) -> int:
        """Number of jobs in the queue."""
        return max(self._n_open - self.running, 0)

    @property
    def retry_after_s(self) -> int:
        """Estimated time until a place in the queue is free, in whole seconds."""
        return min(MAX_RETRY_S, max(1, math.ceil(self._mean_s * (self.waiting + 1) / self._count)))

    async def run(self, job: Callable[[], Result], *, timeout_s: float, disconnected: Awaitable[None]) -> Result:
        """Return the result of `job`, called on one of the threads; a started job always runs to its end.

        Raises
        ------
        QueueFullError
            If the queue is full.
        TimeoutError
            If waiting and running took longer than `timeout_s`.
        AbandonedError
            If `disconnected` completed first.
        """
        gone: asyncio.Future[None] = asyncio.ensure_future(disconnected)
        try:
            result = asyncio.wrap_future(self._submit(job))
            futures: set[asyncio.Future[Any]] = {result, gone}
            await asyncio.wait(futures, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
            if result.done():
                return result.result()
            result.cancel()
            raise AbandonedError if gone.done() else TimeoutError
        finally:
            gone.cancel()

    def _submit(self, job: Callable[[], Result]) -> Future[Result]:
        future: Future[Result] = Future()
        with self._lock:
            if self.full:
                raise QueueFullError
            self._n_open += 1
        future.add_done_callback(self._close_job)
        self._jobs.put((future, job))
        return future

    def _close_job(self, _: Future[Any]) -> None:
        with self._lock:
            self._n_open -= 1

    def _work(self) -> None:
        while True:
            future, job = self._jobs.get()
            if not future.set_running_or_notify_cancel():
                continue
            start = time.perf_counter()
            with self._lock:
                self.running += 1
            try:
                result, error = job(), None
            except BaseException as raised:
                result, error = None, raised
            with self._lock:
                self.running -= 1
                self._mean_s += SMOOTHING * (time.perf_counter() - start - self._mean_s)
            future.set_exception(error) if error else future.set_result(result)
