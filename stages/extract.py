"""Compute the features of all chunks, as the CSV files that sonic-annotator writes.

python -m stages.extract                                    all of chunks/, as the DAG does
python -m stages.extract --shard 3/16                       one job of an array of 16
python -m stages.extract a.wav b.flac --out DIR             any files, at their own sample rate
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from genre import files, params
from genre.audio import manifest
from genre.cache import Cache
from genre.cli import Shard, add_shard_option, run_command
from genre.errors import EngineError, FeatureError
from genre.features import engines
from genre.features.engines import Engine, Failures, Job
from genre.features.transforms import TRANSFORMS
from genre.parallel import all_or_error, run
from genre.paths import Paths

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
    parser.add_argument(
        "--engines", action="store_true", help="list the engines, and what one that cannot be used lacks"
    )
    add_shard_option(parser)
    arguments = parser.parse_args(argv)
    if arguments.engines:
        return _list_engines()
    if arguments.files:
        return _extract_files(arguments.files, arguments.out or Path(), arguments.engine or "auto")
    if arguments.out or arguments.engine:
        parser.error("--out and --engine go with FILE...; the stage takes extract.engine from params.yaml")
    return _extract_chunks(params.load(), arguments.shard)


def _extract_chunks(settings: params.Params, shard: Shard | None) -> int:
    rows = manifest.read(CHUNKS)
    engine = engines.choose(settings.extract.engine)
    jobs = [
        Job(CHUNKS / row.chunk, {feature: FEATURES / feature / Path(row.chunk).parent for feature in TRANSFORMS})
        for row in (shard.of(rows) if shard else rows)
    ]
    cache = Cache(Paths().cache, settings.cache.max_bytes)
    failures = _extract(jobs, engine, settings.parallel, cache)
    if failures:
        raise FeatureError("; ".join(str(error) for error in failures.values()))
    if shard:
        print(f"extract: shard {shard}: {len(jobs)} chunks, engine {engine.name}; `dvc repro` gathers them")
        return 0
    files.remove_others(FEATURES, {job.target(t) for job in jobs for t in TRANSFORMS.values()} | {RECORD})
    files.write_json(RECORD, {"engine": engine.name, "versions": engine.versions()})
    cache.trim()
    print(f"extract: {len(jobs)} chunks, {len(TRANSFORMS)} features, engine {engine.name}")
    return 0


def _list_engines() -> int:
    """Print every engine in the order in which `auto` prefers them, with its versions or what it lacks."""
    for name in engines.NAMES:
        engine = engines.get(name)
        reason = engine.unusable()
        versions = "" if reason else ", ".join(f"{part} {version}" for part, version in engine.versions().items())
        print(f"{name:<16} {'no: ' + reason if reason else 'yes: ' + versions}")
    return 0


def _extract_files(paths: Sequence[Path], out: Path, engine_name: str) -> int:
    jobs = [Job(path, dict.fromkeys(TRANSFORMS, out)) for path in dict.fromkeys(paths)]
    targets = Counter(job.target(t) for job in jobs for t in TRANSFORMS.values())
    for job in jobs:
        if any(targets[job.target(t)] > 1 for t in TRANSFORMS.values()):
            raise FeatureError(f"{job.audio}: another file has the same name, their CSV files would collide in {out}/")
    here = params.ParallelParams(workers=None, scheduler=None)
    failures = _extract(jobs, engines.choose(engine_name), here, None)
    for error in failures.values():
        print(f"error: {error}", file=sys.stderr)
    return 1 if failures else 0


def _extract(jobs: Sequence[Job], engine: Engine, parallel: params.ParallelParams, cache: Cache | None) -> Failures:
    """Extract all jobs that are not in the cache, in batches over the cores; return the failures."""
    work = _Work(engine.name, engine.versions(), cache)
    waiting = [job for job in jobs if not work.restore(job)]
    size = max(1, min(MAX_BATCH, len(waiting) // 8))
    batches = [waiting[first : first + size] for first in range(0, len(waiting), size)]
    failures: Failures = {}
    results = run(
        work.do, batches, description="extract", unit="batch", workers=parallel.workers, scheduler=parallel.scheduler
    )
    for result in all_or_error(results):
        failures |= result
    return failures


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done with a batch of jobs, wherever it is done."""

    engine: str
    versions: dict[str, str]
    cache: Cache | None

    def do(self, jobs: Sequence[Job]) -> Failures:
        """Extract the jobs and keep the results in the cache."""
        engine = engines.choose(self.engine)
        if (found := engine.versions()) != self.versions:
            raise EngineError(f"the engine {self.engine} has other versions here ({found}) than where the run began")
        failures = engine.extract(jobs)
        if self.cache is not None:
            for job in jobs:
                if job.audio not in failures:
                    targets = [job.target(t) for t in TRANSFORMS.values()]
                    self.cache.store(self._key(job), targets, self.versions)
        return failures

    def restore(self, job: Job) -> bool:
        """Take the features of one file out of the cache; return whether they were there."""
        targets = [job.target(t) for t in TRANSFORMS.values()]
        return self.cache is not None and self.cache.restore(self._key(job), targets.__getitem__) is not None

    def _key(self, job: Job) -> str:
        table = [asdict(t) for t in TRANSFORMS.values()]
        return files.digest("extract", self.engine, self.versions, table, files.sha256(job.audio))


if __name__ == "__main__":
    run_command(main)
