"""The index of the chunks, chunks/index.csv: song, genre and split of every chunk."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from genre import files
from genre.errors import DatasetError
from genre.paths import Paths

INDEX_NAME = "index.csv"
FAILURES_NAME = "failures.csv"
SPLITS = ("train", "test")
Parsed = TypeVar("Parsed")


@dataclass(frozen=True, slots=True)
class Row:
    """One chunk."""

    chunk: str  # path below chunks/, with forward slashes; the first part may be an archive
    song: str  # name of the song, unique in its genre
    genre: str
    split: str  # train or test
    start_s: float
    seconds: float  # length before padding
    source: str  # path of the song, with forward slashes
    source_sha256: str
    group: str = ""  # of songs that are never divided between splits and folds; by default the song

    def __post_init__(self) -> None:
        object.__setattr__(self, "group", self.group or self.song_id)

    @property
    def song_id(self) -> str:
        """Name of the song, unique in the data set."""
        return f"{self.genre}/{self.song}"


def write(folder: Path, rows: Iterable[Row]) -> None:
    """Write the rows as <folder>/index.csv."""
    files.write_table(folder / INDEX_NAME, [field.name for field in fields(Row)], map(astuple, rows))


def read(folder: Path) -> list[Row]:
    """Return the rows of <folder>/index.csv.

    Raises DatasetError if it is missing or damaged, or has a path outside chunks/ and dataset/.
    """
    return list(_read(folder / INDEX_NAME, _row))


def sources(folder: Path) -> dict[str, str]:
    """Return the path of each song by `Row.song_id`; empty if <folder>/index.csv is missing or damaged."""
    try:
        return {row.song_id: row.source for row in read(folder)}
    except DatasetError:
        return {}


def failures(folder: Path) -> dict[str, str]:
    """Return the reason for each song that split could not decode, by its path; empty without failures.csv."""
    path = folder / FAILURES_NAME
    return dict(_read(path, lambda line: (line["source"], line["reason"]))) if path.exists() else {}


def chunk_files(folder: Path, split: str, songs: Sequence[str]) -> list[Path]:
    """Return the files of the chunks of a split; `songs` has the song of each, as "<genre>/<song>".

    Raises DatasetError if index.csv is missing or damaged, or has other songs.
    """
    rows = [row for row in read(folder) if row.split == split]
    if [row.song_id for row in rows] != list(songs):
        raise DatasetError(f"{folder / INDEX_NAME} has other {split} songs than the vectors: run `dvc repro vectorize`")
    return [folder / row.chunk for row in rows]


def _read(path: Path, parse: Callable[[dict[str, Any]], Parsed]) -> Iterator[Parsed]:
    """Yield the parsed lines of a table of split; raise DatasetError if it is missing or damaged."""
    with files.reading(path, DatasetError, "split"):
        text = path.read_bytes().decode("utf-8", errors="surrogateescape")
        # csv, since pandas refuses names with bytes that are not UTF-8
        for line in csv.DictReader(io.StringIO(text, newline="")):
            if None in line or None in line.values():
                raise ValueError("a line has more or fewer fields than the header")
            yield parse(line)


def _row(line: dict[str, Any]) -> Row:
    row = Row(**{**line, "start_s": float(line["start_s"]), "seconds": float(line["seconds"])})
    member = re.sub(r"^\d+-of-\d+\.zip/", "", row.chunk)  # without the archive
    for column, name, folders in (("chunk", member, SPLITS), ("source", row.source, (Paths().datasets.name,))):
        parts = name.split("/")
        if parts[0] not in folders or {"", ".", ".."} & set(parts) or "\0" in name:
            raise ValueError(f"the {column} {name!r} is not below {' or '.join(folders)}/")
    if row.split not in SPLITS or "/" in row.genre or not (0 <= row.start_s < math.inf and 0 < row.seconds < math.inf):
        raise ValueError(f"the line of chunk {row.chunk!r} has a value that is not allowed")
    return row
