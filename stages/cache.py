"""Show or clear the cache, .cache/.

python -m stages.cache
python -m stages.cache --clear
"""

from __future__ import annotations

from collections.abc import Sequence

from genre import params
from genre.cache import Cache
from genre.cli import argument_parser, run_command
from genre.paths import Paths


def main(argv: Sequence[str] | None = None) -> int:
    """Print number and size of the cache's entries; with --clear, remove them."""
    parser = argument_parser(__doc__)
    parser.add_argument("--clear", action="store_true", help="remove every entry")
    arguments = parser.parse_args(argv)
    cache = Cache(Paths().cache, params.load().cache.max_bytes)
    entries = cache.entries()
    size = f"{sum(n_bytes for _, n_bytes in entries) / 1e6:.1f} MB"
    if arguments.clear:
        for entry, _ in entries:
            for path in entry.iterdir():  # an error of rmtree would not have the whole path
                path.unlink()
            entry.rmdir()
        print(f"cache: removed {len(entries)} entries, {size}")
    else:
        print(f"cache: {cache.folder}/ has {len(entries)} entries, {size} of {cache.max_bytes / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    run_command(main)
