"""The indexed songs that the page can play. No other file can be fetched."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from pathlib import Path

from genre.audio import manifest
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


@dataclass(frozen=True, slots=True)
class IndexedSong:
    """A song of chunks/index.csv."""

    song: str
    genre: str
    split: str  # train or test
    files: tuple[tuple[Path, Path], ...]  # files to play, by preference, each with the folder that it must be in

    @property
    def audio(self) -> Path | None:
        """The file to play; None if no format is playable or a link leads out of its folder."""
        for path, folder in self.files:
            playable = path.suffix.lower() in MEDIA_TYPES and path.is_file()
            if playable and path.resolve().is_relative_to(folder.resolve()):
                return path
        return None


class Songs:
    """The songs of chunks/index.csv, read again when the file changes."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths

    def get(self, genre: str, song: str) -> IndexedSong | None:
        """Return a song, or None if it is not in the index."""
        return self._songs().get((genre, song))

    def examples(self, count: int) -> list[IndexedSong]:
        """Return at most `count` playable test songs, one per genre."""
        by_genre: dict[str, IndexedSong] = {}
        for song in self._songs().values():
            if song.split == "test" and song.genre not in by_genre and song.audio:
                by_genre[song.genre] = song
        return list(by_genre.values())[:count]

    def _songs(self) -> dict[tuple[str, str], IndexedSong]:
        try:
            status = (self._paths.chunks / manifest.INDEX_NAME).stat()
            return _read(self._paths, status.st_mtime_ns, status.st_size)
        except (OSError, DatasetError):  # no index: no song can be played
            return {}


@functools.lru_cache(maxsize=1)
def _read(paths: Paths, _mtime_ns: int, _size: int) -> dict[tuple[str, str], IndexedSong]:
    songs: dict[tuple[str, str], IndexedSong] = {}
    for row in manifest.read(paths.chunks):  # it refuses paths outside chunks/ and dataset/
        source, chunk = Path(row.source), paths.chunks / row.chunk
        data_set = paths.root.joinpath(*source.parts[:2])  # may itself be a symbolic link
        files = ((paths.root / source, data_set), (chunk, paths.chunks))
        songs.setdefault((row.genre, row.song), IndexedSong(row.song, row.genre, row.split, files))
    return songs
