"""The cache of finished songs: results by the digest of everything they depend on, checked when they are read."""

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
    """Finished work by what it was made from, so that it is done once; safe for several processes at a time.

    An entry is a folder of numbered files with a manifest of their SHA-256. It appears by one rename, so it is whole
    or absent, and it is checked when it is used: a damaged entry counts as absent and is removed. Its files are hard
    links of those it was made from and restored to, where there can be such: nothing is written twice, and what is
    written into one of them is found as damage here.
    """

    folder: Path
    max_bytes: int

    def restore(self, key: str, target: Callable[[int], Path]) -> Any | None:
        """Put the files of an entry at their targets; return the entry's note, or None if there is no entry.

        Parameters
        ----------
        key : str
            As `files.digest` makes it.
        target : callable
            Where the file of each number goes.
        """
        entry = self._entry(key)
        found = self._checked(entry)
        if found is None:
            return None
        n_files, note = found
        try:
            for number in range(n_files):
                link_or_copy(entry / str(number), target(number))
        except FileNotFoundError:  # another process has just removed it
            return None
        return note

    def store(self, key: str, paths: Sequence[Path], note: Any) -> None:
        """Keep files, and a note (anything that JSON holds, except null), as an entry.

        A cache that cannot be written (a full disk, no permission) is a warning, not an error: the work is done.
        """
        self._add(key, [functools.partial(link_or_copy, path) for path in paths], note)

    def recall(self, key: str) -> bytes | None:
        """Return the bytes that `keep` has kept, or None if there is no entry."""
        entry = self._entry(key)
        try:
            return (entry / "0").read_bytes() if self._checked(entry) else None
        except FileNotFoundError:
            return None

    def keep(self, key: str, data: bytes) -> bytes:
        """Keep bytes as an entry of one file, as `store`; return them."""
        self._add(key, [lambda path: path.write_bytes(data)], True)
        return data

    def _checked(self, entry: Path) -> tuple[int, Any] | None:
        """Return the number of files and the note of an entry; None if it is not there, or removed for its damage."""
        try:
            manifest = read_json(entry / _MANIFEST)
            digests, note = manifest["sha256"], manifest["note"]
            for number, digest in enumerate(digests):
                if sha256(entry / str(number)) != digest:
                    raise ValueError(f"{entry / str(number)} is damaged")
        except (OSError, ValueError, KeyError, TypeError) as error:
            if entry.is_dir():
                log.warning("cache: %s; it is made again", error)
                shutil.rmtree(entry, ignore_errors=True)
            return None
        with contextlib.suppress(OSError):  # it may be another user's
            os.utime(entry)  # used now: the last to go
        return len(digests), note

    def _add(self, key: str, makers: Sequence[Callable[[Path], object]], note: Any) -> None:
        """Make an entry of what each maker puts at the path it is given."""
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
            if not entry.is_dir():  # else another process was first, with the same work
                log.warning("cache: %s cannot be written (%s)", self.folder, error)
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def entries(self) -> list[tuple[Path, int, float]]:
        """Return folder, bytes and time of last use of every entry, the least recently used first."""
        found = []
        for entry in self.folder.glob("*/*"):
            with contextlib.suppress(OSError):  # it may go while we look
                size = sum(file.stat().st_size for file in entry.iterdir())
                found.append((entry, size, entry.stat().st_mtime))
        return sorted(found, key=lambda item: (item[2], item[0]))

    def trim(self) -> None:
        """Remove unfinished entries of processes long dead, then the least recently used until `max_bytes` hold."""
        found = self.entries()
        total = sum(size for _, size, _ in found)
        now = time.time()
        for entry, size, used in found:
            stale = entry.name.startswith(_UNFINISHED) and now - used > _UNFINISHED_S
            if stale or (total > self.max_bytes and not entry.name.startswith(_UNFINISHED)):
                shutil.rmtree(entry, ignore_errors=True)
                total -= size

    def _entry(self, key: str) -> Path:
        return self.folder / key[:2] / key
