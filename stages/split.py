"""Cut the songs of the data set into chunks of equal length, and divide them into train and test by song.

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
from genre.paths import Paths

CHUNKS = Path("chunks")

Spans = list[tuple[float, float]]  # start in the song and seconds of it, of each chunk


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: dataset/<name> -> chunks/. With --shard, only put a part of the songs into the cache."""
    parser = argparse.ArgumentParser(prog="python -m stages.split", description=__doc__.splitlines()[0])
    add_shard_option(parser)
    shard = parser.parse_args(argv).shard
    settings = params.load()
    songs, digests, failures = _divided(Path("dataset", settings.dataset.name), settings)
    if shard:
        mine = shard.of(songs)
        n_chunks = len(_split_all(mine, digests, settings, failures))
        print(f"split: shard {shard}: {len(mine)} songs, {n_chunks} chunks; `dvc repro` gathers them")
        return 0
    rows = _split_all(songs, digests, settings, failures)
    dataset.check_no_leak((row.split, row.source_sha256, row.source) for row in rows)
    CHUNKS.mkdir(exist_ok=True)
    manifest.write(CHUNKS, rows)
    table = sorted((path.as_posix(), reason) for path, reason in failures.items())
    files.write_table(CHUNKS / manifest.FAILURES_NAME, ["source", "reason"], table)
    own = {CHUNKS / manifest.INDEX_NAME, CHUNKS / manifest.FAILURES_NAME}
    files.remove_others(CHUNKS, {CHUNKS / row.chunk for row in rows} | own)
    _cache(settings).trim()
    print(_summary(songs, rows, failures))
    if failures and settings.split.on_error == "fail":
        raise AudioError(f"{len(failures)} songs could not be split and split.on_error is fail: {table[0][1]}")
    _check_sides(rows)
    return 0


def _divided(folder: Path, settings: params.Params) -> tuple[list[Song], dict[Path, str], dict[Path, str]]:
    """Return the songs with their sides, the SHA-256 of each, and the reason of each that cannot be read."""
    split = settings.split
    songs = dataset.scan(folder)
    paths = [song.path for song in songs]
    hashed = run(_digest, paths, description="hash", workers=1)
    digests: dict[Path, str] = {}
    failures: dict[Path, str] = {}
    for path, digest in zip(paths, hashed, strict=True):
        if isinstance(digest, GenreError):
            _report(failures, path, digest)
        else:
            digests[path] = digest
    if split.test_list or split.train_list:
        if songs[0].side:
            raise DatasetError(f"{folder}/ has train/ and test/ folders: set split.test_list and train_list to null")
        songs = dataset.divide_by_list(songs, folder, test_list=split.test_list, train_list=split.train_list)
    elif not songs[0].side:
        readable = [song for song in songs if song.path in digests]
        songs = dataset.divide(readable, digests, test_fraction=split.test_fraction, seed=split.seed)
    return songs, digests, failures


def _digest(path: Path) -> str:
    try:
        return files.sha256(path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror})") from error


def _split_all(
    songs: Sequence[Song], digests: dict[Path, str], settings: params.Params, failures: dict[Path, str]
) -> list[manifest.Row]:
    """Split every song; return the rows of the index, and add the songs that failed to `failures`."""
    readable = [song for song in songs if song.path in digests]
    work = [(song, digests[song.path]) for song in readable]
    results = run(
        functools.partial(_split_song, settings=settings),
        work,
        description="split",
        workers=settings.parallel.workers,
        scheduler=settings.parallel.scheduler,
        known=functools.partial(_restore, settings=settings),
        audio_seconds=lambda spans: sum(seconds for _, seconds in spans),
    )
    rows: list[manifest.Row] = []
    for song, spans in zip(readable, results, strict=True):
        if isinstance(spans, GenreError):
            _report(failures, song.path, spans)
            continue
        for number, (start_s, seconds) in enumerate(spans):
            chunk = _chunk_path(song, number).relative_to(CHUNKS).as_posix()
            source = song.path.as_posix()
            digest = digests[song.path]
            rows.append(manifest.Row(chunk, song.name, song.genre, song.side, start_s, seconds, source, digest))
    return rows


def _split_song(work: tuple[Song, str], settings: params.Params) -> Spans:
    """Write the chunks of one song and keep them in the cache; return start and seconds of each."""
    song, digest = work
    split = settings.split
    spans: Spans = []
    try:
        for number, chunk in enumerate(
            chunks.iterate(
                song.path,
                sample_rate=split.sample_rate,
                chunk_seconds=split.chunk_seconds,
                min_seconds=split.min_seconds,
            )
        ):
            spans.append((round(chunk.start_s, 6), round(chunk.seconds, 6)))
            chunks.write(_chunk_path(song, number), chunk.samples, sample_rate=split.sample_rate)
        if _digest(song.path) != digest:  # what was cut is not what the cache would know it as
            raise AudioError(f"{song.path}: changed while it was read: run again when it is whole")
    except GenreError:
        for number in range(len(spans)):
            _chunk_path(song, number).unlink(missing_ok=True)
        raise
    key = _key(digest, split)
    _cache(settings).store(key, [_chunk_path(song, number) for number in range(len(spans))], spans)
    return spans


def _restore(work: tuple[Song, str], settings: params.Params) -> Spans | None:
    """Take the chunks of one song out of the cache, if they are there."""
    song, digest = work
    spans = _cache(settings).restore(_key(digest, settings.split), functools.partial(_chunk_path, song))
    return None if spans is None else [(float(start_s), float(seconds)) for start_s, seconds in spans]


def _chunk_path(song: Song, number: int) -> Path:
    return CHUNKS / song.side / dataset.safe_name(song.genre) / f"{song.name}-{number:03d}.wav"


def _key(digest: str, settings: params.SplitParams) -> str:
    cut = (settings.sample_rate, settings.chunk_seconds, settings.min_seconds)
    return files.digest("split", chunks.VERSION, ffmpeg.version(), digest, *cut)


def _cache(settings: params.Params) -> Cache:
    return Cache(Paths().cache, settings.cache.max_bytes)


def _report(failures: dict[Path, str], path: Path, error: GenreError) -> None:
    failures[path] = str(error)
    print(f"split: {error}", file=sys.stderr)


def _summary(songs: Sequence[Song], rows: Sequence[manifest.Row], failures: dict[Path, str]) -> str:
    """Return songs, chunks and failures of each genre, and of all in the last line."""
    lines = []
    n_chunks = Counter((row.genre, row.split) for row in rows)
    for genre in sorted({song.genre for song in songs}):
        of_genre = [song for song in songs if song.genre == genre]
        n_failed = sum(song.path in failures for song in of_genre)
        sides = (f"{side} {sum(s.side == side for s in of_genre)}" for side in manifest.SIDES)
        counts = f"{n_chunks[genre, 'train']} + {n_chunks[genre, 'test']}"
        lines.append(f"  {genre}: {len(of_genre)} songs ({', '.join(sides)}), {counts} chunks, {n_failed} failures")
    return "\n".join([*lines, f"split: {len(songs)} songs, {len(rows)} chunks, {len(failures)} failures"])


def _check_sides(rows: Sequence[manifest.Row]) -> None:
    genres = {row.genre for row in rows}
    if not genres:
        raise DatasetError("no song of the data set could be decoded")
    for side in manifest.SIDES:
        if missing := genres - {row.genre for row in rows if row.split == side}:
            raise DatasetError(f"the genre {min(missing)} has no song that could be decoded for {side}")


if __name__ == "__main__":
    run_command(main)
