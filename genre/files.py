"""Atomic writes, readers of JSON and arrays, and SHA-256 digests."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import logging
import os
import shutil
import uuid
import zipfile
from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` on success and removed on an exception.

    It is in the same folder, which is created if necessary, and its name is hidden and ends in ``.tmp``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)  # named before it is created, so that a signal cannot leave it behind
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
    """Make `target` a hard link to `source`, or a copy where the file system has no hard links, atomically.

    Both files may be replaced but must not be written to.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(target)
    try:
        os.link(source, temporary)
        temporary.replace(target)
    except OSError:
        with atomic_path(target) as copy:
            shutil.copyfile(source, copy)
    finally:
        temporary.unlink(missing_ok=True)  # os.replace keeps it if both are the same file


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
    """Return the value of a JSON file.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_npz(source: Path | bytes) -> dict[str, Any]:
    """Return the arrays of an uncompressed npz file, or of its bytes, by name.

    Raises
    ------
    OSError
        If the file cannot be read.
    ValueError
        If the file is damaged, has objects instead of numbers, or is compressed, as it could then need far more memory
        than its size.
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
    except Exception as error:  # a damaged file can raise errors of zipfile, tokenize and others
        raise ValueError(f"no arrays: {error}") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(*parts: Any) -> str:
    """Return the SHA-256 of JSON values as 64 hexadecimal digits, for example as a key of the cache."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def remove_others(folder: Path, kept: Container[Path]) -> None:
    """Remove the files below `folder` that are not in `kept`, except the .gitignore files of DVC."""
    for path in folder.rglob("*"):
        if path.is_file() and path not in kept and path.name != ".gitignore":
            path.unlink()


def _temporary(path: Path) -> Path:
    return path.parent / f".{uuid.uuid4().hex}.tmp"


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
