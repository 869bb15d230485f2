"""Compare two files of figures, and name every one that differs by more than a tolerance.

python -m tests.compare_metrics evaluation/metrics.json tests/golden/demo_metrics.json --tolerance 0.1
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any


def main(argv: Sequence[str] | None = None) -> int:
    """Print what differs; return 0 if nothing does, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.compare_metrics", description=__doc__.splitlines()[0])
    parser.add_argument("found", type=Path, help="figures of this run, as JSON")
    parser.add_argument("expected", type=Path, help="figures to compare with")
    parser.add_argument("--tolerance", type=float, default=1e-6, help="what a figure may differ by (default: 1e-6)")
    arguments = parser.parse_args(argv)
    found, expected = (json.loads(path.read_text(encoding="utf-8")) for path in (arguments.found, arguments.expected))
    lines = list(differences(found, expected, arguments.tolerance))
    sys.stdout.write(("\n".join(lines) or f"{arguments.found}: as expected, to {arguments.tolerance:g}") + "\n")
    return 1 if lines else 0


def differences(found: Any, expected: Any, tolerance: float) -> Iterator[str]:
    """Yield a line for every figure that is missing, new, of another kind, or off by more than `tolerance`."""
    ours, theirs = dict(_figures(found)), dict(_figures(expected))
    for name in sorted(ours.keys() | theirs.keys()):
        if name not in ours:
            yield f"{name}: is missing, expected {theirs[name]}"
        elif name not in theirs:
            yield f"{name}: {ours[name]} is new"
        elif not _close(ours[name], theirs[name], tolerance):
            yield f"{name}: {ours[name]}, expected {theirs[name]}"


def _figures(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings and lists with their names, such as merged.song_accuracy."""
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _figures(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _close(found: Any, expected: Any, tolerance: float) -> bool:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (found, expected)):
        return math.isclose(found, expected, rel_tol=0.0, abs_tol=tolerance + 1e-12)
    return bool(found == expected)


if __name__ == "__main__":
    sys.exit(main())
