"""The cache of results in .cache/: files by the digest of their inputs and settings, verified when they are read."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genre.files import link_or_copy, read_json, sha256

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_UNFINISHED = "unfinished-"
_UNFINISHED_S = 24 * 3600


@dataclass(frozen=True, slots=True)
class Cache:
    """Results of finished work by key; safe for several processes at a time.

    An entry is a folder with numbered files and a manifest of their SHA-256. It is renamed into place when it is
    complete and verified when it is read: a damaged entry is removed and treated as absent. Files are hard links to
    the originals where the file system has them.
    """

    folder: Path
    max_bytes: int

    def restore(self, key: str, target: Callable[[int], Path]) -> Any | None:
        """Write the files of an entry to their targets; return the note of the entry, or None without an entry.

        Parameters
        ----------
        key : str
            A digest made by `files.digest`.
        target : callable
            Returns the target path of a file number.
        """
        entry = self._entry(key)
        if (content := self._verified(entry)) is None:
            return None
        n_files, note = content
        try:
            for number in range(n_files):
                link_or_copy(entry / str(number), target(number))
        except FileNotFoundError:  # removed by another process
            return None
        return note

    def store(self, key: str, paths: Sequence[Path], note: Any) -> None:
        """Store files and a note (a JSON value other than null) as an entry.

        A cache that cannot be written is reported as a warning.
        """
        self._add(key, [functools.partial(link_or_copy, path) for path in paths], note)

    def recall(self, key: str) -> bytes | None:
        """Return the bytes stored by `keep`, or None without an entry."""
        entry = self._entry(key)
        try:
            return (entry / "0").read_bytes() if self._verified(entry) else None
        except FileNotFoundError:
            return None

    def keep(self, key: str, data: bytes) -> bytes:
        """Store bytes as an entry of one file, and return them."""
        self._add(key, [lambda path: path.write_bytes(data)], True)
        return data

    def _verified(self, entry: Path) -> tuple[int, Any] | None:
        """Return the number of files and the note of an entry; None if it is absent or damaged."""
        try:
            manifest = read_json(entry / _MANIFEST)
            digests, note = manifest["sha256"], manifest["note"]
            for number, digest in enumerate(digests):
                if sha256(entry / str(number)) != digest:
                    raise ValueError(f"{entry / str(number)} is damaged")
        except (OSError, ValueError, KeyError, TypeError) as error:
            if entry.is_dir():
                log.warning("cache: %s; the entry is removed and made again", error)
                shutil.rmtree(entry, ignore_errors=True)
            return None
        with contextlib.suppress(OSError):  # owned by another user
            os.utime(entry)  # time of last use, for `trim`
        return len(digests), note

    def _add(self, key: str, makers: Sequence[Callable[[Path], object]], note: Any) -> None:
        """Write an entry; each maker writes the file at the path that it is called with."""
        entry = self._entry(key)
        temporary: Path | None = None
        try:
            entry.parent.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(dir=entry.parent, prefix=_UNFINISHED))
            for number, make in enumerate(makers):
                make(temporary / str(number))
            digests = [sha256(temporary / str(number)) for number in range(len(makers))]
            (temporary / _MANIFEST).write_text(json.dumps({"sha256": digests, "note": note}), encoding="utf-8")
            temporary.rename(entry)
        except OSError as error:
            if not entry.is_dir():  # otherwise another process has stored the same entry
                log.warning("cache: %s cannot be written (%s)", self.folder, error)
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def entries(self) -> list[tuple[Path, int, float]]:
        """Return path, size in bytes and time of last use of every entry, the least recently used first.

        Single files, such as the ONNX files of MusiCNN, are entries too.
        """
        entries = []
        for entry in self.folder.glob("*/*"):
            with contextlib.suppress(OSError):  # removed by another process
                size = sum(file.stat().st_size for file in (entry.iterdir() if entry.is_dir() else [entry]))
                entries.append((entry, size, entry.stat().st_mtime))
        return sorted(entries, key=lambda item: (item[2], item[0]))

    def trim(self) -> None:
        """Remove the least recently used entries until `max_bytes` remain, and unfinished ones after a day."""
        entries = self.entries()
        total = sum(size for _, size, _ in entries)
        for entry, size, used in entries:
            unfinished = entry.name.startswith(_UNFINISHED)
            if (time.time() - used > _UNFINISHED_S) if unfinished else (total > self.max_bytes):
                if entry.is_dir():
                    shutil.rmtree(entry, ignore_errors=True)
                else:
                    entry.unlink(missing_ok=True)
                total -= size

    def _entry(self, key: str) -> Path:
        return self.folder / key[:2] / key
