"""Corrections of a data set as data: the right genres of songs, songs to leave out, and pairs of one recording.

corrections/<data set>.csv has the columns song, genre (or drop), date and reason; corrections/<data set>.duplicates.csv
has song and other. A song is named by its path in the data set folder, <genre>/<song>, as in the list files.
"""

from __future__ import annotations

import csv
import datetime
import io
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from genre import files
from genre.audio.dataset import Song, check_genres, find, genre_fault, read_text, with_unique_names
from genre.errors import DatasetError

DROP = "drop"  # in place of a genre: the song is left out

log = logging.getLogger(__name__)


class Correction(NamedTuple):
    """The right genre of a song, or `DROP`."""

    song: str  # path in the data set folder; the extension may be missing
    genre: str
    date: str  # ISO 8601
    reason: str


def read(path: Path) -> list[Correction]:
    """Return the corrections of a file, in its order; none if it is missing. Raises DatasetError as `read_table`."""
    return [Correction(*row) for _, row in read_table(path, Correction._fields)]


def add(path: Path, song: str, genre: str, reason: str = "") -> None:
    """Append a correction of today, in place of the song's earlier one; the file is replaced atomically."""
    kept = [correction for correction in read(path) if correction.song != song]
    files.write_table(path, Correction._fields, [*kept, (song, genre, datetime.date.today().isoformat(), reason)])


def undo(path: Path) -> Correction | None:
    """Remove the last correction and return it; None if there is none. One that `add` replaced does not return."""
    corrections = read(path)
    if corrections:
        files.write_table(path, Correction._fields, corrections[:-1])
    return corrections[-1] if corrections else None


def apply(songs: Sequence[Song], path: Path, folder: Path) -> list[Song]:
    """Return the songs of a data set folder with their right genres, without those to drop.

    A genre without a folder is new and logged. Songs of one name in their right genre get other names.

    Raises DatasetError that names the file and the line if a song is unknown or has two corrections, or a genre has a
    name that is not allowed; also if fewer than two genres remain.
    """
    rows = [(where, Correction(*row)) for where, row in read_table(path, Correction._fields)]
    genres = {song.genre for song in songs} | {DROP}
    right: dict[Path, str] = {}
    named = find([correction.song for _, correction in rows], songs, folder)
    for where, correction in rows:
        if (song := named.get(correction.song)) is None:
            raise DatasetError(f"{where}: {correction.song} is not in {folder}/: write <genre>/<song>.<extension>")
        if song.path in right:
            raise DatasetError(f"{where}: {correction.song} has two corrections: remove one of them")
        if fault := genre_fault(correction.genre):
            raise DatasetError(f"{where}: the genre name {correction.genre!r} {fault}: write a genre, or {DROP}")
        if correction.genre not in genres:
            log.warning("%s: the genre %s has no folder: it is a new one", where, correction.genre)
        right[song.path] = correction.genre
    kept = [song for song in songs if right.get(song.path) != DROP]
    corrected = [song._replace(genre=right.get(song.path, song.genre)) for song in kept]
    check_genres(corrected, folder)
    return with_unique_names(corrected, folder)


def read_duplicates(path: Path, songs: Sequence[Song], folder: Path) -> list[tuple[Path, Path]]:
    """Return the files of each pair of songs that are one recording; songs that are missing are logged."""
    pairs = [row for _, row in read_table(path, ["song", "other"])]
    named = find([name for pair in pairs for name in pair], songs, folder, path)
    return [(named[song].path, named[other].path) for song, other in pairs if song in named and other in named]


def read_table(path: Path, columns: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Return the rows of a CSV file with a header, each as "<path>, line <number>" and its values.

    Missing columns are empty, and without a file there are no rows. Raises DatasetError if it cannot be read or lacks
    one of the first two values.
    """
    rows = []
    reader = csv.DictReader(io.StringIO(read_text(path) if path.exists() else "", newline=""), restval="")
    try:
        for row in reader:
            values = [row.get(column, "").strip() for column in columns]
            if not all(values[:2]):
                raise DatasetError(f"{path}, line {reader.line_num}: has no {columns[0]} or no {columns[1]}")
            rows.append((f"{path}, line {reader.line_num}", values))
    except csv.Error as error:
        raise DatasetError(f"{path}, line {reader.line_num}: {error}") from error
    return rows
