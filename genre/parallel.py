"""run(function, items): the same function over many items, on this machine's cores or a Dask cluster."""

from __future__ import annotations

import concurrent.futures as futures
import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import Any, TypeVar

from genre.errors import ClusterError, GenreError, WorkerError

Item = TypeVar("Item")
Result = TypeVar("Result")

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


def run(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    description: str,
    unit: str = "song",
    workers: int | None = None,
    scheduler: str | None = None,
    known: Callable[[Item], Result | None] | None = None,
    audio_seconds: Callable[[Result], float] | None = None,
) -> Iterator[Result | GenreError]:
    """Call `function` on every item and yield the results in the order of the items.

    An item that fails with a GenreError yields that error in its place and the others go on; any other
    exception is a defect and is raised. The progress bar goes to stderr, and only if that is a terminal.

    Parameters
    ----------
    function : callable
        A module-level function (or a partial of one): it is sent to worker processes.
    items : sequence
        What it is called with; small things such as paths.
    description, unit : str
        Of the progress bar.
    workers : int or None
        Processes; None is one per core that this process may use. With one worker, or one item, none is started.
    scheduler : str or None
        Address of a Dask scheduler whose workers do the work instead.
    known : callable or None
        Called in this process first; what it returns, unless None, is the item's result without any work.
    audio_seconds : callable or None
        Seconds of audio that a result stands for; the progress bar then tells the rate in times real time.

    Raises
    ------
    ClusterError
        If the scheduler cannot be reached, or a worker cannot work.
    """
    from tqdm import tqdm

    done: dict[int, Result] = {}
    for i, item in enumerate(items if known is not None else ()):
        if known is not None and (found := known(item)) is not None:
            done[i] = found
    waiting = [item for i, item in enumerate(items) if i not in done]
    with tqdm(total=len(items), desc=description, unit=unit, disable=not sys.stderr.isatty()) as bar:
        bar.update(len(done))
        worked = _work(functools.partial(_caught, function), waiting, workers, scheduler)
        began, heard = time.monotonic(), 0.0
        for i in range(len(items)):
            if i in done:
                yield done.pop(i)
                continue
            result = next(worked)
            if audio_seconds is not None and not isinstance(result, GenreError):
                heard += audio_seconds(result)
                bar.set_postfix_str(f"{heard / (time.monotonic() - began):.0f} x real time", refresh=False)
            bar.update()
            yield result
        next(worked, None)  # let the processes end in peace


def all_or_error(results: Iterable[Result | GenreError]) -> list[Result]:
    """Return the results of `run`; raise the first error among them."""
    made = []
    for result in results:
        if isinstance(result, GenreError):
            raise result
        made.append(result)
    return made


def map_threads(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Call a function on every item in threads, and yield the results in the order of the items.

    Few items are held at a time: they may be large, or many. What the function raises is raised here.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            if len(waiting) > workers:
                yield waiting.popleft().result()
            waiting.append(pool.submit(function, item))
        while waiting:
            yield waiting.popleft().result()


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_thread_each() -> None:
    """Keep the numeric libraries to one thread, unless the user says otherwise: processes or threads fill the cores.

    They look at it when they are loaded, so this comes first.
    """
    for name in THREADS:
        os.environ.setdefault(name, "1")


def _work(
    call: Callable[[Item], Result | GenreError], items: Sequence[Item], workers: int | None, scheduler: str | None
) -> Iterator[Result | GenreError]:
    count = min(workers or available_cores(), len(items))
    if scheduler is not None and items:
        yield from _on_cluster(call, items, scheduler)
    elif count <= 1:
        yield from map(call, items)
    else:
        yield from _on_cores(call, items, count)


def _on_cores(call: Callable[[Item], Any], items: Sequence[Item], count: int) -> Iterator[Any]:
    # spawn: a forked child of a process that has threads (TensorFlow, BLAS) can deadlock
    context = multiprocessing.get_context("spawn")
    with futures.ProcessPoolExecutor(count, mp_context=context, initializer=_start_worker) as pool:
        try:
            with _interrupts_ignored():  # by the workers, for good: Ctrl-C is for this process to answer
                # not pool.map: it cancels what waits, and a worker that is ended at the same time makes a traceback
                size = max(1, min(8, len(items) // (64 * count)))
                waiting = deque(pool.submit(_call_each, call, items[i : i + size]) for i in range(0, len(items), size))
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            raise WorkerError(
                "a worker process died (out of memory, or killed); what was finished is kept: run it again,"
                " with a smaller parallel.workers if memory was short"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise


@contextlib.contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():  # only that one may say so
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _on_cluster(call: Callable[[Item], Any], items: Iterable[Item], scheduler: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise ClusterError("parallel.scheduler needs the package distributed: `pip install distributed`") from None
    try:
        client = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(f"the Dask scheduler {scheduler} (parallel.scheduler) does not answer: {error}") from error
    with client:
        if not client.scheduler_info()["workers"]:
            raise ClusterError(f"the Dask scheduler {scheduler} has no worker: start `dask worker {scheduler}`")
        # a task whose worker dies is sent to another one by the scheduler, up to three times
        tasks = client.map(functools.partial(_at, str(Path.cwd()), call), list(items), pure=False)
        try:
            for task in tasks:
                yield _outcome(task)
                task.release()
        finally:
            client.cancel(tasks)


def _outcome(task: Any) -> Any:
    try:
        result = task.result()
    except (ImportError, AttributeError) as error:
        raise ClusterError(
            f"a Dask worker cannot import this project ({error}): start it in the root folder"
        ) from error
    if isinstance(result, ClusterError):
        raise result
    return result


def _at(folder: str, call: Callable[[Item], Any], item: Item) -> Any:
    """Do one item on a Dask worker, in the project's folder; errors of the worker itself name the worker."""
    from distributed import get_worker

    worker = get_worker().address
    try:
        os.chdir(folder)
    except OSError as error:
        return ClusterError(f"the Dask worker {worker} does not see the project's folder: {error}")
    result = call(item)
    if isinstance(result, GenreError) and result.of_machine:
        return ClusterError(f"on the Dask worker {worker}: {result}")
    return result


def _start_worker() -> None:
    one_thread_each()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that temporary files are removed


def _call_each(call: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    try:
        return [call(item) for item in items]
    except SystemExit as end:  # the pool would take it for the result, and the worker for the next items
        os._exit(end.code if isinstance(end.code, int) else 1)


def _caught(function: Callable[[Item], Result], item: Item) -> Result | GenreError:
    try:
        return function(item)
    except GenreError as error:
        return error
