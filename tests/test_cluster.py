"""A real Dask cluster on loopback: workers that die, a slow one, a scheduler that ends."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from genre import parallel
from genre.errors import WorkerError
from stages import extract, split
from tests.made import outs, start, write_params

pytestmark = pytest.mark.slow

Cluster = tuple[str, list[subprocess.Popen[bytes]]]


@pytest.fixture
def cluster(project: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    """Start a Dask scheduler and two workers from their command lines; yield its address and the processes."""
    distributed = pytest.importorskip("distributed", reason="the package distributed is not installed")
    monkeypatch.setenv("DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "1")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])
    address, dask = f"tcp://127.0.0.1:{port}", str(Path(sys.executable).with_name("dask"))
    common = ("--host", "127.0.0.1", "--no-dashboard")
    worker = (dask, "worker", address, *common, "--nthreads", "1")
    commands = ((dask, "scheduler", *common, "--port", port, "--no-show"), worker, worker)
    processes = [start(project, *command) for command in commands]
    with distributed.Client(address, timeout=60, set_as_default=False) as client:
        client.wait_for_workers(2, timeout=60)
    yield address, processes
    for process in processes:
        _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    """Kill a process and those that it started."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def test_a_cluster_gives_the_same_bytes_even_when_a_worker_dies(project: Path, songs: Path, cluster: Cluster) -> None:
    address, (_, worker, _) = cluster
    assert split.main([]) == extract.main([]) == 0
    expected = outs(project)
    for folder in ("chunks", "features", ".cache"):
        shutil.rmtree(project / folder)
    write_params(project, parallel__scheduler=address)
    stage = start(project, sys.executable, "-m", "stages.split")
    while stage.poll() is None and not list((project / "chunks").rglob("*.wav")):
        time.sleep(0.01)
    _kill(worker)
    stage.communicate()  # reads the pipes
    assert stage.returncode == 0
    assert extract.main([]) == 0
    assert outs(project) == expected


def _process(number: int) -> int:
    if number == 7:
        os._exit(1)  # as the kernel ends a process that needs too much memory
    time.sleep(3 if number == 20 else 0.005)
    return 2 * number


def _fail(number: int) -> object:
    return Path("/dev/full").write_bytes(b"x") if number else _NotReadable()


class _NotReadable:
    def __reduce__(self) -> tuple[object, ...]:
        return eval, ("1/0",)


def test_a_fatal_item_or_result_is_an_error_of_its_own_and_a_slow_item_bounds_the_queue(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "QUEUE_SIZE", 2)
    taken: list[int] = []
    results = parallel.run(
        _process, range(1000), description="", scheduler=cluster[0], recall=taken.append, keep_errors=True
    )
    first = [next(results) for _ in range(20)]
    assert isinstance(first.pop(7), WorkerError)
    assert len(taken) < 500
    rest = [*first, *results]
    assert rest == [2 * number for number in range(1000) if number != 7]
    for number, error in ((0, ZeroDivisionError), (1, OSError)):
        with pytest.raises(error):
            list(parallel.run(_fail, [number], description="", scheduler=cluster[0]))


@pytest.mark.parametrize(("lost", "message"), [(slice(1), "has ended"), (slice(1, 3), "has lost all workers")])
def test_a_run_without_its_scheduler_or_workers_ends_with_an_error_that_says_what_to_do(
    cluster: Cluster, monkeypatch: pytest.MonkeyPatch, lost: slice, message: str
) -> None:
    monkeypatch.setattr(parallel, "CHECK_S", 0.5)
    address, processes = cluster
    results = parallel.run(time.sleep, [0.1] * 1000, description="", scheduler=address)
    next(results)
    for process in processes[lost]:
        _kill(process)
    with pytest.raises(WorkerError, match=f"{message}.*run the command again"):
        list(results)
