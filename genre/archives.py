"""A few archives in place of many files: uncompressed zip files, each with the files of 50 to 100 songs.

A file in an archive has a path below it, such as chunks/00003-of-00512.zip/train/blues/song-000.wav.
"""

from __future__ import annotations

import functools
import zipfile
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from genre import files
from genre.cache import Cache
from genre.errors import DatasetError
from genre.terminal import progress

MAX_SONGS = 100  # mean number of songs in an archive; with more, there are twice as many archives
Entry = tuple[str, str, Any, Sequence[Path]]  # name of the archive, and key, note and files as in the cache


class Archives:
    """The archives in the folders of a stage, if `pack`, and those of earlier runs in the cache, which are checked.

    An entry of the cache has one archive of each folder, and replaces the entries in them. Its note is their contents:
    the key, the note and the paths of the files of each, as <folder>/<split>/<genre>/<file>.
    """

    def __init__(self, folders: Sequence[Path], cache: Cache, *, pack: bool) -> None:
        self._folders, self._cache, self._pack, self._prefix = folders, cache, pack, f"{folders[0].name}-"
        self._cached: dict[str, list[Path]] = {}  # archives by the key of their entry
        self._entries: dict[str, tuple[Any, list[Path]]] = {}  # note and files of each entry in them, by its key
        for archives_key, archives, contents in progress(cache.starting(self._prefix), desc="check", leave=False):
            self._cached[archives_key] = archives
            of_folder = {folder.name: archive for folder, archive in zip(folders, archives, strict=True)}
            for key, note, members in contents:
                self._entries[key] = note, [of_folder[folder].joinpath(*parts) for folder, *parts in members]

    def restore(self, key: str, target: Callable[[int], Path]) -> Any | None:
        """Return the note of an entry, and restore its files as `Cache.restore`, unless `pack` and in an archive."""
        if key not in self._entries:
            return self._cache.restore(key, target)
        note, sources = self._entries[key]
        for number, source in enumerate([] if self._pack else sources):
            files.write_bytes(target(number), read_bytes(source))
        return note

    def write(self, entries: Iterable[Entry]) -> set[Path]:
        """Return the paths of the files of all entries, or, if `pack`, of the archives that these are moved to."""
        if not self._pack:
            return {path for *_, paths in entries for path in paths}
        of_archives: defaultdict[str, list[Entry]] = defaultdict(list)
        for entry in entries:
            of_archives[entry[0]].append(entry)
        for name in progress(of_archives, desc="pack", leave=False):
            self._write([folder / name for folder in self._folders], of_archives[name])
        return {folder / name for folder in self._folders for name in of_archives}

    def _write(self, archives: Sequence[Path], entries: Sequence[Entry]) -> None:
        """Write the archives of one name, or link those in the cache that have the same contents."""
        contents = [[key, note, [path.parts[-4:] for path in paths]] for _, key, note, paths in entries]
        archives_key = self._prefix + files.digest(contents)
        if archives_key in self._cached:
            for cached, archive in zip(self._cached[archives_key], archives, strict=True):
                files.link_or_copy(cached, archive)
            return
        sources: dict[Path, Path] = {}
        for _, key, note, paths in entries:
            sources |= zip(paths, self._entries.get(key, (note, paths))[1], strict=True)
        for folder, archive in zip(self._folders, archives, strict=True):
            with files.atomic_path(archive) as temporary, zipfile.ZipFile(temporary, "w") as stream:
                for path in sorted(path for path in sources if folder in path.parents):
                    member = zipfile.ZipInfo(path.relative_to(folder).as_posix())  # of 1980-01-01
                    member.external_attr = 0o644 << 16  # permissions
                    stream.writestr(member, read_bytes(sources[path]))
        self._cache.store(archives_key, archives, contents, replaces=[key for _, key, _, _ in entries])
        for path in sources:
            path.unlink(missing_ok=True)


def name_of(song_id: str, n_songs: int) -> str:
    """Return the name of the archive of a song, given its `Row.song_id` and the number of songs of the data set."""
    n_archives = 1 << ((n_songs - 1) // MAX_SONGS).bit_length()
    return f"{int(files.digest(song_id), 16) % n_archives:05d}-of-{n_archives:05d}.zip"


def read_bytes(path: Path, stage: str = "split") -> bytes:
    """Return the contents of a file, in an archive or not.

    Raises OSError if a file cannot be read; DatasetError, which names the archive and `stage`, if that is damaged.
    """
    if (archive := archive_of(path)) is None:
        return path.read_bytes()
    with files.reading(archive, DatasetError, stage):
        return _opened(archive, archive.stat().st_mtime_ns).read(path.relative_to(archive).as_posix())


def archive_of(path: Path) -> Path | None:
    """Return the archive that a file is in, or None."""
    return next((parent for parent in path.parents if parent.is_file()), None)


@functools.lru_cache(maxsize=16)
def _opened(archive: Path, _mtime_ns: int) -> zipfile.ZipFile:
    return zipfile.ZipFile(archive)
