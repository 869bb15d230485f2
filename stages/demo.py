"""Synthesise the demo data set: made-up songs of five styles, each its own recording, in several audio formats.

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
from genre.errors import DatasetError, GenreError
from genre.parallel import run

if TYPE_CHECKING:
    from genre.demo.styles import Song

MANIFEST = ".songs.json"  # names the songs that are ours to remove; hidden: it is no song


def main(argv: Sequence[str] | None = None) -> int:
    """Make the data set; songs of an earlier run that are not in it go, other files stay."""
    parser = argparse.ArgumentParser(prog="python -m stages.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("dataset/demo"), help="folder to make (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=2016, help="other seeds, other songs (default: %(default)s)")
    parser.add_argument("--songs", type=int, default=10, help="songs of each style (default: %(default)s)")
    options = parser.parse_args(argv)
    if options.songs < 1 or options.seed < 0:
        parser.error("--songs is 1 or more, --seed 0 or more")
    started = time.perf_counter()
    songs = _planned(options.seed, options.songs)
    seconds = _make(songs, options.out)
    styles = len({song.style for song in songs})
    wall_s = time.perf_counter() - started
    print(f"demo: {len(songs)} songs, {styles} styles, {seconds / 60:.0f} min, in {wall_s:.1f} s")
    return 0


def _planned(seed: int, songs: int) -> list[Song]:
    """Return the songs, in formats that this machine's ffmpeg can write."""
    from genre.demo import styles, synth

    return styles.plan(seed, songs, formats=synth.writable_formats())


def _make(songs: Sequence[Song], out: Path) -> float:
    """Write the songs and remove those of an earlier run; return how many seconds they last."""
    wanted = {song.file for song in songs}
    earlier = _read_manifest(out / MANIFEST)
    files.write_json(out / MANIFEST, sorted(wanted | earlier))  # a run that is killed leaves no song unnamed
    results = list(run(functools.partial(_make_song, out=out), songs, description="demo"))
    for result in results:
        if isinstance(result, GenreError):
            raise result
    _remove(out, earlier - wanted)
    files.write_json(out / MANIFEST, sorted(wanted))
    return sum(seconds for seconds in results if isinstance(seconds, float))


def _make_song(song: Song, *, out: Path) -> float:
    """Compose, play and write one song; return how many seconds it lasts."""
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
        raise DatasetError(f"{path} is damaged: remove {path.parent}/ and try again ({error})") from error


def _remove(out: Path, stale: Iterable[str]) -> None:
    """Remove songs by their names in the manifest, and the folders that this leaves empty; nothing beyond `out`."""
    found = {path.relative_to(out).as_posix(): path for path in out.glob("*/*")}
    for path in (found[name] for name in stale if name in found):
        path.unlink()
        if not any(path.parent.iterdir()):
            path.parent.rmdir()


if __name__ == "__main__":
    run_command(main)
