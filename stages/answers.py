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
    parser.add_argument("songs", nargs="+", metavar=metavar, help="an audio file of any format, or a folder of them")
    parser.add_argument("--format", choices=formats, default="text", help="default: %(default)s")
    parser.add_argument("--start", type=_seconds, default=0.0, metavar="S", help="begin at this second of the file")
    parser.add_argument("--duration", type=_seconds, metavar="S", help="take this many seconds (default: to the end)")


def answer_all(
    names: Sequence[str],
    answer: Callable[[Path], Answer],
    show: Callable[[Answer], str],
    form: str,
    table: Table | None = None,
) -> int:
    """Print an answer for each file that is named; return 1 if any could not be answered, each reported on stderr.

    Parameters
    ----------
    names : sequence of str
        Files, and folders that are searched for them.
    answer : callable
        Called with each file.
    show : callable
        An answer as text.
    form : str
        One of `FORMATS`, or csv. json: an object for one file, a list for several or for a folder. Other forms are
        printed as the answers come.
    table : Table or None
        Needed for csv.
    """
    failed: list[GenreError] = []
    answers = _answers(names, answer, failed)
    if form == "json":
        found = list(answers)
        one = len(names) == 1 and not Path(names[0]).is_dir()
        if found or not one:
            print(json.dumps(found[0] if one else found, indent=2, ensure_ascii=False))
    elif form == "csv" and table is not None:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(table.header)
        for found_one in answers:
            writer.writerows(table.rows(found_one))
            sys.stdout.flush()
    else:
        for found_one in answers:
            print(json.dumps(found_one, ensure_ascii=False) if form == "jsonl" else show(found_one), flush=True)
    return 1 if failed else 0


def _answers(names: Sequence[str], answer: Callable[[Path], Answer], failed: list[GenreError]) -> Iterator[Answer]:
    from tqdm import tqdm

    from stages.audio.collection import audio_files

    paths: list[Path] = []
    for name in names:
        if not name:
            _report(AudioError("a name is empty"), failed)
            continue
        found = audio_files(Path(name)) if Path(name).is_dir() else [Path(name)]
        if not found:
            _report(AudioError(f"{name}: there is no audio file in this folder"), failed)
        paths += found
    for path in tqdm(paths, unit="song", disable=len(paths) < 2 or not sys.stderr.isatty()):
        try:
            yield answer(path)
        except AudioError as error:  # of this file; any other error ends the command
            _report(error, failed)


def _report(error: GenreError, failed: list[GenreError]) -> None:
    failed.append(error)
    print(f"error: {error}", file=sys.stderr)


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value
