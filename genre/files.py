"""Atomic writes, content digests, JSON, CSV and NumPy files."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import json
import os
import shutil
import uuid
from collections.abc import Container, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from genre.errors import GenreError


@contextlib.contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`, and rename it to `path` afterwards; missing folders are created.

    After an exception it is removed; an OSError without a file name gets that of `path`. The temporary name starts with
    a dot and ends in ``.tmp``.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    # named before it exists, so that a signal at any time leads to its removal
    temporary = path.parent / f".{uuid.uuid4().hex}.tmp"
    try:
        temporary.touch(exist_ok=False)
        yield temporary
        temporary.replace(path)
    except OSError as error:  # of a write, it names no file
        if error.filename in {None, str(temporary)}:
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)  # still there if it is a link of the same file as `path`


def check_output(path: Path, suffixes: Sequence[str]) -> None:
    """Raise GenreError if the name of a file to write has none of the suffixes, or it cannot be written."""
    if path.suffix.lower() not in suffixes:
        raise GenreError(f"{path}: the name must end in {' or '.join(suffixes)}")
    if not path.parent.is_dir():
        raise GenreError(f"{path}: the folder {path.parent}/ does not exist")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise GenreError(f"{path}: " + ("is a folder" if path.is_dir() else f"{path.parent}/ is read-only"))


def link_or_copy(source: Path, target: Path) -> None:
    """Make `target` a hard link of `source`, or a copy if the file system has no hard links; atomic.

    Use it for files that are replaced, but never written into.
    """
    with atomic_path(target) as temporary:
        try:
            temporary.unlink()
            os.link(source, temporary)
        except OSError:
            shutil.copyfile(source, temporary)


def write_bytes(path: Path, data: bytes) -> None:
    """Write bytes atomically."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 with Unix line ends atomically."""
    write_bytes(path, text.encode("utf-8", errors="surrogateescape"))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically; equal values give equal bytes."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_table(path: Path, header: Iterable[str], rows: Iterable[Iterable[object]]) -> None:
    """Write CSV with Unix line ends atomically."""
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\n").writerows([header, *rows])
    write_text(path, text.getvalue())


def read_json(path: Path) -> Any:
    """Return the value in a JSON file; raise OSError if it cannot be read, ValueError if it is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_yaml(path: Path) -> Any:
    """Return the value in a YAML file; raise OSError, ValueError or yaml.YAMLError."""
    import yaml

    text = path.read_text(encoding="utf-8")
    return yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))  # noqa: S506 (C: ten times as fast)


def npz(**arrays: Any) -> bytes:
    """Return arrays by name in NumPy's npz format."""
    import numpy as np

    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()


def read_npz(source: Path | bytes) -> dict[str, Any]:
    """Return the arrays of a file, or of its bytes, that `npz` made.

    Raises OSError if the file cannot be read; ValueError if it is damaged or contains objects instead of numbers.
    """
    import numpy as np

    data = source if isinstance(source, bytes) else source.read_bytes()
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # zipfile, zlib and tokenize raise many kinds for a damaged file
        raise ValueError(f"it has no arrays ({error})") from error


@contextlib.contextmanager
def reading(path: Path, error_type: type[GenreError], stage: str) -> Iterator[None]:
    """Turn any error of reading a file into one of `error_type`, which names the file and the stage that writes it."""
    try:
        yield
    except GenreError:
        raise
    except FileNotFoundError as error:
        raise error_type(f"{error.filename or path} is missing: run `dvc repro {stage}` or `dvc pull`") from None
    except Exception as error:  # a damaged pickle, for one, can raise almost any
        raise error_type(f"{path} is damaged ({error}): run `dvc repro --force {stage}`") from error


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def digest(*parts: Any) -> str:
    """Return the SHA-256, in hexadecimal, of values that JSON can represent."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def remove_others(folder: Path, kept: Container[Path]) -> None:
    """Remove all files below `folder` except those in `kept` and DVC's .gitignore files; remove empty folders too."""
    for path in sorted(folder.rglob("*"), reverse=True):  # the contents of a folder before the folder
        if path.is_dir():
            with contextlib.suppress(OSError):  # it is not empty
                path.rmdir()
        elif path not in kept and path.name != ".gitignore":
            path.unlink()
