"""Show or clear the cache of finished songs.

python -m stages.cache
python -m stages.cache --clear
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence

from genre import params
from genre.cache import Cache
from genre.cli import run_command
from genre.paths import Paths


def main(argv: Sequence[str] | None = None) -> int:
    """Print what the cache holds; with --clear, remove it all."""
    parser = argparse.ArgumentParser(prog="python -m stages.cache", description=__doc__.splitlines()[0])
    parser.add_argument("--clear", action="store_true", help="remove every entry")
    clear = parser.parse_args(argv).clear
    cache = Cache(Paths().cache, params.load().cache.max_bytes)
    found = cache.entries()
    size = sum(n_bytes for _, n_bytes, _ in found)
    if clear:
        shutil.rmtree(cache.folder, ignore_errors=True)
        print(f"cache: removed {len(found)} entries, {size / 1e6:.1f} MB")
        return 0
    print(f"cache: {cache.folder}/ has {len(found)} entries, {size / 1e6:.1f} MB of {cache.max_bytes / 1e6:.0f} MB")
    return 0


if __name__ == "__main__":
    run_command(main)
