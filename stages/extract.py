"""Compute the features of all chunks, as the CSV files that sonic-annotator writes.

    python -m stages.extract                                    all of chunks/, as the DAG does
    python -m stages.extract a.wav b.flac --out DIR             any files, at their own sample rate
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stages import files, params
from stages.audio import index
from stages.commands import run_command
from stages.errors import FeatureError, GenreError
from stages.features import engines
from stages.features.engines import Failures, Job
from stages.features.transforms import TRANSFORMS
from stages.parallel import run

CHUNKS = Path("chunks")
FEATURES = Path("features")
RECORD = FEATURES / "extraction.json"
MAX_BATCH = 64  # files an engine gets at once


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage (chunks/ -> features/), or extract the files that are named."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.extract",
        description="Compute the features of chunks/, or of the files that are named.",
    )
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="audio files; none: the stage of the DAG")
    parser.add_argument("--out", type=Path, metavar="DIR", help="where the CSV files of FILE... go (default: here)")
    parser.add_argument("--engine", choices=["auto", *engines.NAMES], help="default: extract.engine of params.yaml")
    arguments = parser.parse_args(argv)
    if arguments.files:
        return _extract_files(arguments.files, arguments.out or Path(), arguments.engine or "auto")
    if arguments.out or arguments.engine:
        parser.error("--out and --engine go with FILE...; the stage takes extract.engine from params.yaml")
    return _extract_chunks(params.load())


def _extract_chunks(settings: params.Params) -> int:
    rows = index.read(CHUNKS)
    engine = engines.choose(settings.extract.engine)
    jobs = []
    for row in rows:
        below = Path(row.chunk).parent
        jobs.append(Job(CHUNKS / row.chunk, {feature: FEATURES / feature / below for feature in TRANSFORMS}))
    failures = _extract(jobs, engine.name, settings.parallel.workers)
    if failures:
        raise FeatureError("; ".join(str(error) for error in failures.values()))
    files.remove_others(FEATURES, {job.target(t) for job in jobs for t in TRANSFORMS.values()} | {RECORD})
    files.write_json(RECORD, {"engine": engine.name, "versions": engine.versions()})
    print(f"extract: {len(jobs)} chunks, {len(TRANSFORMS)} features, engine {engine.name}")
    return 0


def _extract_files(paths: Sequence[Path], out: Path, engine_name: str) -> int:
    jobs = [Job(path, dict.fromkeys(TRANSFORMS, out)) for path in dict.fromkeys(paths)]
    targets = Counter(job.target(t) for job in jobs for t in TRANSFORMS.values())
    for job in jobs:
        if any(targets[job.target(t)] > 1 for t in TRANSFORMS.values()):
            raise FeatureError(f"{job.audio}: another file has the same name, their CSV files would collide in {out}/")
    failures = _extract(jobs, engines.choose(engine_name).name, None)
    for error in failures.values():
        print(f"error: {error}", file=sys.stderr)
    return 1 if failures else 0


def _extract(jobs: Sequence[Job], engine_name: str, workers: int | None) -> Failures:
    """Extract all jobs in batches over the cores; return the failures."""
    size = max(1, min(MAX_BATCH, len(jobs) // 8))
    batches = [jobs[first : first + size] for first in range(0, len(jobs), size)]
    failures: Failures = {}
    work = functools.partial(_extract_batch, engine_name=engine_name)
    for result in run(work, batches, description="extract", unit="batch", workers=workers):
        if isinstance(result, GenreError):
            raise result
        failures |= result
    return failures


def _extract_batch(jobs: Sequence[Job], engine_name: str) -> Failures:
    return engines.get(engine_name).extract(jobs)


if __name__ == "__main__":
    run_command(main)
