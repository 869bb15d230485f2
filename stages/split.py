"""Divide the songs of the data set into train and test, and cut them into chunks of equal length.

python -m stages.split
python -m stages.split --shard 3/16      one job of an array of 16
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from genre import files, params
from genre.audio import chunks, dataset, ffmpeg, manifest
from genre.audio.dataset import Song
from genre.cache import Cache
from genre.cli import add_shard_option, run_command
from genre.errors import AudioError, DatasetError, GenreError
from genre.parallel import run
from genre.params import Params
from genre.paths import Paths

Job = tuple[Song, str]  # a song and the SHA-256 of its file
Spans = list[tuple[float, float]]  # start_s and seconds of each chunk of a song
Failures = dict[Path, str]  # reason for each song that could not be read or decoded


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: dataset/<name> -> chunks/. With --shard, only fill the cache for a part of the songs."""
    parser = argparse.ArgumentParser(prog="python -m stages.split", description=__doc__.splitlines()[0])
    add_shard_option(parser)
    shard = parser.parse_args(argv).shard
    config, paths = params.load(), Paths()
    failures: Failures = {}
    songs, jobs = _divide(config, paths, failures)
    if shard:
        rows = _split_all(shard.of(jobs), config, paths, failures)
        print(f"split: shard {shard}: {len(shard.of(jobs))} songs, {len(rows)} chunks; `dvc repro` collects them")
        return 0
    rows = _split_all(jobs, config, paths, failures)
    dataset.check_no_leak((row.split, row.source_sha256, row.source) for row in rows)
    manifest.write(paths.chunks, rows)
    table = sorted((path.as_posix(), reason) for path, reason in failures.items())
    files.write_table(paths.chunks / manifest.FAILURES_NAME, ["source", "reason"], table)
    tables = {paths.chunks / manifest.INDEX_NAME, paths.chunks / manifest.FAILURES_NAME}
    files.remove_others(paths.chunks, tables | {paths.chunks / row.chunk for row in rows})
    _cache(config, paths).trim()
    print(_summary(songs, rows, failures))
    if failures and config.split.on_error == "fail":
        raise AudioError(f"{len(failures)} songs could not be split and split.on_error is fail: {table[0][1]}")
    _check_genres(rows)
    return 0


def _divide(config: Params, paths: Paths, failures: Failures) -> tuple[list[Song], list[Job]]:
    """Return the songs with their splits, and a job for each readable one; add the others to `failures`."""
    from tqdm import tqdm

    folder = paths.datasets / config.dataset.name
    songs = dataset.scan(folder)
    digests: dict[Path, str] = {}
    for song in tqdm(songs, desc="hash", unit="song", disable=None):
        try:
            digests[song.path] = _sha256(song.path)
        except AudioError as error:
            _report(failures, song.path, error)
    if config.split.test_list or config.split.train_list:
        if songs[0].split:
            raise DatasetError(f"{folder}/ has train/ and test/ folders: set split.test_list and train_list to null")
        lists = {"test_list": config.split.test_list, "train_list": config.split.train_list}
        songs = dataset.divide_by_list(songs, folder, **lists)
    elif not songs[0].split:
        readable = [song for song in songs if song.path in digests]
        songs = dataset.divide(readable, digests, test_fraction=config.split.test_fraction, seed=config.split.seed)
    return songs, [(song, digests[song.path]) for song in songs if song.path in digests]


def _split_all(jobs: Sequence[Job], config: Params, paths: Paths, failures: Failures) -> list[manifest.Row]:
    """Return a row for each chunk of all songs; add the songs that failed to `failures`."""
    results = run(
        functools.partial(_split_song, config=config, paths=paths),
        jobs,
        description="split",
        workers=config.parallel.workers,
        scheduler=config.parallel.scheduler,
        recall=functools.partial(_restore, config=config, paths=paths),
    )
    rows: list[manifest.Row] = []
    for (song, digest), spans in zip(jobs, results, strict=True):
        if isinstance(spans, GenreError):
            _report(failures, song.path, spans)
            continue
        for number, (start_s, seconds) in enumerate(spans):
            chunk = _chunk_path(number, song, paths).relative_to(paths.chunks).as_posix()
            source = song.path.relative_to(paths.root).as_posix()
            rows.append(manifest.Row(chunk, song.name, song.genre, song.split, start_s, seconds, source, digest))
    return rows


