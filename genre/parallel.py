"""An ordered map over songs in threads, in processes of this machine, or on a Dask cluster."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import sys
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

from genre import terminal
from genre.errors import GenreError, WorkerError

Item = TypeVar("Item")
Result = TypeVar("Result")
Outcome = tuple[list[Any], float]  # results or errors of a batch, and the seconds that it took
Function = Callable[[Any], Any]  # of an item
Submit = Callable[[list[Any]], Any]  # the future of an outcome

QUEUE_SIZE = 16  # batches submitted ahead for each worker, so that one slow item does not stop the others
BATCH_S = 1.0  # duration of a batch of quick items, so that passing them on costs little
MAX_BATCH = 64  # items
CHECK_S = 30.0  # while a result is awaited, between two checks that the cluster has workers
CONTINUES = "run the command again, it continues with the finished songs"
THREAD_VARIABLES = "OMP_NUM_THREADS OPENBLAS_NUM_THREADS MKL_NUM_THREADS TF_NUM_INTRAOP_THREADS TF_NUM_INTEROP_THREADS"


def run(
    function: Callable[[Item], Result],
    items: Sequence[Item],
    *,
    description: str,
    unit: str = "song",
    workers: int | None = None,
    scheduler: str | None = None,
    recall: Callable[[Item], Result | None] | None = None,
    keep_errors: bool = False,
) -> Iterator[Any]:
    """Call `function` on every item and yield the results in the order of the items.

    The work is done by `workers` processes (None: one per available core; with one worker or one item, this process),
    or by the workers of a Dask `scheduler`, such as tcp://host:8786. `function` is of a module, or a partial of one; it
    and the items are pickled, so pass paths rather than arrays. `recall` returns the cached result of an item, or None;
    it is called in this process. `description` and `unit` label a progress bar. The number of items that are submitted
    and whose results wait depends on the workers, not on the number of items.

    Raises the exception of an item, WorkerError if it ends the Dask workers which process it; with `keep_errors`, those
    that are a GenreError are yielded in place of the results. Also raises WorkerError if a process of this machine
    dies, the scheduler does not answer or has no workers, or a Dask worker cannot do the work.
    """
    computed = _compute(function, items, recall, workers, scheduler)
    with terminal.progress(total=len(items), desc=description, unit=unit) as progress, contextlib.closing(computed):
        for result in computed:
            if isinstance(result, OSError) or (isinstance(result, GenreError) and not keep_errors):
                raise result
            yield result
            progress.update()


def map_threads(
    function: Callable[[Item], Result], items: Iterable[Item], workers: int, stop: threading.Event | None = None
) -> Iterator[Result]:
    """Call `function` on items in threads, at most `workers` + 1 ahead; yield results in order, then set `stop`."""
    queue: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as executor:
        try:
            for item in items:
                if len(queue) > workers:
                    yield queue.popleft().result()
                queue.append(executor.submit(function, item))
            while queue:
                yield queue.popleft().result()
        finally:
            if stop:
                stop.set()
            executor.shutdown(cancel_futures=True)


def available_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_thread_each() -> None:
    """Limit numeric libraries, before they are imported, to one thread each, unless the environment sets a number."""
    for name in THREAD_VARIABLES.split():
        os.environ.setdefault(name, "1")


class _Pool(NamedTuple):
    """The workers."""

    n_workers: int
    submit: Submit
    outcome: Callable[..., Outcome]  # of a future, its batch and the later futures; waits for it


def _compute(
    function: Function, items: Sequence[Any], recall: Function | None, workers: int | None, scheduler: str | None
) -> Generator[Any, None, None]:
    n_workers = min(workers or available_cores(), len(items))
    if n_workers == 0 or (scheduler is None and n_workers == 1):
        for item in items:
            hit = recall(item) if recall else None
            yield _results(function, [item])[0][0] if hit is None else hit
    else:
        with _cluster(scheduler, function) if scheduler else _processes(n_workers, function) as pool:
            yield from _in_order(pool, items, recall)


def _in_order(pool: _Pool, items: Sequence[Any], recall: Function | None) -> Iterator[Any]:
    """Yield the results in order; at most `QUEUE_SIZE` batches for each worker are submitted and not yet yielded.

    A batch has as many items as take `BATCH_S`, by the mean of those that ended.
    """
    queue: deque[tuple[Any, list[Any]]] = deque()  # a future and its batch, or None and results
    most = max(1, min(MAX_BATCH, len(items) // (4 * pool.n_workers)))
    limit = QUEUE_SIZE * pool.n_workers
    n_ended, elapsed_s = 0, 0.0
    batch: list[Any] = []
    for i, item in enumerate(items, start=1):
        hit = recall(item) if recall else None
        if hit is None:
            batch.append(item)
        size = min(most, BATCH_S * n_ended / max(elapsed_s, 1e-9))
        if batch and (hit is not None or len(batch) >= size or i == len(items)):
            queue.append((pool.submit(batch), batch))
            batch = []
        if hit is not None:
            queue.append((None, [hit]))
        while queue and (i == len(items) or len(queue) > limit or queue[0][0] is None or queue[0][0].done()):
            future, results = queue.popleft()
            if future:
                results, seconds = pool.outcome(future, results, [other for other, _ in queue if other])
                n_ended, elapsed_s = n_ended + len(results), elapsed_s + seconds
            yield from results


@contextlib.contextmanager
def _processes(n_workers: int, function: Function) -> Iterator[_Pool]:
    """Yield processes of this machine."""
    import multiprocessing
    from concurrent.futures.process import BrokenProcessPool, ProcessPoolExecutor

    def submit(batch: list[Any]) -> Future[Outcome]:
        # a process that is started for it inherits the blocked SIGINT, as the main one handles Ctrl-C
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            return executor.submit(_call_in_worker, function, batch)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})

    # spawn: a forked child of a process with threads (TensorFlow, BLAS) can deadlock
    context = multiprocessing.get_context("spawn")
    try:
        with (
            tempfile.TemporaryDirectory(prefix="workers-") as folder,  # removes what a killed worker cannot
            ProcessPoolExecutor(n_workers, context, initializer=_start_worker, initargs=(folder,)) as executor,
        ):
            try:
                yield _Pool(n_workers, submit, lambda future, *_: future.result())
            finally:  # nobody waits for batches after an error or Ctrl-C, and libraries take seconds to end
                for process in multiprocessing.active_children():
                    process.terminate()
    except BrokenProcessPool:
        raise WorkerError(
            f"a worker process died (out of memory, or killed): {CONTINUES}; lower parallel.workers if memory was short"
        ) from None


@contextlib.contextmanager
def _cluster(scheduler: str, function: Function) -> Iterator[_Pool]:
    """Yield the workers of a Dask cluster, which process a batch of a lost worker again."""
    from distributed import Client

    try:
        client = Client(scheduler, timeout=10, set_as_default=False)
    except (OSError, TimeoutError, ValueError) as error:
        raise WorkerError(f"the Dask scheduler {scheduler} (parallel.scheduler) does not answer: {error}") from error
    with client:  # at the end, the scheduler forgets the batches whose outcomes are not awaited
        if not (n_threads := sum(client.nthreads().values())):
            raise WorkerError(f"the Dask scheduler {scheduler} has no worker: start `dask worker {scheduler}`")
        submit = functools.partial(client.submit, _call_in_folder, str(Path.cwd()), function, pure=False)
        try:
            yield _Pool(n_threads, submit, functools.partial(_outcome, client, submit))
        except (CancelledError, OSError) as error:
            raise WorkerError(f"the Dask scheduler {scheduler} has ended: {CONTINUES}") from error
        except (ImportError, AttributeError) as error:
            raise WorkerError(
                f"a Dask worker cannot import this project ({error}): start it in the root folder"
            ) from error


def _outcome(client: Any, submit: Submit, future: Any, batch: list[Any], others: list[Any]) -> Outcome:
    """Wait for a batch. If its workers died, process its items alone after the others: only the fatal ones fail."""
    from distributed import KilledWorker

    def awaited(future: Any) -> Outcome:
        while True:
            try:
                return cast(Outcome, future.result(CHECK_S))
            except TimeoutError:
                if not client.nthreads():
                    raise WorkerError(f"the Dask cluster has lost all workers: {CONTINUES}") from None

    try:
        return awaited(future)
    except KilledWorker:
        for other in others:  # any batch on the same workers may be at fault
            with contextlib.suppress(KilledWorker):
                awaited(other)
    results = []
    for item in batch:
        try:
            results += awaited(submit([item]))[0]
        except KilledWorker as error:
            results.append(WorkerError(f"its Dask workers died (out of memory?): {error}"))
    return results, 0.0


def _call_in_folder(folder: str, function: Function, batch: list[Any]) -> Outcome:
    """Process a batch on a Dask worker with the project's folder as working directory."""
    from distributed import get_worker

    worker = get_worker().address
    try:
        os.chdir(folder)
    except OSError as error:
        raise WorkerError(f"the Dask worker {worker} cannot open the project's folder: {error}") from None
    outcome = _results(function, batch)
    for result in outcome[0]:
        if isinstance(result, GenreError) and result.is_host_fault:
            raise WorkerError(f"on the Dask worker {worker}: {result}")
    return outcome


