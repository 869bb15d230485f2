"""What adding one song costs: CPU time of split and extract after it, against the full run.

    python -m benchmarks.incremental [--songs 200] [FOLDER]

FOLDER is a data set (genre folders); without one, songs of 30 s are made. One song is held back, both stages run on the
others (the full run), the song is added, both run again. DVC's own time is not counted: it does the same in both runs.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import yaml

from genre.audio import chunks, dataset
from genre.cli import integer

ROOT = Path(__file__).parent.parent
RATE = 22_050  # Hz


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.incremental", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER")
    parser.add_argument("--songs", type=integer(1, 10**8), default=200)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="incremental-") as name:
        project = Path(name)
        settings = yaml.safe_load((ROOT / "params.yaml").read_text())
        settings["dataset"]["name"] = "bench"
        settings["extract"]["engine"] = "numpy"
        (project / "params.yaml").write_text(yaml.safe_dump(settings))
        songs = _fill(project / "dataset" / "bench", options.folder, options.songs)
        held_back = songs[-1].with_name("." + songs[-1].name)
        songs[-1].rename(held_back)
        full = _cpu_seconds(project)
        held_back.rename(songs[-1])
        one = _cpu_seconds(project)
        again = _cpu_seconds(project)
    print(f"{len(songs)} songs, CPU seconds of split + extract, process start included")
    for label, seconds in (("all but one song", full), ("one song added", one), ("nothing changed", again)):
        print(f"{label:<18} {seconds:7.2f}  {seconds / full:6.1%}")


def _fill(folder: Path, source: Path | None, n_songs: int) -> list[Path]:
    if source is not None:
        songs = [song for song in dataset.scan(source) if not song.split][:n_songs]
        for song in songs:
            (folder / song.genre).mkdir(parents=True, exist_ok=True)
            shutil.copy(song.path, folder / song.genre / song.path.name)
    else:
        rng = np.random.default_rng(0)
        for number in range(n_songs):
            noise = rng.normal(0, 3000, 30 * RATE).astype(np.int16)
            chunks.write(folder / f"genre{number % 4}" / f"song{number}.wav", noise, sample_rate=RATE)
    return [song.path for song in dataset.scan(folder)]


def _cpu_seconds(project: Path) -> float:
    """Run both stages as DVC does, outs removed first; return the CPU seconds of all their processes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    for stage, outs in (("split", "chunks"), ("extract", "features")):
        shutil.rmtree(project / outs, ignore_errors=True)
        command = [sys.executable, "-m", f"stages.{stage}"]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        subprocess.run(command, cwd=project, env=environment, check=True, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