def _split_song(job: Job, config: Params, paths: Paths) -> Spans:
    """Write the chunks of one song, and cache them; return start and length of each in seconds."""
    song, digest = job
    split = config.split
    written: list[Path] = []
    spans: Spans = []
    try:
        for chunk in chunks.iterate(
            song.path, sample_rate=split.sample_rate, chunk_seconds=split.chunk_seconds, min_seconds=split.min_seconds
        ):
            written.append(_chunk_path(len(written), song, paths))
            spans.append((round(chunk.start_s, 6), round(chunk.seconds, 6)))
            chunks.write(written[-1], chunk.samples, sample_rate=split.sample_rate)
        if _sha256(song.path) != digest:  # the cache key would not match the content
            raise AudioError(f"{song.path}: changed while it was read: run again when the file is complete")
    except GenreError:
        for path in written:
            path.unlink(missing_ok=True)
        raise
    _cache(config, paths).store(_key(digest, config), written, spans)
    return spans


def _restore(job: Job, config: Params, paths: Paths) -> Spans | None:
    """Return start and length of the chunks of one song, restored from the cache, or None."""
    song, digest = job
    target = functools.partial(_chunk_path, song=song, paths=paths)
    spans = _cache(config, paths).restore(_key(digest, config), target)
    return None if spans is None else [(float(start_s), float(seconds)) for start_s, seconds in spans]


def _chunk_path(number: int, song: Song, paths: Paths) -> Path:
    return paths.chunks / song.split / dataset.safe_name(song.genre) / f"{song.name}-{number:03d}.wav"


def _key(digest: str, config: Params) -> str:
    split = config.split
    lengths = (split.sample_rate, split.chunk_seconds, split.min_seconds)
    return files.digest("split", chunks.VERSION, ffmpeg.version(), digest, *lengths)


def _cache(config: Params, paths: Paths) -> Cache:
    return Cache(paths.cache, config.cache.max_bytes)


def _sha256(path: Path) -> str:
    try:
        return files.sha256(path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror})") from error


def _report(failures: Failures, path: Path, error: GenreError) -> None:
    failures[path] = str(error)
    print(f"split: {error}", file=sys.stderr)


def _summary(songs: Sequence[Song], rows: Sequence[manifest.Row], failures: Failures) -> str:
    """Return the numbers of songs, chunks and failures by genre, with the totals in the last line."""
    lines = []
    n_chunks = Counter((row.genre, row.split) for row in rows)
    n_songs = Counter((song.genre, song.split) for song in songs)
    for genre in sorted({song.genre for song in songs}):
        train, test = n_songs[genre, "train"], n_songs[genre, "test"]
        n_failed = sum(song.path in failures for song in songs if song.genre == genre)
        lines.append(
            f"  {genre}: {train + test} songs (train {train}, test {test}),"
            f" {n_chunks[genre, 'train']} + {n_chunks[genre, 'test']} chunks, {n_failed} failures"
        )
    return "\n".join([*lines, f"split: {len(songs)} songs, {len(rows)} chunks, {len(failures)} failures"])


def _check_genres(rows: Sequence[manifest.Row]) -> None:
    genres = {row.genre for row in rows}
    if not genres:
        raise DatasetError("no song of the data set could be decoded")
    for split in manifest.SPLITS:
        if missing := genres - {row.genre for row in rows if row.split == split}:
            raise DatasetError(f"the genre {min(missing)} has no song that could be decoded for {split}")


if __name__ == "__main__":
    run_command(main)
