"""What each stage of `dvc repro` costs: wall-clock time, and CPU time of the stage and of DVC itself.

    python -m benchmarks.stages [STAGE ...]

Run it in a fresh clone whose packages are installed. DVC's part is the hashing of dependencies and outputs, and the
copies into its cache. Linux only: CPU times are those in /proc.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import subprocess
import sys
import time
from pathlib import Path

STARTS = re.compile(r"Running stage '(.+)'|Stage '(.+)' (?:didn't change|is cached)")
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


def main() -> None:
    """Run the stages and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stages", description=__doc__.splitlines()[0])
    parser.add_argument("stages", nargs="*", metavar="STAGE", help="with the stages before it (default: all)")
    command = [sys.executable, "-m", "dvc", "repro", *parser.parse_args().stages]
    laps = [("start of DVC", time.perf_counter(), 0.0, 0.0)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for line in process.stdout or ():
            if match := STARTS.match(line):
                laps.append((match[1] or match[2], time.perf_counter(), *_cpu_s(process.pid)))
            sys.stdout.write(line)
            last = _cpu_s(process.pid)
    laps.append(("end", time.perf_counter(), *last))
    print(f"\n{'stage':<32} {'wall s':>8} {'CPU s':>8} {'DVC CPU s':>10}")
    for (name, *before), (_, *after) in itertools.pairwise(laps):
        wall, own, stage = (end - start for start, end in zip(before, after, strict=True))
        print(f"{name:<32} {wall:>8.1f} {stage:>8.1f} {own:>10.1f}")
    wall, own, stage = (end - start for start, end in zip(laps[0][1:], laps[-1][1:], strict=True))
    print(
        f"{'sum':<32} {wall:>8.1f} {stage:>8.1f} {own:>10.1f}   load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
    )
    sys.exit(process.returncode)


def _cpu_s(pid: int) -> tuple[float, float]:
    """Return the CPU seconds of a process, and of its children that have ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    own, children = fields[11:13], fields[13:15]
    return sum(map(int, own)) / TICKS_PER_S, sum(map(int, children)) / TICKS_PER_S


if __name__ == "__main__":
    main()
