"""Peak memory of split, extract and vectorize for one long song and for many short ones, at growing sizes.

    python -m benchmarks.memory [--hours 0.5 1 2] [--songs 250 500 1000] [--queue 10000 100000]

Prints the largest resident memory of any one process of a stage, and its slope: what a ten-hour song, or 20,000 songs
of one chunk, would take. The last table is of songs without work, sent to a Dask cluster of two workers on this
machine: the memory of the process that sends them, and of the scheduler.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml

from genre.audio import chunks
from genre.audio.dataset import Song
from genre.cli import integer, positive
from genre.parallel import run

ROOT = Path(__file__).parent.parent
RATE = 22_050  # Hz
CLIENT = "import sys; from benchmarks.memory import send; send(sys.argv[1], int(sys.argv[2]))"
STAGES = ("split", "extract", "vectorize")
# Runs a stage and writes the largest peak of its processes, in kB, to a file. A process starts with the peak of the one
# that started it, so this benchmark must stay small itself.
RUNNER = """
import importlib, resource, sys
if __name__ == "__main__":
    status = importlib.import_module("stages." + sys.argv[1]).main([])
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    print(max(resource.getrusage(kind).ru_maxrss for kind in kinds), file=open(sys.argv[2], "w"))
    sys.exit(status)
"""


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.memory", description=__doc__.splitlines()[0])
    parser.add_argument("--hours", type=positive, nargs="+", default=[0.5, 1.0, 2.0])
    parser.add_argument("--songs", type=integer(1, 10**8), nargs="+", default=[250, 500, 1000])
    parser.add_argument("--queue", type=integer(1, 10**8), nargs="+", default=[10_000, 100_000])
    options = parser.parse_args()
    _queue_table(options.queue)
    _table("one song of so many hours", options.hours, 10.0, _long_song)
    _table("so many songs of 30 s", options.songs, 20_000, _many_songs)


def _table(title: str, sizes: Sequence[float], target: float, make: Callable[[Path, float], None]) -> None:
    print(f"{title}: peak memory of a process, MB")
    print(f"{'':>10}" + "".join(f"{stage:>12}" for stage in STAGES))
    peaks = [_peaks(size, make) for size in sizes]
    for size, row in zip(sizes, peaks, strict=True):
        print(f"{size:>10g}" + "".join(f"{peak:>12.0f}" for peak in row))
    fits = [np.polyfit(sizes, [row[i] for row in peaks], 1) for i in range(len(STAGES))]
    print(f"{'slope':>10}" + "".join(f"{fit[0]:>12.3f}" for fit in fits))
    print(f"{target:>9g}:" + "".join(f"{np.polyval(fit, target):>12.0f}" for fit in fits) + "  (by the slope)")


def _queue_table(sizes: Sequence[int]) -> None:
    print(f"so many songs in the queue: peak memory, MB\n{'':>10}{'client':>12}{'scheduler':>12}{'seconds':>12}")
    dask = str(Path(sys.executable).with_name("dask"))
    for size in sizes:
        with tempfile.TemporaryDirectory(prefix="memory-") as folder:
            file = Path(folder, "scheduler.json")
            common = ("--scheduler-file", str(file), "--no-dashboard")
            commands = (
                (dask, "scheduler", *common, "--port", "0", "--host", "127.0.0.1"),
                *[(dask, "worker", *common)] * 2,
            )
            processes = [
                subprocess.Popen(
                    command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL
                )
                for command in commands
            ]
            try:
                while not file.exists():
                    time.sleep(0.1)
                time.sleep(10)  # until the workers are there
                command = [sys.executable, "-c", CLIENT, json.loads(file.read_text())["address"], str(size)]
                client = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout.split()
                status = Path(f"/proc/{processes[0].pid}/status").read_text()
                scheduler = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
            finally:
                for process in processes:
                    process.terminate()
                    process.wait()
        print(f"{size:>10}{float(client[0]):>12.0f}{scheduler / 1000:>12.0f}{float(client[1]):>12.1f}", flush=True)


def nothing(_: tuple[Song, str]) -> list[tuple[float, float]]:
    """Return the spans of 8 chunks, as split does for a song, without decoding."""
    return [(30.0 * number, 30.0) for number in range(8)]


def send(scheduler: str, size: int) -> None:
    """Send so many made-up songs to a cluster; print the peak memory of this process in MB, and the seconds."""
    songs = [(Song(Path(f"dataset/x/{i % 10}/{i}.mp3"), str(i % 10), str(i), ""), f"{i:064x}") for i in range(size)]
    begin = time.monotonic()
    n_results = sum(1 for _ in run(nothing, songs, description="", scheduler=scheduler))
    assert n_results == size
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000, time.monotonic() - begin)


def _peaks(size: float, make: Callable[[Path, float], None]) -> list[float]:
    with tempfile.TemporaryDirectory(prefix="memory-") as name:
        project = Path(name)
        settings = yaml.safe_load((ROOT / "params.yaml").read_text())
        settings["dataset"]["name"] = "bench"
        settings["extract"]["engine"] = "numpy"
        settings["cache"]["max_bytes"] = 0
        (project / "params.yaml").write_text(yaml.safe_dump(settings))
        make(project / "dataset" / "bench", size)
        results = []
        for stage in STAGES:
            subprocess.run(
                [sys.executable, "-c", RUNNER, stage, "peak"],
                cwd=project,
                env=os.environ | {"PYTHONPATH": str(ROOT)},
                stdout=subprocess.DEVNULL,
                check=True,
            )
            results.append(int((project / "peak").read_text()) / 1000)
    return results


def _long_song(folder: Path, hours: float) -> None:
    """Two genres on both sides, one training song of so many hours."""
    rng = np.random.default_rng(0)
    for side in ("train", "test"):
        for genre in ("a", "b"):
            _write(folder / side / genre / "short.wav", rng)
    minute = rng.normal(0, 3000, 60 * RATE).astype(np.int16)
    with wave.open(str(folder / "train" / "a" / "long.wav"), "wb") as stream:
        stream.setparams((1, 2, RATE, 0, "NONE", ""))
        for _ in range(round(60 * hours)):
            stream.writeframes(minute.data)


def _many_songs(folder: Path, count: float) -> None:
    rng = np.random.default_rng(0)
    for number in range(round(count)):
        _write(folder / f"genre{number % 4}" / f"song{number}.wav", rng)


def _write(path: Path, rng: np.random.Generator) -> None:
    chunks.write(path, rng.normal(0, 3000, 30 * RATE).astype(np.int16), sample_rate=RATE)


if __name__ == "__main__":
    main()
