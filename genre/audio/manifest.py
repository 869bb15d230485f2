"""chunks/index.csv: which chunk comes from which song, and on which side it stands."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from genre.errors import DatasetError
from genre.files import write_table

INDEX_NAME = "index.csv"
FAILURES_NAME = "failures.csv"
DATASETS = "dataset"  # the folder that all data sets are in
SIDES = ("train", "test")


@dataclass(frozen=True, slots=True)
class Row:
    """One chunk."""

    chunk: str  # path below chunks/, with forward slashes
    song: str  # name of the song, unique in its genre
    genre: str
    split: str  # train or test
    start_s: float
    seconds: float  # what of the chunk comes from the song; the rest is repeated
    source: str  # path of the song in the data set
    source_sha256: str

    @property
    def song_id(self) -> str:
        """Name of the song, unique in the data set."""
        return f"{self.genre}/{self.song}"


def write(folder: Path, rows: Iterable[Row]) -> None:
    """Write the rows as <folder>/index.csv."""
    write_table(folder / INDEX_NAME, [field.name for field in fields(Row)], (asdict(row).values() for row in rows))


def read(folder: Path) -> list[Row]:
    """Read <folder>/index.csv.

    Raises
    ------
    DatasetError
        If it is missing or not such a file, or a path in it leads out of the chunks or of the data sets.
    """
    path = folder / INDEX_NAME
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return [_row(line) for line in csv.DictReader(stream)]
    except FileNotFoundError:
        raise DatasetError(f"{path} is not there: run `dvc repro split`") from None
    except (OSError, KeyError, TypeError, ValueError, csv.Error) as error:
        raise DatasetError(f"{path} is damaged ({error}): run `dvc repro --force split`") from error


def _row(line: dict[str, Any]) -> Row:
    if None in line or None in line.values():
        raise ValueError("a line has more or fewer fields than the first")
    row = Row(**{**line, "start_s": float(line["start_s"]), "seconds": float(line["seconds"])})
    for name, found, folders in (("chunk", row.chunk, SIDES), ("source", row.source, (DATASETS,))):
        parts = found.split("/")  # of a path that others write to, read and serve
        if parts[0] not in folders or {"", ".", ".."} & set(parts) or "\0" in found:
            raise ValueError(f"the {name} {found!r} is not below {' or '.join(folders)}/")
    if row.split not in SIDES or "/" in row.genre or not (0 <= row.start_s < math.inf and 0 < row.seconds < math.inf):
        raise ValueError(f"{row.chunk!r}")
    return row
