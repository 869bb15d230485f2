"""Divide the songs of the data set into train and test, and cut them into chunks of equal length.

python -m stages.split
dvc repro split      with the stages before it, if they changed
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import shutil
import statistics
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

from genre import archives, files, params
from genre.audio import chunks, corrections, dataset, division, ffmpeg, manifest
from genre.audio.dataset import Song
from genre.cache import Cache
from genre.cli import argument_parser, run_command
from genre.errors import AudioError, DatasetError, GenreError, WorkerError
from genre.parallel import run
from genre.paths import Paths
from genre.terminal import one_line

Failures = dict[Path, str]  # reason for each song that could not be read or decoded
PACK_ABOVE = 2000  # songs; with split.pack: null, more are packed (docs/data.md)
FEATURE_BYTES = 0.25  # of the CSVs, per byte of the chunks
N_SAMPLE = 20  # songs whose durations are measured, to estimate the disk space
SMALL_BYTES = 2e8  # of all songs; with fewer, the disk space is not estimated
ADTS_EXTENSIONS = (".aac", ".adts", ".m2ts", ".mts", ".ts")  # of files whose AAC packets have headers


@dataclass  # without slots, which Dask workers do not return
class SongChunks:
    """The chunks of a song."""

    source_sha256: str  # part of the key in the cache, where the other fields are the note
    spans: list[tuple[float, float]]  # start_s and seconds of each
    digests: list[str]  # SHA-256 of the encoded audio and of the samples of each chunk, in hexadecimal
    n_silent: int  # chunks that were left out


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: dataset/<name> -> chunks/."""
    argument_parser(__doc__).parse_args(argv)
    config, paths = params.load(), Paths()
    settings = config.split
    folder = paths.datasets / config.dataset.name
    in_folders = dataset.scan(folder)
    scanned = corrections.apply(in_folders, paths.corrections(config.dataset.name), folder)
    songs = dataset.divide_by_list(scanned, folder, test_list=settings.test_list, train_list=settings.train_list)
    shared = division.values(songs, folder, settings.group_by)
    pairs = corrections.read_duplicates(paths.corrections(f"{config.dataset.name}.duplicates"), in_folders, folder)
    _check_disk(songs, config, paths)
    pack = len(songs) > PACK_ABOVE if settings.pack is None else settings.pack
    cache = Cache(paths.cache, config.cache.max_bytes)
    store = archives.Archives([paths.chunks], cache, pack=pack)
    pieces, failures = _split_all(songs, config, paths, store)
    contents = {song.path: [of_song.source_sha256, *of_song.digests] for song, of_song in pieces.items()}
    original = division.originals(pieces, contents, pairs)
    if settings.duplicates == "drop":
        pieces = {song: of_song for song, of_song in pieces.items() if original[song.path] == song}
    group = division.groups(pieces, original, shared)
    if not all(song.split for song in pieces):
        divided = division.divide([*pieces], original, group, test_fraction=settings.test_fraction, seed=settings.seed)
        pieces = _move(pieces, divided, paths)
    division.check_no_leak(pieces, original, group)
    archive = {song: archives.name_of(f"{song.genre}/{song.name}", len(songs)) if pack else "" for song in pieces}
    rows = _rows(pieces, group, archive, paths)
    kept = store.write(
        (archive[song], _key(of_song.source_sha256, config), astuple(of_song)[1:], _chunk_paths(song, of_song, paths))
        for song, of_song in pieces.items()
    )
    manifest.write(paths.chunks, rows)
    table = sorted((path.as_posix(), reason) for path, reason in failures.items())
    files.write_table(paths.chunks / manifest.FAILURES_NAME, ["source", "reason"], table)
    tables = {paths.chunks / manifest.INDEX_NAME, paths.chunks / manifest.FAILURES_NAME}
    files.remove_others(paths.chunks, tables | kept)
    cache.trim()
    n_groups, of_folder = len(set(group.values())), {song.path: song.genre for song in in_folders}
    counts = {
        "groups": n_groups if n_groups < len(pieces) else 0,
        "corrected": sum(song.genre != of_folder[song.path] for song in scanned),
        "dropped": len(in_folders) - len(scanned),
        "copies dropped": len(original) - len(pieces),
        "silent chunks left out": sum(of_song.n_silent for of_song in pieces.values()),
        "other files skipped": sum(path.parent != folder for path in dataset.walk(folder)[1]),  # `folder` has lists
    }
    print(_summary(scanned, rows, failures, counts))
    if failures and settings.on_error == "fail":
        raise AudioError(f"{len(failures)} songs could not be split and split.on_error is fail: {table[0][1]}")
    _check_genres(songs, rows)
    return 0


