"""Compute the features of all chunks, as the CSV files that sonic-annotator writes.

python -m stages.extract                                    all of chunks/, as `dvc repro` does
python -m stages.extract a.wav b.flac --out DIR             any files, at their own sample rate
"""

from __future__ import annotations

import functools
import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from genre import archives, files, params
from genre.audio import manifest
from genre.cache import Cache
from genre.cli import argument_parser, run_command
from genre.errors import EngineError, FeatureError
from genre.features import csv, engines, transforms
from genre.features.extraction import Failures, Job
from genre.parallel import run
from genre.paths import Paths
from genre.terminal import one_line

MAX_BATCH = 64  # files per call of an engine
MAX_NAME_BYTES = 255  # of a file's name on Linux, macOS and Windows


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage (chunks/ -> features/), or extract the given files."""
    parser = argument_parser(__doc__)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE", help="audio files (default: chunks/)")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder for the CSV files of FILE... (default: .)")
    parser.add_argument("--engine", choices=["auto", *engines.ENGINES], help="engine for FILE... (default: auto)")
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
    for name, engine in engines.ENGINES.items():
        try:
            answer = "yes: " + ", ".join(f"{part} {version}" for part, version in engine.versions().items())
        except EngineError as error:
            answer = f"no: {error}"
        print(f"{name:<16} {answer}")
    return 0


def _extract_files(audio: Sequence[Path], out: Path, engine_name: str) -> int:
    jobs = [Job(path, dict.fromkeys(transforms.TRANSFORMS, out)) for path in dict.fromkeys(audio)]
    of_csv = {job.targets[0]: job for job in jobs}
    for job in jobs:
        if (other := of_csv[job.targets[0]]) is not job:
            raise FeatureError(f"{job.audio}: the CSV files of {other.audio} have the same names in {out}/: rename it")
    failures = _extract(jobs, engines.choose(engine_name), None)
    for error in failures.values():
        print(one_line(f"error: {error}"), file=sys.stderr)
    return 1 if failures else 0


def _extract_chunks(settings: params.Params, paths: Paths) -> int:
    engine = engines.choose(settings.extract.engine)
    versions, rows = engine.versions(), manifest.read(paths.chunks)
    jobs = [
        Job(path, {name: paths.features.joinpath(name, *path.parts[-3:-1]) for name in transforms.TRANSFORMS})
        for path in (paths.chunks / row.chunk for row in rows)
    ]
    keys = {job.audio: _key(job, engine.name, versions) for job in jobs}
    cache = Cache(paths.cache, settings.cache.max_bytes)
    names = ["/".join(Path(row.chunk).parts[:-3]) for row in rows]  # of the archives, if there are any
    store = archives.Archives([paths.features / name for name in transforms.TRANSFORMS], cache, pack=any(names))
    missing = [job for job in jobs if store.restore(keys[job.audio], job.targets.__getitem__) is None]
    if failures := _extract(missing, engine, cache, **dict(settings.parallel)):
        raise FeatureError("; ".join(str(error) for error in failures.values()))
    kept = store.write((name, keys[job.audio], True, job.targets) for name, job in zip(names, jobs, strict=True))
    files.remove_others(paths.features, {paths.extraction, *kept})
    files.write_json(paths.extraction, {"engine": engine.name, "versions": versions})
    cache.trim()
    print(f"extract: {len(jobs)} chunks, {len(transforms.TRANSFORMS)} features, engine {engine.name}")
    return 0


def _extract(jobs: Sequence[Job], engine: engines.Engine, cache: Cache | None, **parallel: Any) -> Failures:
    """Extract all jobs in batches over the cores; return the error of each file that failed."""
    failures: Failures = {
        job.audio: FeatureError(f"{job.audio}: its CSV files have names of more than {MAX_NAME_BYTES} bytes: rename it")
        for job in jobs
        if max(len(os.fsencode(path.name)) for path in job.targets) > MAX_NAME_BYTES
    }
    missing = [job for job in jobs if job.audio not in failures]
    size = max(1, min(MAX_BATCH, len(missing) // 8))
    batches = [missing[first : first + size] for first in range(0, len(missing), size)]
    extract_batch = functools.partial(_extract_batch, engine.name, engine.versions(), cache)
    results = run(extract_batch, batches, description="extract", unit="batch", **parallel)
    return failures | {path: error for part in results for path, error in part.items()}


def _extract_batch(name: str, versions: dict[str, str], cache: Cache | None, jobs: Sequence[Job]) -> Failures:
    """Extract jobs with one engine, in any process, and store their features in the cache."""
    engine = engines.choose(name)
    if (here := engine.versions()) != versions:
        raise EngineError(f"the engine {name} has versions {here} here, but {versions} at the start")
    failures = engine.extract(jobs)
    for job in jobs:
        if cache is not None and job.audio not in failures:
            cache.store(_key(job, name, versions), job.targets, True)
    return failures


def _key(job: Job, engine: str, versions: dict[str, str]) -> str:
    table = [asdict(t) for t in transforms.TRANSFORMS.values()]
    digest = hashlib.sha256(archives.read_bytes(job.audio)).hexdigest()
    return files.digest("extract", csv.VERSION, engine, versions, table, digest)


if __name__ == "__main__":
    run_command(main)
