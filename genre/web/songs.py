"""The indexed songs that the page can play. Only they can be fetched, by genre and name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from genre.audio import manifest
from genre.errors import DatasetError
from genre.paths import Paths

MEDIA_TYPES = {  # formats that browsers play; of a song in another format, its first chunk (wav) is played
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
    candidates: tuple[tuple[Path, Path], ...]  # each file with the folder that it must lie in

    @property
    def audio(self) -> Path | None:
        """The file to play; None if there is none that a browser plays or if a link leads out of its folder."""
        for path, folder in self.candidates:
            playable = path.suffix.lower() in MEDIA_TYPES and path.is_file()
            if playable and path.resolve().is_relative_to(folder.resolve()):
                return path
        return None


class Songs:
    """The songs of chunks/index.csv, read again when the file changes."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._version: tuple[int, int] | None = None
        self._songs: dict[tuple[str, str], IndexedSong] = {}

    def get(self, genre: str, song: str) -> IndexedSong | None:
        """Return a song, or None if it is not in the index."""
        return self._read().get((genre, song))

    def examples(self, count: int) -> list[IndexedSong]:
        """Return at most `count` playable test songs, one per genre."""
        by_genre: dict[str, IndexedSong] = {}
        for song in self._read().values():
            if song.split == "test" and song.genre not in by_genre and song.audio:
                by_genre[song.genre] = song
        return list(by_genre.values())[:count]

    def _read(self) -> dict[tuple[str, str], IndexedSong]:
        try:
            status = (self._paths.chunks / manifest.INDEX_NAME).stat()
            version = (status.st_mtime_ns, status.st_size)
            if version != self._version:
                self._songs, self._version = self._load(), version
        except (OSError, DatasetError):  # no index: no song can be played
            self._songs, self._version = {}, None
        return self._songs

    def _load(self) -> dict[tuple[str, str], IndexedSong]:
        songs: dict[tuple[str, str], IndexedSong] = {}
        for row in manifest.read(self._paths.chunks):  # it refuses paths outside of chunks/ and dataset/
            source, chunk = Path(row.source), self._paths.chunks / row.chunk
            data_set = self._paths.root.joinpath(*source.parts[:2])  # may itself be a symbolic link
            candidates = ((self._paths.root / source, data_set), (chunk, self._paths.chunks))
            songs.setdefault((row.genre, row.song), IndexedSong(row.song, row.genre, row.split, candidates))
        return songs