def _start_worker(temporary_folder: str) -> None:
    from tqdm import tqdm

    terminal.prepare()
    tqdm.set_lock(threading.RLock())  # the semaphore of its own lock would be left behind
    one_thread_each()
    tempfile.tempdir = temporary_folder
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker process if its parent is killed: it would wait for work forever."""
    from multiprocessing import parent_process

    if parent := parent_process():
        parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def _call_in_worker(function: Function, batch: list[Any]) -> Outcome:
    """Process a batch in a worker process; SIGTERM ends it after its temporary files are removed.

    Outside of `_results` SIGTERM keeps its default action: the executor's own code would catch SystemExit and go on.
    """
    try:
        try:
            signal.signal(signal.SIGTERM, _exit_once)
            return _results(function, batch)
        finally:
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
    except SystemExit as end:
        os._exit(end.code if isinstance(end.code, int) else 1)


def _exit_once(*_: object) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # a second signal must not interrupt the clean-up
    sys.exit(128 + signal.SIGTERM)


def _results(function: Function, batch: list[Any]) -> Outcome:
    """Return the result, or the GenreError or OSError, of each item."""
    begin, results = time.perf_counter(), []
    for item in batch:
        try:
            results.append(function(item))
        except (GenreError, OSError) as error:
            results.append(error)
    return results, time.perf_counter() - begin
