"""The indexed songs that the page can play. No other file can be fetched."""

from __future__ import annotations

import contextlib
from pathlib import Path

from genre.audio import manifest
from genre.errors import DatasetError
from genre.paths import Paths

# Formats that browsers play; of a song in another format, the first chunk (wav) is played
MEDIA_TYPES = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".m4a": "audio/mp4"}
MEDIA_TYPES |= dict.fromkeys((".ogg", ".oga", ".opus"), "audio/ogg")

Index = dict[tuple[str, str], manifest.Row]  # first chunk of each song, by genre and name


def read(paths: Paths) -> Index:
    """Return the songs of chunks/index.csv; none if it is missing or damaged."""
    index: Index = {}
    with contextlib.suppress(DatasetError):
        for row in manifest.read(paths.chunks):  # which refuses paths outside chunks/ and dataset/
            index.setdefault((row.genre, row.song), row)
    return index


def examples(index: Index, paths: Paths, count: int) -> list[manifest.Row]:
    """Return the first rows of at most `count` playable test songs, one per genre."""
    by_genre: dict[str, manifest.Row] = {}
    for row in index.values():
        if row.split == "test" and row.genre not in by_genre and playable(row, paths):
            by_genre[row.genre] = row
    return list(by_genre.values())[:count]


def playable(row: manifest.Row, paths: Paths) -> Path | None:
    """Return the source of a song or its first chunk; None if a link leads out of the folder that it must be in."""
    data_set = paths.root.joinpath(*Path(row.source).parts[:2])  # may itself be a symbolic link
    for path, folder in ((paths.root / row.source, data_set), (paths.chunks / row.chunk, paths.chunks)):
        has_format = path.suffix.lower() in MEDIA_TYPES and path.is_file()
        if has_format and path.resolve().is_relative_to(folder.resolve()):
            return path
    return None
