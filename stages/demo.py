"""Synthesise the demo data set: songs in five styles and several audio formats.

python -m stages.demo --out dataset/demo
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genre import files
from genre.cli import argument_parser, integer, run_command
from genre.errors import DatasetError
from genre.parallel import run
from genre.paths import SYNTHETIC, Paths

if TYPE_CHECKING:
    from genre.demo.styles import DemoSong


def main(argv: Sequence[str] | None = None) -> int:
    """Write the data set."""
    parser = argument_parser(__doc__)
    out = Paths().datasets / "demo"
    parser.add_argument("--out", type=Path, default=out, help="folder of the data set (default: %(default)s)")
    parser.add_argument(
        "--seed", type=integer(0, 2**32 - 1), default=2016, help="seed of the random numbers (default: %(default)s)"
    )
    parser.add_argument(
        "--songs", type=integer(1, 10_000), default=10, help="songs of each style (default: %(default)s)"
    )
    options = parser.parse_args(argv)
    from genre.demo import styles

    songs = styles.plan(options.seed, options.songs)
    audio_s = write_songs(songs, options.out)
    print(f"demo: {len(songs)} songs, {len(styles.STYLES)} styles, {audio_s / 60:.0f} min")
    return 0


def write_songs(songs: Sequence[DemoSong], out: Path) -> float:
    """Write the songs into an empty or new folder, and return their total duration in seconds."""
    if out.is_dir() and any(out.iterdir()):
        raise DatasetError(f"{out}/ is not empty: remove it, or name another folder with --out")
    seconds: float = sum(run(functools.partial(_write_song, out=out), songs, description="demo"))
    files.write_text(out / SYNTHETIC, "The songs are synthetic: models trained on them say nothing about real music.\n")
    return seconds


def _write_song(song: DemoSong, *, out: Path) -> float:
    """Compose, render and write one song; return its duration in seconds."""
    import numpy as np

    from genre.audio import ffmpeg
    from genre.demo import styles, synth

    rng = np.random.default_rng(song.seed)
    tracks, recording = styles.compose(song, rng)
    samples, options = synth.render(tracks, recording, rng), styles.FORMATS[song.suffix]
    ffmpeg.encode(out / song.file, samples, sample_rate=recording.sample_rate, **options)
    return recording.seconds


if __name__ == "__main__":
    run_command(main)
