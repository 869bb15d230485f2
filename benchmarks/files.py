"""What DVC does with chunks and features as files and as archives: number of files, and time of `dvc status`.

    python -m benchmarks.files [--songs 300] [--full]

The songs are made up, with 8 chunks of a few bytes and three features of each. `dvc status` is that of a project in
which nothing changed. Then a song is added, and the archives that change are counted. With --full there are 2,000 songs
in files and 50,000, of one chunk, in archives.
"""

from __future__ import annotations

import argparse
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from genre import archives, files
from genre.archives import Archives
from genre.cache import Cache
from genre.cli import integer

OUTS = ("chunks", "mfcc_coefficients", "spectral-contrast_peaks", "spectral-contrast_valleys")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.files", description=__doc__.splitlines()[0])
    parser.add_argument("--songs", type=integer(1, 10**7), default=300)
    parser.add_argument("--full", action="store_true")
    options = parser.parse_args()
    print(f"{'layout':<10} {'songs':>7} {'files':>7} {'dvc status, s':>14} {'CPU s':>7}", flush=True)
    n_files, n_packed, n_chunks = (2_000, 50_000, 1) if options.full else (options.songs, options.songs, 8)
    with tempfile.TemporaryDirectory(prefix="files-") as name:
        project = Path(name, "files")
        for song in range(n_files):
            _write(_paths(project, song, 8))
        _print_status("files", project, n_files)
        project = Path(name, "archives")
        _pack(project, n_packed, n_chunks)
        _print_status("archives", project, n_packed)
        before = _digests(project)
        for out in OUTS:  # as DVC does
            shutil.rmtree(project / out)
        _pack(project, n_packed + 1, n_chunks)
        changed = [path.parent.name for path, _ in before.items() - _digests(project).items()]
    print(f"one song added: {len(changed)} of {len(before)} archives changed: {', '.join(sorted(changed))}")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6:.2f} GB")


def _digests(project: Path) -> dict[Path, str]:
    return {path: files.sha256(path) for out in OUTS for path in (project / out).glob("*.zip")}


def _paths(project: Path, song: int, n_chunks: int) -> list[Path]:
    """Return the paths of the chunks of a song, and of their features."""
    names = [f"train/genre {song % 10}/{song}-{number:03d}" for number in range(n_chunks)]
    return [project / out / name for name in names for out in OUTS]


def _write(paths: list[Path]) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(path.name.encode())


def _pack(project: Path, n_songs: int, n_chunks: int) -> None:
    """Bring the archives up to date as split (an entry for each song) and extract (for each chunk) do."""
    for folders, size in (([project / OUTS[0]], n_chunks), ([project / out for out in OUTS[1:]], 1)):
        store = Archives(folders, Cache(project / ".cache", 10**12), pack=True)
        entries = []
        for song in range(n_songs):
            name = archives.name_of(str(song), n_songs)
            paths = [path for path in _paths(project, song, n_chunks) if path.parents[2] in folders]
            n_files = size * len(folders)
            for first in range(0, len(paths), n_files):
                of_entry = paths[first : first + n_files]
                key = files.digest(of_entry[0].name)
                if store.restore(key, of_entry.__getitem__) is None:
                    _write(of_entry)
                entries.append((name, key, True, of_entry))
        store.write(entries)


def _print_status(layout: str, project: Path, n_songs: int) -> None:
    """Commit the project to DVC, and print the number of files and the time of `dvc status` after that."""
    (project / "dvc.yaml").write_text(yaml.safe_dump({"stages": {"made": {"cmd": "true", "outs": list(OUTS)}}}))
    dvc = [sys.executable, "-m", "dvc"]
    for arguments in (["init", "--no-scm", "--quiet"], ["commit", "--force", "--quiet"]):
        subprocess.run([*dvc, *arguments], cwd=project, check=True)
    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*dvc, "status"], cwd=project, check=True, stdout=subprocess.DEVNULL)
    after, seconds = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter() - start
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    n_files = sum(len(names) for out in OUTS for _, _, names in os.walk(project / out))
    print(f"{layout:<10} {n_songs:>7} {n_files:>7} {seconds:>14.1f} {cpu_s:>7.1f}", flush=True)


if __name__ == "__main__":
    main()
