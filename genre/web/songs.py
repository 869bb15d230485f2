"""The indexed songs that the page can play. No other file can be fetched."""

from __future__ import annotations

import functools
from pathlib import Path

from genre.audio import manifest
from genre.audio.manifest import Row
from genre.errors import DatasetError
from genre.paths import Paths

MEDIA_TYPES = {  # formats that browsers play; of a song in another format, the first chunk (wav) is played
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
}


def audio(paths: Paths, genre: str, song: str) -> Path | None:
    """Return the file of a song to play; None if it is not in chunks/index.csv or its file cannot be played."""
    row = _rows(paths).get((genre, song))
    return _playable(row, paths) if row else None


def examples(paths: Paths, count: int) -> list[Row]:
    """Return the first rows of at most `count` playable test songs, one per genre."""
    by_genre: dict[str, Row] = {}
    for row in _rows(paths).values():
        if row.split == "test" and row.genre not in by_genre and _playable(row, paths):
            by_genre[row.genre] = row
    return list(by_genre.values())[:count]


def _playable(row: Row, paths: Paths) -> Path | None:
    """Return the source of a song or its first chunk; None if a link leads out of the folder that it must be in."""
    data_set = paths.root.joinpath(*Path(row.source).parts[:2])  # may itself be a symbolic link
    for path, folder in ((paths.root / row.source, data_set), (paths.chunks / row.chunk, paths.chunks)):
        playable = path.suffix.lower() in MEDIA_TYPES and path.is_file()
        if playable and path.resolve().is_relative_to(folder.resolve()):
            return path
    return None


def _rows(paths: Paths) -> dict[tuple[str, str], Row]:
    """Return the first row of each song; the index is read again when it has changed."""
    try:
        status = (paths.chunks / manifest.INDEX_NAME).stat()
        return _read(paths.chunks, status.st_mtime_ns, status.st_size)
    except (OSError, DatasetError):  # no index: no song can be played
        return {}


@functools.lru_cache(maxsize=1)
def _read(chunks: Path, _mtime_ns: int, _size: int) -> dict[tuple[str, str], Row]:
    rows: dict[tuple[str, str], Row] = {}
    for row in manifest.read(chunks):  # which refuses paths outside chunks/ and dataset/
        rows.setdefault((row.genre, row.song), row)
    return rows