def _move(pieces: Mapping[Song, SongChunks], songs: Sequence[Song], paths: Paths) -> dict[Song, SongChunks]:
    """Return the chunks of the songs after their division, and move the files accordingly."""
    for (undivided, of_song), song in zip(pieces.items(), songs, strict=True):
        for number, target in enumerate(_chunk_paths(song, of_song, paths)):
            target.parent.mkdir(parents=True, exist_ok=True)
            with contextlib.suppress(FileNotFoundError):  # it is in an archive in the cache
                _chunk_path(number, undivided, paths).replace(target)
    return dict(zip(songs, pieces.values(), strict=True))


def _check_disk(songs: Sequence[Song], config: params.Params, paths: Paths) -> None:
    """Print the disk space that chunks and features will take, from a sample of the songs, unless these are small.

    Raises DatasetError if it is not there.
    """
    if sum(song.path.stat().st_size for song in songs) <= SMALL_BYTES:
        return
    durations = []
    for song in songs[:: -(-len(songs) // N_SAMPLE)]:
        with contextlib.suppress(AudioError):
            durations.append(ffmpeg.decoded_seconds(song.path))
    n_bytes = 2 * (1 + FEATURE_BYTES) * config.split.sample_rate * statistics.fmean(durations or [0.0]) * len(songs)
    n_done = sum(path.stat().st_size for path in paths.cache.rglob("*") if path.is_file())
    free = shutil.disk_usage(paths.root).free
    text = f"chunks and features take about {n_bytes / 1e9:.3g} GB, as much again in .cache/ and, unless linked, .dvc/"
    if n_bytes - n_done > free:
        raise DatasetError(f"the disk has {free / 1e9:.3g} GB, too few for {len(songs)} songs: their {text}")
    print(f"split: {text}; {free / 1e9:.3g} GB are free")
    if n_bytes > config.cache.max_bytes:
        print(f"split: set cache.max_bytes above {n_bytes:.2g} in params.yaml, or later runs may compute songs again")


def _split_all(
    songs: Sequence[Song], config: params.Params, paths: Paths, store: archives.Archives
) -> tuple[dict[Song, SongChunks], Failures]:
    """Return the chunks of each song that could be decoded, and the reasons for the others, which are printed."""
    split_song = functools.partial(_split_song, config=config, paths=paths)

    def recall(song: Song) -> SongChunks | None:
        with contextlib.suppress(AudioError):  # which `split_song` raises, too
            digest = _sha256(song.path)
            note = store.restore(_key(digest, config), functools.partial(_chunk_path, song=song, paths=paths))
            return None if note is None else SongChunks(digest, *note)
        return None

    results = run(split_song, songs, description="split", recall=recall, keep_errors=True, **dict(config.parallel))
    decoded, failures = {}, {}
    for song, result in zip(songs, results, strict=True):
        if isinstance(result, GenreError):
            reason = f"{song.path}: {result}" if isinstance(result, WorkerError) else str(result)
            failures[song.path] = reason
            print(one_line(f"split: {reason}"), file=sys.stderr)
        else:
            decoded[song] = result
    return decoded, failures


def _rows(
    pieces: Mapping[Song, SongChunks], group: Mapping[Path, str], archive: Mapping[Song, str], paths: Paths
) -> list[manifest.Row]:
    """Return a row for each chunk."""
    return [
        manifest.Row(
            chunk=Path(archive[song], path.relative_to(paths.chunks)).as_posix(),
            song=song.name,
            genre=song.genre,
            split=song.split,
            start_s=start_s,
            seconds=seconds,
            source=song.path.relative_to(paths.root).as_posix(),
            source_sha256=of_song.source_sha256,
            group=group[song.path],
        )
        for song, of_song in pieces.items()
        for path, (start_s, seconds) in zip(_chunk_paths(song, of_song, paths), of_song.spans, strict=True)
    ]


def _split_song(song: Song, config: params.Params, paths: Paths) -> SongChunks:
    """Write the chunks of one song, cache them, and return them."""
    of_song, split = SongChunks(_sha256(song.path), [], _encoded_digests(song.path), 0), config.split
    for chunk in chunks.iterate(
        song.path, sample_rate=split.sample_rate, chunk_seconds=split.chunk_seconds, min_seconds=split.min_seconds
    ):
        if chunk.is_silent:
            of_song.n_silent += 1
            continue
        chunks.write(_chunk_path(len(of_song.spans), song, paths), chunk.samples, sample_rate=split.sample_rate)
        of_song.spans.append((round(chunk.start_s, 6), round(chunk.seconds, 6)))
        of_song.digests.append(hashlib.sha256(chunk.samples.tobytes()).hexdigest())
    if not of_song.spans:
        raise AudioError(f"{song.path}: {chunks.SILENT_MESSAGE}")
    if not song.path.is_file() or _sha256(song.path) != of_song.source_sha256:  # the cache key would not match
        raise AudioError(f"{song.path}: changed while it was read: run again when the file is complete")
    cache, key = Cache(paths.cache, config.cache.max_bytes), _key(of_song.source_sha256, config)
    cache.store(key, _chunk_paths(song, of_song, paths), astuple(of_song)[1:])
    return of_song


def _sha256(path: Path) -> str:
    try:
        return files.sha256(path)
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror})") from None


