"""Peak memory of split, extract and vectorize for one long song and for many short ones, at growing sizes.

    python -m benchmarks.memory [--hours 0.5 1 2] [--songs 250 500 1000]

Prints the largest resident memory of any one process of a stage, and its slope: what a ten-hour song, or 20,000 songs
of one chunk, would take.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import yaml

from genre.audio import chunks
from genre.cli import integer, positive

ROOT = Path(__file__).parent.parent
RATE = 22_050  # Hz
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
    options = parser.parse_args()
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
