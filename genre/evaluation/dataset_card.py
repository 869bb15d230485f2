"""What a reader of figures must know of the data set behind them: its size, its songs, and what is wrong with it."""

from __future__ import annotations

import csv
import hashlib
import os
import urllib.parse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genre import files
from genre.audio import manifest
from genre.audio.manifest import Row

N_NAMED = 5  # groups of identical files that are named; of more there is only the number

# By the beginning of a data set's name: what nobody can see in its files.
KNOWN_FAULTS = {
    "demo": "The songs are synthetic: these figures say nothing about real music.",
    "gtzan": (
        "GTZAN has replicas, mislabelled clips and artists on both sides of a random split (Sturm 2013):"
        " these figures are optimistic."
    ),
}


@dataclass(frozen=True, slots=True)
class DataSet:
    """A data set as a report shows it."""

    name: str
    header: list[str]  # of the counts: genre, then what is counted
    counts: list[tuple[str | int, ...]]
    faults: list[str]  # a sentence each
    links: dict[str, str]  # by song, from a folder beside chunks/


def describe(name: str, chunks: Path, *, genres: Sequence[str], chunk_seconds: float, divided: bool = True) -> DataSet:
    """Describe a data set by its chunks.

    Parameters
    ----------
    name : str
        As in `dataset.name`.
    chunks : Path
        The folder of chunks, with its index and the list of files that could not be decoded.
    genres : sequence of str
        In the order of the counts.
    chunk_seconds : float
        Length of a chunk; one that the song is too short for was filled by repeating it.
    divided : bool
        Whether training and test are counted apart.

    Raises
    ------
    DatasetError
        If the index is missing or damaged.
    """
    rows = manifest.read(chunks)
    sides = {"training ": {"train"}, "test ": {"test"}} if divided else {"": {"train", "test"}}
    header = ["genre", *(f"{side}{counted}" for side in sides for counted in ("songs", "chunks"))]
    counts: list[tuple[str | int, ...]] = []
    for genre in genres:
        found = [[row for row in rows if row.genre == genre and row.split in side] for side in sides.values()]
        counts.append((genre, *(n for side in found for n in (len({row.song for row in side}), len(side)))))
    faults = [sentence for start, sentence in KNOWN_FAULTS.items() if name.startswith(start)]
    faults += _identical(rows)
    if n_failures := _n_lines(chunks / manifest.FAILURES_NAME):
        faults.append(f"{_were(n_failures, 'file')} left out: no audio could be decoded (chunks/failures.csv).")
    if n_short := sum(row.seconds < chunk_seconds - 0.5 / 8_000 for row in rows):  # half a sample
        faults.append(f"{_were(n_short, 'chunk')} shorter than {chunk_seconds:g} s and filled by repeating it.")
    links = {row.song_id: "../" + urllib.parse.quote(os.fsencode(row.source)) for row in rows}
    return DataSet(name, header, counts, faults, links)


def digest(vectors: Path) -> str:
    """Return the SHA-256 of the folder of pickled vectors: the same for the same chunks, labels and songs."""
    names = [path for path in sorted(vectors.iterdir()) if path.suffix in (".json", ".pickle")]
    return hashlib.sha256("".join(files.sha256(path) for path in names).encode()).hexdigest()


def _identical(rows: Sequence[Row]) -> list[str]:
    """Return a sentence about files that are the same to the byte, which makes figures too good."""
    copies: dict[str, set[str]] = {}
    for row in rows:
        copies.setdefault(row.source_sha256, set()).add(row.song_id)
    groups = [group for group in copies.values() if len(group) > 1]
    if not groups:
        return []
    named = "; ".join(" = ".join(sorted(group)) for group in groups[:N_NAMED])
    return [
        f"{sum(map(len, groups))} songs are copies of each other ({named}{'; ...' if len(groups) > N_NAMED else ''}):"
        " figures are too good where one copy trains and another tests."
    ]


def _n_lines(path: Path) -> int:
    """Return the lines of a CSV file below its header; 0 if it is not there."""
    try:
        with path.open(encoding="utf-8", errors="surrogateescape", newline="") as stream:
            return sum(1 for _ in csv.reader(stream)) - 1
    except FileNotFoundError:
        return 0


def _were(n: int, noun: str) -> str:
    return f"1 {noun} was" if n == 1 else f"{n} {noun}s were"
