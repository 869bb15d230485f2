"""Files that are whole or absent: atomic writes, content hashes, and the cache of finished work."""

from __future__ import annotations

import contextlib
import csv
import functools
import hashlib
import io
import json
import logging
import os
import shutil
import tempfile
import time
import uuid
import zipfile
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

_MANIFEST = "manifest.json"
_UNFINISHED = "unfinished-"
_UNFINISHED_SECONDS = 24 * 3600

CACHE = Path(".cache") / "songs"


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it becomes `path`, on an exception it is removed.

    The temporary name starts with a dot and ends in ``.tmp``, so a run that is killed never leaves a partial
    file under a final name. Missing parent folders are made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(path)  # its name is known before it is there: a signal may come
    try:
        temporary.touch(0o600, exist_ok=False)
        yield temporary
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes) -> None:
    """Write `data` to `path` atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` another name of `source`, atomically; where the file system has no hard links, a copy of it.

    For files that are only ever replaced, never written into. Missing parent folders are made.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _beside(target)
    try:
        os.link(source, temporary)
        temporary.replace(target)
    except OSError:
        with atomic_path(target) as copy:
            shutil.copyfile(source, copy)
    finally:
        temporary.unlink(missing_ok=True)  # it stays where it already was the same file as `target`


def write_text(path: Path, text: str) -> None:
    """Write `text` as UTF-8 with Unix line ends to `path` atomically."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_json(path: Path, value: Any) -> None:
    """Write `value` as indented JSON to `path` atomically; the same value gives the same bytes."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write a CSV file with Unix line ends atomically; fields are quoted where needed."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def read_json(path: Path) -> Any:
    """Return what a JSON file holds.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_npz(source: Path | bytes) -> dict[str, Any]:
    """Return the arrays of a file, or of its bytes, in NumPy's npz format, as `np.savez` writes it.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If it is anything else: damaged, with objects instead of numbers, or compressed. Then it could claim far more
        memory than its size.
    """
    import numpy as np

    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
                raise ValueError("it is compressed")
            if sum(member.file_size for member in archive.infolist()) > len(data):
                raise ValueError("its parts overlap")
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zipfile, zlib, tokenize, MemoryError: a damaged file can raise nearly anything
        raise ValueError(f"no arrays: {error}") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file's bytes as 64 hex digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


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
            As `cache_key` makes it.
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
            stale = entry.name.startswith(_UNFINISHED) and now - used > _UNFINISHED_SECONDS
            if stale or (total > self.max_bytes and not entry.name.startswith(_UNFINISHED)):
                shutil.rmtree(entry, ignore_errors=True)
                total -= size

    def _entry(self, key: str) -> Path:
        return self.folder / key[:2] / key


def cache_key(*parts: Any) -> str:
    """Return one digest of everything that a result depends on (whatever JSON holds)."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def remove_others(folder: Path, kept: Container[Path]) -> None:
    """Remove the files below `folder` that are not among `kept`: what an earlier run left. DVC's own files stay."""
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept and path.name != ".gitignore":
            path.unlink()


def _beside(path: Path) -> Path:
    return path.parent / f".{uuid.uuid4().hex}.tmp"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
