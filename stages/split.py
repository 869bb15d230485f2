"""Cut the songs of the data set into chunks of equal length, and divide them into train and test by song.

    python -m stages.split
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from stages import files, params
from stages.audio import chunks, collection, index
from stages.audio.collection import Song
from stages.commands import run_command
from stages.errors import AudioError, DatasetError, GenreError
from stages.parallel import run

CHUNKS = Path("chunks")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: dataset/<name> -> chunks/."""
    parser = argparse.ArgumentParser(prog="python -m stages.split", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    settings = params.load()
    folder = Path("dataset", settings.dataset.name)
    songs, digests = _divided(folder, settings)
    rows, failures = _split_all(songs, digests, settings)
    collection.check_no_leak((row.split, row.source_sha256, row.source) for row in rows)
    CHUNKS.mkdir(exist_ok=True)
    index.write(CHUNKS, rows)
    files.write_table(CHUNKS / index.FAILURES_NAME, ["source", "reason"], failures)
    own = {CHUNKS / index.INDEX_NAME, CHUNKS / index.FAILURES_NAME}
    files.remove_others(CHUNKS, {CHUNKS / row.chunk for row in rows} | own)
    print(_summary(songs, rows, {Path(source) for source, _ in failures}))
    if failures and settings.split.on_error == "fail":
        raise AudioError(f"{len(failures)} songs could not be split (split.on_error is fail): {failures[0][1]}")
    _check_sides(rows)
    return 0


def _divided(folder: Path, settings: params.Params) -> tuple[list[Song], dict[Path, str]]:
    """Return the songs with their sides, and the SHA-256 of each."""
    split = settings.split
    songs = collection.scan(folder)
    paths = [song.path for song in songs]
    hashed = run(files.sha256, paths, description="hash", workers=settings.parallel.workers)
    digests = {path: digest for path, digest in zip(paths, hashed, strict=True) if isinstance(digest, str)}
    if split.test_list or split.train_list:
        if songs[0].side:
            raise DatasetError(f"{folder}/ has train/ and test/ folders: set split.test_list and train_list to null")
        songs = collection.divide_by_list(songs, folder, test_list=split.test_list, train_list=split.train_list)
    elif not songs[0].side:
        songs = collection.divide(songs, digests, test_fraction=split.test_fraction, seed=split.seed)
    return songs, digests


def _split_all(
    songs: Sequence[Song], digests: dict[Path, str], settings: params.Params
) -> tuple[list[index.Row], list[tuple[str, str]]]:
    """Split every song; return the rows of the index, and (source, reason) of the songs that failed."""
    split_one = functools.partial(_split_song, settings=settings.split)
    rows: list[index.Row] = []
    failures: list[tuple[str, str]] = []
    results = run(split_one, songs, description="split", workers=settings.parallel.workers)
    for song, result in zip(songs, results, strict=True):
        if isinstance(result, GenreError):
            failures.append((song.path.as_posix(), str(result)))
            print(f"split: {result}", file=sys.stderr)
            continue
        for chunk, start_s, seconds in result:
            source = song.path.as_posix()
            digest = digests[song.path]
            rows.append(index.Row(chunk, song.name, song.genre, song.side, start_s, seconds, source, digest))
    return rows, failures


def _split_song(song: Song, settings: params.SplitParams) -> list[tuple[str, float, float]]:
    """Write the chunks of one song; return (path below chunks/, start, seconds) of each."""
    written: list[tuple[str, float, float]] = []
    try:
        for number, chunk in enumerate(
            chunks.iterate(
                song.path,
                sample_rate=settings.sample_rate,
                chunk_seconds=settings.chunk_seconds,
                min_seconds=settings.min_seconds,
            )
        ):
            name = f"{song.side}/{collection.safe_name(song.genre)}/{song.name}-{number:03d}.wav"
            chunks.write(CHUNKS / name, chunk.samples, sample_rate=settings.sample_rate)
            written.append((name, round(chunk.start_s, 6), round(chunk.seconds, 6)))
    except GenreError:
        for name, _, _ in written:
            (CHUNKS / name).unlink(missing_ok=True)
        raise
    return written


def _summary(songs: Sequence[Song], rows: Sequence[index.Row], failed: set[Path]) -> str:
    lines = []
    n_chunks = Counter((row.genre, row.split) for row in rows)
    for genre in sorted({song.genre for song in songs}):
        of_genre = [song for song in songs if song.genre == genre]
        n_failed = sum(song.path in failed for song in of_genre)
        sides = (f"{side} {sum(s.side == side for s in of_genre)}" for side in collection.SIDES)
        counts = f"{n_chunks[genre, 'train']} + {n_chunks[genre, 'test']}"
        lines.append(f"  {genre}: {len(of_genre)} songs ({', '.join(sides)}), {counts} chunks, {n_failed} failures")
    return "\n".join([*lines, f"split: {len(songs)} songs, {len(rows)} chunks, {len(failed)} failures"])


def _check_sides(rows: Sequence[index.Row]) -> None:
    genres = {row.genre for row in rows}
    if not genres:
        raise DatasetError("no song of the data set could be decoded")
    for side in collection.SIDES:
        if missing := genres - {row.genre for row in rows if row.split == side}:
            raise DatasetError(f"the genre {min(missing)} has no song that could be decoded for {side}")


if __name__ == "__main__":
    run_command(main)
