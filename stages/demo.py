"""Synthesise the demo data set: songs in five styles and several audio formats.

python -m stages.demo --out dataset/demo
python -m stages.demo --out dataset/large --songs 100 --seed 1
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genre.cli import argument_parser, integer, run_command
from genre.paths import Paths


def main(argv: Sequence[str] | None = None) -> int:
    """Write the data set."""
    parser = argument_parser(__doc__)
    parser.add_argument("--out", type=Path, default=Paths().datasets / "demo", help="new folder (default: %(default)s)")
    parser.add_argument("--seed", type=integer(0, 2**32 - 1), default=2016, help="random seed (default: %(default)s)")
    parser.add_argument("--songs", type=integer(1, 10_000), default=10, help="songs per style (default: %(default)s)")
    options = parser.parse_args(argv)
    from genre.demo import styles

    songs = styles.plan(options.seed, options.songs)
    audio_s = styles.write(songs, options.out)
    print(f"demo: {len(songs)} songs, {len(styles.STYLES)} styles, {audio_s / 60:.0f} min")
    return 0


if __name__ == "__main__":
    run_command(main)
