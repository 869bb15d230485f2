"""run(function, items): the same function over many items on this machine's cores, with a progress bar."""

from __future__ import annotations

import concurrent.futures as futures
import functools
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from tqdm import tqdm

from stages.errors import GenreError

Item = TypeVar("Item")
Result = TypeVar("Result")


def run(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    description: str,
    unit: str = "song",
    workers: int | None = None,
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
        Processes; None is one per core that this process may use. With one worker, or one item, no process is started.
    """
    count = min(workers or available_cores(), len(items))
    call = functools.partial(_caught, function)
    with tqdm(total=len(items), desc=description, unit=unit, disable=not sys.stderr.isatty()) as bar:
        if count <= 1:
            for item in items:
                yield call(item)
                bar.update()
            return
        # spawn: a forked child of a process that has threads (TensorFlow, BLAS) can deadlock
        context = multiprocessing.get_context("spawn")
        with futures.ProcessPoolExecutor(count, mp_context=context, initializer=_one_thread_each) as pool:
            try:
                for result in pool.map(call, items, chunksize=max(1, min(8, len(items) // (4 * count)))):
                    yield result
                    bar.update()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _caught(function: Callable[[Item], Result], item: Item) -> Result | GenreError:
    try:
        return function(item)
    except GenreError as error:
        return error


def _one_thread_each() -> None:
    """Keep the numeric libraries of a worker to one thread: the processes already fill the cores."""
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ[name] = "1"
