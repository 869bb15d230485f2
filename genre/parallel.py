"""An ordered map over songs in threads, in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import functools
import multiprocessing
import os
import signal
import sys
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path
from typing import TypeVar

from genre import terminal
from genre.errors import ClusterError, GenreError, WorkerError

Item = TypeVar("Item")
Result = TypeVar("Result")

QUEUE_SIZE = 16  # items submitted ahead for each worker, so that one slow item does not stop the others
THREAD_VARIABLES = (
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
    recall: Callable[[Item], Result | None] | None = None,
) -> Iterator[Result | GenreError]:
    """Call `function` on every item and yield the results in the order of the items.

    The work is done by `workers` processes (None: one per available core; with one worker or one item, this process),
    or by the workers of a Dask `scheduler`, such as tcp://host:8786. `function` is of a module, or a partial of one; it
    and the items are pickled, so pass paths rather than arrays. `recall` returns the cached result of an item, or None;
    it is called in this process before any work. `description` and `unit` label a progress bar.

    A GenreError raised for an item is yielded in place of its result. Any other exception is raised; WorkerError if a
    worker process dies; ClusterError if the scheduler does not answer, or a Dask worker cannot do the work.
    """
    hits = map(recall, items) if recall else ()
    cached = {i: hit for i, hit in enumerate(hits) if hit is not None}
    missing = [item for i, item in enumerate(items) if i not in cached]
    computed = _compute(functools.partial(_result_or_error, function), missing, workers, scheduler)
    progress = terminal.progress(total=len(items), desc=description, unit=unit)
    with progress, contextlib.closing(computed):
        for i in range(len(items)):
            yield cached[i] if i in cached else next(computed)
            progress.update()


def all_or_error(results: Iterable[Result | GenreError]) -> Iterator[Result]:
    """Yield the results of `run`; raise the first error among them."""
    for result in results:
        if isinstance(result, GenreError):
            raise result
        yield result


def map_threads(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Call `function` on every item in threads and yield the results in order, at most `workers` + 1 items ahead."""
    with ThreadPoolExecutor(workers) as executor:
        yield from _map(executor.submit, function, items, workers + 1)


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_thread_each() -> None:
    """Limit numeric libraries, before they are imported, to one thread each, unless the environment sets a number."""
    for name in THREAD_VARIABLES:
        os.environ.setdefault(name, "1")


def _compute(
    call: Callable[[Item], Result], items: Sequence[Item], workers: int | None, scheduler: str | None
) -> Generator[Result, None, None]:
    n_workers = min(workers or available_cores(), len(items))
    if scheduler is None and n_workers <= 1:
        yield from map(call, items)
    elif scheduler is None:
        with _processes(n_workers) as executor:
            yield from _map(functools.partial(_submit_to_process, executor), call, items, QUEUE_SIZE * n_workers)
    elif items:
        with _cluster(scheduler) as (executor, n_threads):
            task = functools.partial(_call_in_folder, str(Path.cwd()), call)
            yield from _map(executor.submit, task, items, QUEUE_SIZE * n_threads)


def _map(
    submit: Callable[..., Future[Result]], call: Callable[[Item], Result], items: Iterable[Item], queue_size: int
) -> Iterator[Result]:
    """Yield the results in order; at most `queue_size` items are submitted and not yet yielded."""
    queue: deque[Future[Result]] = deque()
    try:
        for item in items:
            if len(queue) >= queue_size:
                yield queue.popleft().result()
            queue.append(submit(call, item))
        while queue:
            yield queue.popleft().result()
    finally:
        for future in queue:
            future.cancel()


def _submit_to_process(executor: Executor, call: Callable[[Item], Result], item: Item) -> Future[Result]:
    """Submit a call; a process that is started for it inherits the blocked SIGINT, as the main one handles Ctrl-C."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return executor.submit(_call_in_worker, call, item)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


@contextlib.contextmanager
def _processes(n_workers: int) -> Iterator[Executor]:
    # spawn: a forked child of a process with threads (TensorFlow, BLAS) can deadlock
    context = multiprocessing.get_context("spawn")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="workers-") as folder,  # removes what a killed worker cannot
            ProcessPoolExecutor(n_workers, context, initializer=_start_worker, initargs=(folder,)) as executor,
        ):
            yield executor
    except BrokenProcessPool:
        raise WorkerError(
            "a worker process died (out of memory, or killed): run the command again, it continues with the finished"
            " songs; lower parallel.workers if memory was short"
        ) from None


@contextlib.contextmanager
def _cluster(scheduler: str) -> Iterator[tuple[Executor, int]]:
    """Yield an executor on a Dask cluster and its number of threads; a task of a lost worker is run on another."""
    try:
        from distributed import Client, KilledWorker
    except ImportError:
        raise ClusterError("parallel.scheduler needs the package distributed: `pip install distributed`") from None
    try:
        client = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise ClusterError(f"the Dask scheduler {scheduler} (parallel.scheduler) does not answer: {error}") from error
    with client:
        if not (n_threads := sum(client.nthreads().values())):
            raise ClusterError(f"the Dask scheduler {scheduler} has no worker: start `dask worker {scheduler}`")
        try:
            with client.get_executor(pure=False) as executor:
                yield executor, n_threads
        except KilledWorker as error:
            raise ClusterError(f"the workers of the Dask scheduler {scheduler} died: {error}") from error
        except (ImportError, AttributeError) as error:
            raise ClusterError(
                f"a Dask worker cannot import this project ({error}): start it in the root folder"
            ) from error


def _call_in_folder(folder: str, call: Callable[[Item], Result], item: Item) -> Result:
    """Process one item on a Dask worker with the project's folder as working directory."""
    from distributed import get_worker

    worker = get_worker().address
    try:
        os.chdir(folder)
    except OSError as error:
        raise ClusterError(f"the Dask worker {worker} cannot open the project's folder: {error}") from None
    result = call(item)
    if isinstance(result, GenreError) and result.is_host_fault:
        raise ClusterError(f"on the Dask worker {worker}: {result}")
    return result


def _start_worker(temporary_folder: str) -> None:
    terminal.prepare()
    one_thread_each()
    tempfile.tempdir = temporary_folder


def _call_in_worker(call: Callable[[Item], Result], item: Item) -> Result:
    """Process one item in a worker process; SIGTERM ends it after its temporary files are removed.

    Outside of `call` SIGTERM keeps its default action: the executor's own code would catch SystemExit and go on.
    """
    try:
        try:
            signal.signal(signal.SIGTERM, _exit_once)
            return call(item)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)


def _exit_once(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
    sys.exit(128 + signal.SIGTERM)


def _result_or_error(function: Callable[[Item], Result], item: Item) -> Result | GenreError:
    try:
        return function(item)
    except GenreError as error:
        return error