def _encoded_digests(path: Path) -> list[str]:
    """Return the SHA-256 of the encoded audio of a file, which tags and most containers do not change."""
    filters = ["aac_adtstoasc", None] if path.suffix.lower() in ADTS_EXTENSIONS else [None]
    for bitstream_filter in filters:
        with contextlib.suppress(AudioError):  # another codec, or a damaged file
            return [ffmpeg.stream_hash(path, bitstream_filter=bitstream_filter)]
    return []


def _chunk_path(number: int, song: Song, paths: Paths) -> Path:
    return paths.chunks / song.split / dataset.safe_name(song.genre) / f"{song.name}-{number:03d}.wav"


def _chunk_paths(song: Song, of_song: SongChunks, paths: Paths) -> list[Path]:
    return [_chunk_path(number, song, paths) for number in range(len(of_song.spans))]


def _key(digest: str, config: params.Params) -> str:
    split = config.split
    lengths = (split.sample_rate, split.chunk_seconds, split.min_seconds)
    return files.digest("split", chunks.VERSION, ffmpeg.version(), digest, *lengths)


def _summary(scanned: Sequence[Song], rows: Sequence[manifest.Row], failures: Failures, counts: dict[str, int]) -> str:
    """Return the numbers of songs, chunks and failures by genre, with the totals and `counts` in the last line."""
    lines = []
    n_chunks = Counter((row.genre, row.split) for row in rows)
    n_songs = Counter((genre, split) for genre, split, _ in {(row.genre, row.split, row.song) for row in rows})
    for genre in sorted({song.genre for song in scanned}):
        train, test = n_songs[genre, "train"], n_songs[genre, "test"]
        n_failed = sum(song.path in failures for song in scanned if song.genre == genre)
        lines.append(
            f"  {genre}: {train + test} songs (train {train}, test {test}),"
            f" {n_chunks[genre, 'train']} + {n_chunks[genre, 'test']} chunks, {n_failed} failures"
        )
    others = "".join(f"{n} {what}, " for what, n in counts.items() if n)
    return "\n".join([*lines, f"split: {n_songs.total()} songs, {len(rows)} chunks, {others}{len(failures)} failures"])


def _check_genres(songs: Sequence[Song], rows: Sequence[manifest.Row]) -> None:
    """Raise DatasetError if a genre of `songs` has no chunk in a split."""
    genres = {song.genre for song in songs}
    if not rows:
        raise DatasetError("no song of the data set could be decoded")
    for split in manifest.SPLITS:
        if missing := genres - {row.genre for row in rows if row.split == split}:
            raise DatasetError(
                f"the genre {min(missing)} has no song that could be decoded for {split}: add one to its folder or list"
            )


if __name__ == "__main__":
    run_command(main)
