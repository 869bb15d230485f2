"""Compare the answers about the demo data set with those kept in tests/golden/. Run it after `make run`.

python -m tests.frozen                          numbers within 1e-4, chunks and feature CSVs byte for byte
python -m tests.frozen --tolerance 0.1          on another kind of processor: numbers only, training amplifies rounding
python -m tests.frozen --write                  keep the present answers
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

TOLERANCE = 1e-4
INTERVAL = ("_low", "_high")  # ends of intervals, which are not compared: one song of 15 moves them far
GOLDEN = Path(__file__).parent / "golden"
ANSWERS = GOLDEN / "demo_answers.json"
METRICS = GOLDEN / "demo_metrics.json"
SONGS = ("dataset/demo/blues/Golden Lantern.wav", "dataset/demo/techno/Amber Station.mp3")
MODELS = ("mfcc", "spectral_contrast", "merged", "stats_svm", "knn", "musicnn_svm", "musicnn_logistic", "ensemble")
FEATURES = ("mfcc_coefficients", "spectral-contrast_peaks", "spectral-contrast_valleys")
DIGESTS = ("chunks", *(f"features/{feature}" for feature in FEATURES))


def main(argv: Sequence[str] | None = None) -> int:
    """Print what differs; return 0 if nothing does, 1 otherwise."""
    parser = argparse.ArgumentParser(prog="python -m tests.frozen", description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="keep the present answers as the expected ones")
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="allowed difference of a number (default: %(default)s)"
    )
    arguments = parser.parse_args(argv)
    metrics = json.loads(Path("evaluation/metrics.json").read_text(encoding="utf-8"))
    answers = _answers()
    if arguments.write:
        for path, value in ((ANSWERS, answers), (METRICS, metrics)):
            path.write_text(json.dumps(value, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        return 0
    lines = []
    for path, value in ((ANSWERS, answers), (METRICS, metrics)):
        expected = json.loads(path.read_text(encoding="utf-8"))
        if arguments.tolerance > TOLERANCE:
            expected["digests"] = value["digests"] = {}
        lines += [f"{path.name}: {line}" for line in differences(value, expected, arguments.tolerance)]
    sys.stdout.write(("\n".join(lines) or f"as expected, within {arguments.tolerance:g}") + "\n")
    return 1 if lines else 0


def _answers() -> dict[str, Any]:
    """Return the answers of query (every model), identify and similar, and the digests of chunks and features."""
    excerpt = ("--start", "20", "--duration", "10")
    return {
        "query": {model: [_ask("query", "--model", model, song) for song in SONGS] for model in MODELS},
        "identify": [_ask("identify", *excerpt, song) for song in SONGS],
        "similar": [_ask("similar", "--top", "5", song) for song in SONGS],
        "digests": {folder: _digest(Path(folder)) for folder in DIGESTS},
    }


def _ask(command: str, *arguments: str) -> Any:
    words = [sys.executable, "-m", f"stages.{command}", "--format", "json", *arguments]
    return json.loads(subprocess.run(words, check=True, stdout=subprocess.PIPE).stdout)


def _digest(folder: Path) -> str:
    """Return one SHA-256 of the names and bytes of all audio and feature files of a folder."""
    digest = hashlib.sha256()
    for path in sorted(path for suffix in ("wav", "csv") for path in folder.rglob(f"*/*.{suffix}")):
        digest.update(path.relative_to(folder).as_posix().encode() + b"\0" + hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def differences(actual: Any, expected: Any, tolerance: float) -> Iterator[str]:
    """Yield a line for every value that is missing, new or differs by more than `tolerance`."""
    left, right = ({k: v for k, v in _values(x) if not k.endswith(INTERVAL)} for x in (actual, expected))
    for name in sorted(left.keys() | right.keys()):
        actual, wanted = (values.get(name, "missing") for values in (left, right))
        if not _close(actual, wanted, tolerance):
            yield f"{name}: {actual}, expected {wanted}"


def _values(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings and lists with their names, such as merged.song_accuracy."""
    if isinstance(value, dict | list) and value:
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _values(inner, f"{name}.{key}" if name else str(key))
    else:
        yield name, value


def _close(actual: Any, expected: Any, tolerance: float) -> bool:
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in (actual, expected)):
        return math.isclose(actual, expected, rel_tol=0.0, abs_tol=tolerance + 1e-12)
    return bool(actual == expected)


if __name__ == "__main__":
    sys.exit(main())
