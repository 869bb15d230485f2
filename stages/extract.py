"""Compute the features of all chunks, as the CSV files that sonic-annotator writes.

python -m stages.extract                                    all of chunks/, as `dvc repro` does
python -m stages.extract a.wav b.flac --out DIR             any files, at their own sample rate
"""

from __future__ import annotations

import functools
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from genre import files, params
from genre.audio import manifest
from genre.cache import Cache
from genre.cli import argument_parser, run_command
from genre.errors import EngineError, FeatureError
from genre.features import csv
from genre.features.engines import ENGINES, Engine, choose
from genre.features.extraction import Failures, Job
from genre.features.transforms import TRANSFORMS
from genre.parallel import all_or_error, run
from genre.paths import Paths
from genre.terminal import one_line

MAX_BATCH = 64  # files per call of an engine
MAX_NAME_BYTES = 255  # of a file's name on Linux, macOS and Windows
LONG_NAME = f"the names of its CSV files would have more than {MAX_NAME_BYTES} bytes: rename it"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage (chunks/ -> features/), or extract the given files."""
    parser = argument_parser(__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="audio files (default: chunks/)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the CSV files of FILE... (default: .)")
    parser.add_argument("--engine", choices=["auto", *ENGINES], help="engine for FILE... (default: auto)")
    parser.add_argument("--engines", action="store_true", help="list the engines and whether they can be used here")
    arguments = parser.parse_args(argv)
    if arguments.engines:
        return _list_engines()
    if arguments.files:
        return _extract_files(arguments.files, arguments.out or Path(), arguments.engine or "auto")
    if arguments.out or arguments.engine:
        parser.error("--out and --engine need FILE...; for chunks/, set extract.engine in params.yaml")
    return _extract_chunks(params.load(), Paths())


def _list_engines() -> int:
    """Print every engine in the order of preference, with its versions or the reason why it cannot be used."""
    for name, engine in ENGINES.items():
        try:
            answer = "yes: " + ", ".join(f"{part} {version}" for part, version in engine.versions().items())
        except EngineError as error:
            answer = f"no: {error}"
        print(f"{name:<16} {answer}")
    return 0


def _extract_files(audio: Sequence[Path], out: Path, engine_name: str) -> int:
    jobs = [Job(path, dict.fromkeys(TRANSFORMS, out)) for path in dict.fromkeys(audio)]
    n_jobs = Counter(job.audio.stem for job in jobs)
    for job in jobs:
        if n_jobs[job.audio.stem] > 1:
            raise FeatureError(f"{job.audio}: another file has the same name, their CSV files would collide in {out}/")
    failures = _extract(jobs, choose(engine_name), params.ParallelParams(workers=None, scheduler=None), None)
    for error in failures.values():
        print(one_line(f"error: {error}"), file=sys.stderr)
    return 1 if failures else 0


def _extract_chunks(settings: params.Params, paths: Paths) -> int:
    engine = choose(settings.extract.engine)
    jobs = [
        Job(paths.chunks / row.chunk, {name: paths.features / name / Path(row.chunk).parent for name in TRANSFORMS})
        for row in manifest.read(paths.chunks)
    ]
    cache = Cache(paths.cache, settings.cache.max_bytes)
    if failures := _extract(jobs, engine, settings.parallel, cache):
        raise FeatureError("; ".join(str(error) for error in failures.values()))
    files.remove_others(paths.features, {paths.extraction, *(path for job in jobs for path in job.targets)})
    files.write_json(paths.extraction, {"engine": engine.name, "versions": engine.versions()})
    cache.trim()
    print(f"extract: {len(jobs)} chunks, {len(TRANSFORMS)} features, engine {engine.name}")
    return 0


def _extract(jobs: Sequence[Job], engine: Engine, parallel: params.ParallelParams, cache: Cache | None) -> Failures:
    """Extract all jobs in batches over the cores; return the error of each file that failed."""
    failures: Failures = {
        job.audio: FeatureError(f"{job.audio}: {LONG_NAME}")
        for job in jobs
        if max(len(os.fsencode(path.name)) for path in job.targets) > MAX_NAME_BYTES
    }
    versions = engine.versions()
    missing = [job for job in jobs if job.audio not in failures and not _restore(job, engine.name, versions, cache)]
    size = max(1, min(MAX_BATCH, len(missing) // 8))
    results = run(
        functools.partial(_extract_batch, engine.name, versions, cache),
        [missing[first : first + size] for first in range(0, len(missing), size)],
        description="extract",
        unit="batch",
        workers=parallel.workers,
        scheduler=parallel.scheduler,
    )
    return failures | {path: error for part in all_or_error(results) for path, error in part.items()}


def _extract_batch(name: str, versions: dict[str, str], cache: Cache | None, jobs: Sequence[Job]) -> Failures:
    """Extract jobs with one engine, in any process, and store their features in the cache."""
    engine = choose(name)
    if (here := engine.versions()) != versions:
        raise EngineError(f"the engine {name} has versions {here} here, but {versions} at the start")
    failures = engine.extract(jobs)
    for job in jobs:
        if cache is not None and job.audio not in failures:
            cache.store(_key(job, name, versions), job.targets, versions)
    return failures


def _restore(job: Job, engine: str, versions: dict[str, str], cache: Cache | None) -> bool:
    """Restore the features of a job from the cache, if they are there."""
    return cache is not None and cache.restore(_key(job, engine, versions), job.targets.__getitem__) is not None


def _key(job: Job, engine: str, versions: dict[str, str]) -> str:
    table = [asdict(t) for t in TRANSFORMS.values()]
    return files.digest("extract", csv.VERSION, engine, versions, table, files.sha256(job.audio))


if __name__ == "__main__":
    run_command(main)
