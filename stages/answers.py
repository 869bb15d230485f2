"""What the commands that answer about songs share: which files are meant, and how answers are printed."""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.commands import printable
from stages.errors import AudioError, GenreError

FORMATS = ("text", "json", "jsonl")

Answer = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Table:
    """How answers look as CSV."""

    header: Sequence[str]
    rows: Callable[[Answer], Iterable[Sequence[object]]]  # of one answer


def add_song_options(parser: argparse.ArgumentParser, metavar: str, formats: Sequence[str] = FORMATS) -> None:
    """Add the names of the songs, --format, --start and --duration."""
    parser.add_argument(
        "songs",
        nargs="+",
        metavar=metavar,
        help="an audio file of any format, a folder of them, an http(s) URL, or - for standard input",
    )
    parser.add_argument("--format", choices=formats, default="text", help="default: %(default)s")
    parser.add_argument("--start", type=seconds, default=0.0, metavar="S", help="begin at this second of the file")
    parser.add_argument("--duration", type=length, metavar="S", help="take this many seconds (default: to the end)")


def answer_all(
    names: Sequence[str],
    answer: Callable[[Path], Answer],
    show: Callable[[Answer], str],
    form: str,
    table: Table | None = None,
    *,
    at_once: int = 1,
    afterwards: Callable[[Answer], None] | None = None,
) -> int:
    """Print an answer for each song that is named; return 1 if any could not be answered, each reported on stderr.

    Parameters
    ----------
    names : sequence of str
        Files, folders that are searched for them, http(s) URLs, and - for standard input.
    answer : callable
        Called with each file; of what it answers, `file` becomes the name that was given.
    show : callable
        An answer as text.
    form : str
        One of `FORMATS`, or csv. json: an object for one file, a list for several or for a folder. Other forms are
        printed as the answers come.
    table : Table or None
        Needed for csv.
    at_once : int
        Files worked on at a time, in threads; their answers come in the order of the files all the same.
    afterwards : callable or None
        Called with each answer when it is printed; an `AudioError` that it raises is reported, and the others go on.
    """
    failed: list[GenreError] = []
    answers = _answers(names, answer, failed, at_once, afterwards)
    if form == "json":
        found = list(answers)
        one = len(names) == 1 and not is_folder(names[0])
        if found or not one:
            print(json.dumps(found[0] if one else found, indent=2, ensure_ascii=False))
    elif form == "csv" and table is not None:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(map(_cell, table.header))
        for found_one in answers:
            writer.writerows([_cell(value) for value in row] for row in table.rows(found_one))
            sys.stdout.flush()
    else:
        for found_one in answers:
            if form == "jsonl":
                print(json.dumps(found_one, ensure_ascii=False), flush=True)
            else:  # a line break in a name must not look like an answer
                print(printable(show(found_one | {"file": found_one["file"].replace("\n", "\\n")})), flush=True)
    return 1 if failed else 0


def is_folder(name: str) -> bool:
    """Return whether a SONG argument is a folder."""
    from stages.audio.sources import is_file_name

    try:
        return is_file_name(name) and Path(name).is_dir()
    except OSError:  # a name that is too long, a folder that may not be looked into
        return False


def _answers(
    names: Sequence[str],
    answer: Callable[[Path], Answer],
    failed: list[GenreError],
    at_once: int,
    afterwards: Callable[[Answer], None] | None,
) -> Iterator[Answer]:
    from stages.audio.sources import local_file

    def attempt(name: str) -> Answer | AudioError:
        try:
            with local_file(name) as path:
                return answer(path) | {"file": name}
        except AudioError as error:  # of this song; any other error ends the command
            return error
        except OSError as error:
            return AudioError(f"{name}: {error.strerror or error}")

    songs = _songs(names, failed)
    found: Iterable[Answer | AudioError]
    if at_once > 1 and len(songs) > 1:
        from stages.models.answer import side_by_side

        found = side_by_side(attempt, songs, at_once)
    else:
        found = map(attempt, songs)
    if len(songs) > 1 and sys.stderr.isatty():
        from tqdm import tqdm

        found = tqdm(found, total=len(songs), unit="song")
    for result in found:
        if isinstance(result, AudioError):
            _report(result, failed)
            continue
        yield result
        if afterwards:
            try:
                afterwards(result)
            except AudioError as error:
                _report(error, failed)


def _songs(names: Sequence[str], failed: list[GenreError]) -> list[str]:
    """Return the names of the songs that are meant, those in folders too."""
    songs: list[str] = []
    for name in names:
        if not name:
            _report(AudioError("a name is empty"), failed)
        elif is_folder(name):
            from stages.audio.collection import audio_files

            found = audio_files(Path(name))
            if not found:
                _report(AudioError(f"{name}: there is no audio file in this folder"), failed)
            songs += map(str, found)
        else:
            songs.append(name)
    return songs


def _cell(value: object) -> object:
    """Return a value for CSV; text that a spreadsheet takes for a formula gets an apostrophe before it (OWASP)."""
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value)


def _report(error: GenreError, failed: list[GenreError]) -> None:
    failed.append(error)
    print(f"error: {printable(str(error))}", file=sys.stderr)


def seconds(text: str) -> float:
    """Return a number of seconds that stands in an option."""
    value = float(text)
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


def length(text: str) -> float:
    """Return a number of seconds, more than none, that stands in an option."""
    value = seconds(text)
    if not value:
        raise argparse.ArgumentTypeError("0 seconds are too few")
    return value


def share(text: str) -> float:
    """Return a number from 0 to 1 that stands in an option."""
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value
