"""The cache of finished work (.cache/): files or bytes by the digest of everything that they depend on."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from genre import parallel
from genre.files import digest, link_or_copy, read_json, sha256

Item = TypeVar("Item")

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"


@dataclass(frozen=True, slots=True)
class Cache:
    """A cache that several processes may use at a time.

    An entry is a folder of numbered files with a manifest: their SHA-256, the note, and a digest of both. It appears by
    one rename, and is checked when it is read: one that is damaged or of an earlier version is removed. Its files are
    hard links of those that it was stored from and restored to, where the file system allows.
    """

    folder: Path
    max_bytes: int

    def restore(self, key: str, target: Callable[[int], Path]) -> Any | None:
        """Restore the files of an entry, and return its note; None if there is no entry.

        `key` is as `files.digest` returns it, and `target` maps the number of a file to its path.
        """
        with contextlib.suppress(FileNotFoundError):  # another process has just removed the entry
            paths, note = self._checked(key) or ([], None)
            for number, path in enumerate(paths):
                link_or_copy(path, target(number))
            return note
        return None

    def store(self, key: str, paths: Sequence[Path], note: Any, *, replaces: Iterable[str] = ()) -> None:
        """Store files with a note, any JSON value but null, in place of other entries; log a warning if it cannot."""
        self._add(key, [functools.partial(link_or_copy, path) for path in paths], note)
        if self._entry(key).is_dir():
            for replaced in replaces:
                shutil.rmtree(self._entry(replaced), ignore_errors=True)

    def recall(self, key: str) -> bytes | None:
        """Return the bytes that `keep` stored, or None if there is no entry."""
        with contextlib.suppress(FileNotFoundError):
            if checked := self._checked(key):
                return checked[0][0].read_bytes()
        return None

    def keep(self, key: str, data: bytes) -> bytes:
        """Store bytes, as `store`, and return them."""
        self._add(key, [lambda path: path.write_bytes(data)], True)
        return data

    def run(
        self, compute: Callable[[Item], bytes], items: Sequence[tuple[str, Item]], **options: Any
    ) -> Iterator[bytes]:
        """Yield the result of `compute` for each item: from the cache, or computed by `parallel.run` and stored.

        `items` are pairs of key and item; `options` are those of `parallel.run`.
        """
        return parallel.run(
            functools.partial(self._compute, compute), items, recall=lambda item: self.recall(item[0]), **options
        )

    def starting(self, prefix: str) -> Iterator[tuple[str, list[Path], Any]]:
        """Yield key, files and note of the entries whose key starts with `prefix`, the least recently used first."""
        for entry, _ in self.entries():
            if entry.name.startswith(prefix) and (checked := self._checked(entry.name)):
                yield entry.name, *checked

    def entries(self) -> list[tuple[Path, int]]:
        """Return folder, and bytes in files without another link, of each entry, the least recently used first."""
        entries = []
        for entry in self.folder.glob("*/*"):
            with contextlib.suppress(OSError):  # another process may remove it meanwhile
                statuses = [file.stat() for file in entry.iterdir() if file.name != _MANIFEST]
                size = sum(status.st_size for status in statuses if status.st_nlink == 1)
                entries.append((entry.stat().st_mtime, entry, size))
        return [(entry, size) for _, entry, size in sorted(entries)]

    def trim(self) -> None:
        """Remove the least recently used entries until `max_bytes` remain, unfinished ones of dead processes too."""
        entries = self.entries()
        total = sum(size for _, size in entries)
        for entry, size in entries:
            if size and total > self.max_bytes:
                shutil.rmtree(entry, ignore_errors=True)
                total -= size

    def _compute(self, compute: Callable[[Item], bytes], item: tuple[str, Item]) -> bytes:
        return self.keep(item[0], compute(item[1]))

    def _checked(self, key: str) -> tuple[list[Path], Any] | None:
        """Return files and note of an entry; None if there is none, or if it is damaged."""
        entry = self._entry(key)
        try:
            manifest = read_json(entry / _MANIFEST)
            if manifest["digest"] != digest(key, manifest["sha256"], manifest["note"]):
                raise ValueError(f"{entry / _MANIFEST} is damaged")
            paths = [entry / str(number) for number in range(len(manifest["sha256"]))]
            for path, expected in zip(paths, manifest["sha256"], strict=True):
                if sha256(path) != expected:
                    raise ValueError(f"{path} is damaged")
        except (OSError, ValueError, KeyError, TypeError) as error:
            if entry.is_dir():
                level = logging.DEBUG if isinstance(error, KeyError) else logging.WARNING  # DEBUG: an earlier version
                log.log(level, "cache: %s; it is computed again", error)
                shutil.rmtree(entry, ignore_errors=True)
            return None
        with contextlib.suppress(OSError):  # the entry may be another user's
            os.utime(entry)  # time of last use
        return paths, manifest["note"]

    def _add(self, key: str, writers: Sequence[Callable[[Path], object]], note: Any) -> None:
        """Write an entry; each writer is called with the path of its file."""
        entry = self._entry(key)
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=entry.parent, prefix="unfinished", ignore_cleanup_errors=True) as name:
                temporary = Path(name)
                for number, write in enumerate(writers):
                    write(temporary / str(number))
                digests = [sha256(temporary / str(number)) for number in range(len(writers))]
                manifest = {"sha256": digests, "note": note, "digest": digest(key, digests, note)}
                (temporary / _MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")
                shutil.copymode(entry.parent, temporary)  # that of TemporaryDirectory is for its user only
                temporary.rename(entry)
        except OSError as error:
            if not entry.is_dir():  # otherwise another process has stored the same entry
                log.warning("cache: %s cannot be written (%s)", self.folder, error.strerror or error)

    def _entry(self, key: str) -> Path:
        return self.folder / key[:2] / key
