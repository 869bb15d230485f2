"""Synthesise the demo data set: songs in five styles and several audio formats.

python -m stages.demo --out dataset/demo
"""

from __future__ import annotations

import argparse
import functools
import json
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genre import files
from genre.cli import run_command
from genre.errors import DatasetError
from genre.parallel import all_or_error, run
from genre.paths import Paths

if TYPE_CHECKING:
    from genre.demo.styles import DemoSong

MANIFEST = ".songs.json"  # names of the songs that this command may remove


def main(argv: Sequence[str] | None = None) -> int:
    """Write the data set and remove songs of an earlier run that are not part of it; other files are kept."""
    parser = argparse.ArgumentParser(prog="python -m stages.demo", description=__doc__.splitlines()[0])
    out = Paths().datasets / "demo"
    parser.add_argument("--out", type=Path, default=out, help="folder of the data set (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2016, help="seed of the random numbers (default: %(default)s)")
    parser.add_argument("--songs", type=int, default=10, help="songs of each style (default: %(default)s)")
    options = parser.parse_args(argv)
    if options.songs < 1 or options.seed < 0:
        parser.error("--songs must be at least 1 and --seed at least 0")
    from genre.demo import styles, synth

    start = time.perf_counter()
    songs = styles.plan(options.seed, options.songs, formats=synth.writable_formats())
    audio_s = write_songs(songs, options.out)
    n_styles, wall_s = len({song.style for song in songs}), time.perf_counter() - start
    print(f"demo: {len(songs)} songs, {n_styles} styles, {audio_s / 60:.0f} min, in {wall_s:.1f} s")
    return 0


def write_songs(songs: Sequence[DemoSong], out: Path) -> float:
    """Write the songs, remove those of an earlier run, and return the total duration in seconds."""
    names = {song.file for song in songs}
    earlier = _read_manifest(out / MANIFEST)
    files.write_json(out / MANIFEST, sorted(names | earlier))  # lists all songs even if this run is killed
    audio_s = sum(all_or_error(run(functools.partial(_write_song, out=out), songs, description="demo")))
    _remove(out, earlier - names)
    files.write_json(out / MANIFEST, sorted(names))
    return audio_s


def _write_song(song: DemoSong, *, out: Path) -> float:
    """Compose, render and write one song; return its duration in seconds."""
    import numpy as np

    from genre.demo import styles, synth

    rng = np.random.default_rng(song.seed)
    score = styles.compose(song, rng)
    synth.write(out / song.file, synth.render(score, rng), sample_rate=score.recording.sample_rate)
    return score.seconds


def _read_manifest(path: Path) -> set[str]:
    try:
        return set(json.loads(path.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return set()
    except (ValueError, TypeError) as error:
        raise DatasetError(f"{path} is damaged ({error}): remove {path.parent}/ and try again") from error


def _remove(out: Path, names: Iterable[str]) -> None:
    """Remove songs by their names in the manifest, if they are in `out`, and folders that become empty."""
    paths = {path.relative_to(out).as_posix(): path for path in out.glob("*/*")}
    for path in (paths[name] for name in names if name in paths):
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


if __name__ == "__main__":
    run_command(main)
