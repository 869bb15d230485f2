"""What the pipeline costs: the benchmarks of time, memory and size, one after the other.

    python -m benchmarks [--full] [NAME ...]

Run it in a project's folder; those that need trained models or songs are left out, with the reason, where there are
none. The default sizes end in ten minutes on two idle cores.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
SONGS, MODELS = "dataset/demo", "model_weights"  # what some benchmarks need
MISSING = "left out: there is no {}, run `make run`"

# The arguments of each benchmark, those with --full, and what it needs.
BENCHMARKS: dict[str, tuple[list[str], list[str], str | None]] = {
    "extract": (["--seconds", "60", "--repeat", "3"], [], None),
    "query": (["--repeats", "2", "--songs", "5"], [], MODELS),
    "train": (["--epochs", "5"], [], None),
    "incremental": (["--songs", "20"], [], None),
    "files": ([], ["--full"], None),
    "memory": (
        ["--hours", "0.2", "0.4", "--songs", "50", "100", "--queue", "5000", "10000"],
        ["--queue", "10000", "100000", "1000000"],
        None,
    ),
    "landmarks": ([SONGS, "--songs", "200", "--snippets", "3"], [SONGS, "--full"], SONGS),
    "search": (["--sizes", "10000"], ["--sizes", "10000", "100000", "1000000"], None),
}


def main() -> int:
    """Run the benchmarks; return 1 if one failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)} (default: all)")
    parser.add_argument("--full", action="store_true", help="all sizes: hours")
    options = parser.parse_args()
    if unknown := set(options.names) - BENCHMARKS.keys():
        parser.error(f"no benchmark is called {min(unknown)}")
    failed = []
    for name in options.names or BENCHMARKS:
        quick, full, needed = BENCHMARKS[name]
        print(f"\n== {name}", flush=True)
        if needed and not Path(needed).exists():
            print(MISSING.format(needed))
            continue
        begin = time.monotonic()
        command = [sys.executable, "-m", f"benchmarks.{name}", *(full if options.full else quick)]
        if subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, check=False).returncode:
            failed.append(name)
        print(f"({time.monotonic() - begin:.0f} s)")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
