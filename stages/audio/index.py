"""chunks/index.csv: which chunk comes from which song, and on which side it stands."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from stages.errors import DatasetError
from stages.files import write_table

INDEX_NAME = "index.csv"
FAILURES_NAME = "failures.csv"


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
        If it is missing or not such a file.
    """
    path = folder / INDEX_NAME
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return [
                Row(**{**line, "start_s": float(line["start_s"]), "seconds": float(line["seconds"])})  # type: ignore[arg-type]
                for line in csv.DictReader(stream)
            ]
    except FileNotFoundError:
        raise DatasetError(f"{path} is not there: run `dvc repro split`") from None
    except (KeyError, TypeError, ValueError, csv.Error) as error:
        raise DatasetError(f"{path} is damaged ({error}): run `dvc repro --force split`") from error
