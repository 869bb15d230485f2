"""The indexed songs that the page lets people listen to, by the SHA-256 of their files; nothing else can be fetched."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fastapi import FastAPI, HTTPException
from fastapi.responses import FileResponse

from genre.audio import manifest
from genre.errors import DatasetError

CHUNKS = Path("chunks")
DATASETS = Path("dataset")
MEDIA_TYPES = {  # what browsers play; of a song in another format its first chunk is played, a wav
    ".wav": "audio/wav",
    ".mp3": "audio/mpeg",
    ".flac": "audio/flac",
    ".ogg": "audio/ogg",
    ".oga": "audio/ogg",
    ".opus": "audio/ogg",
    ".m4a": "audio/mp4",
}


@dataclass(frozen=True, slots=True)
class Song:
    """An indexed song."""

    sha256: str
    song: str
    genre: str
    side: str  # train or test
    source: Path
    first_chunk: Path
    data_set: Path  # the folder, which may be a link itself

    @property
    def audio(self) -> Path | None:
        """The file to listen to; None if there is none here that a browser plays."""
        found = (self.source, self.first_chunk)
        return next((path for path in found if path.suffix.lower() in MEDIA_TYPES and self._is_own(path)), None)

    def _is_own(self, path: Path) -> bool:
        """Return whether it is a file that no link below its data set leads out of: there, anything may be."""
        home = self.data_set if path == self.source else self.first_chunk.parents[2]
        return path.is_file() and path.resolve().is_relative_to(home.resolve())


class Library:
    """The songs of chunks/index.csv, read again when it changes."""

    def __init__(self, root: Path = Path()) -> None:
        """Name the project's folder."""
        self._root = root
        self._read_at: tuple[int, int] | None = None
        self._songs: dict[str, Song] = {}

    def songs(self) -> dict[str, Song]:
        """Return the songs by SHA-256; none where the index is missing or damaged."""
        path = self._root / CHUNKS / manifest.INDEX_NAME
        try:
            state = path.stat()
            changed = (state.st_mtime_ns, state.st_size)
            if changed != self._read_at:
                self._songs = self._read()
                self._read_at = changed
        except (OSError, DatasetError):
            self._songs, self._read_at = {}, None
        return self._songs

    def find(self, genre: str, song: str) -> Song | None:
        """Return a song by its names."""
        return next((s for s in self.songs().values() if (s.genre, s.song) == (genre, song)), None)

    def examples(self, n: int) -> Sequence[Song]:
        """Return at most `n` songs to try, of the test side and of as many genres as there are."""
        by_genre: dict[str, Song] = {}
        for song in self.songs().values():
            if song.side == "test" and song.audio:
                by_genre.setdefault(song.genre, song)
        return list(by_genre.values())[:n]

    def _read(self) -> dict[str, Song]:
        found: dict[str, Song] = {}
        for row in manifest.read(self._root / CHUNKS):
            source, chunk = Path(row.source), CHUNKS / row.chunk
            if _below(source, DATASETS) and _below(chunk, CHUNKS):
                data_set = self._root.joinpath(*source.parts[:2])
                made = (row.song, row.genre, row.split, self._root / source, self._root / chunk, data_set)
                found.setdefault(row.source_sha256, Song(row.source_sha256, *made))
        return found


def serve_songs(app: FastAPI, library: Library, path: str) -> None:
    """Add the route `path`/{sha256} that sends a song of the library."""

    @app.get(path + "/{sha256}", include_in_schema=False)
    def song(sha256: str) -> FileResponse:
        found = library.songs().get(sha256)
        audio = found.audio if found else None
        if audio is None:
            raise HTTPException(404, "there is no such song")
        headers = {"X-Content-Type-Options": "nosniff", "Cache-Control": "private, max-age=3600"}
        return FileResponse(audio, media_type=MEDIA_TYPES[audio.suffix.lower()], headers=headers)


def _below(path: Path, folder: Path) -> bool:
    """Return whether a path of the index lies in the folder, as it is written: a data set may be a symbolic link."""
    return Path(os.path.normpath(path)).is_relative_to(folder)
