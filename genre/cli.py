"""Entry point of every command, SONG arguments, and the writers of results: text, JSON, JSON lines and CSV."""

from __future__ import annotations

import argparse
import csv
import json
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from genre.errors import AudioError, GenreError

Item = TypeVar("Item")

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several equal parts of the work, for job arrays."""

    number: int  # from 1
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return every count-th item, from the one that is this shard's first."""
        return items[self.number - 1 :: self.count]


def add_shard_option(parser: argparse.ArgumentParser) -> None:
    """Add --shard I/N."""
    parser.add_argument(
        "--shard", type=_shard, metavar="I/N", help="do part I of N and keep it in the cache, for `dvc repro` to gather"
    )


def printable(text: str) -> str:
    """Return a text with escapes in place of control characters: strangers name files, and a terminal obeys.

    Line ends, tabs and the letters of all scripts stay; signs that turn the direction of writing do not.
    """
    return _CONTROL.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def run_command(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Call a command's main() and exit: 0 when all was done, 1 with the error's sentence on stderr otherwise."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for handler in logging.root.handlers:
        handler.setFormatter(_Printable("%(message)s"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # so that temporary files are removed
    for stream in (sys.stdout, sys.stderr):  # file names may hold bytes that are not UTF-8
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = main(None)
        sys.stdout.flush()
    except GenreError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        status = 1
    except OSError as error:  # a full disk, a folder that cannot be written
        if isinstance(error, BrokenPipeError):  # the reader of a pipe has seen enough
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        print(f"error: {printable(str(error.filename or 'a file'))}: {error.strerror or error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 128 + signal.SIGINT
    sys.exit(status)


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
    answer: Callable[[Path], Mapping[str, Any]],
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
    from genre.audio.sources import is_file_name

    try:
        return is_file_name(name) and Path(name).is_dir()
    except OSError:  # a name that is too long, a folder that may not be looked into
        return False


def _answers(
    names: Sequence[str],
    answer: Callable[[Path], Mapping[str, Any]],
    failed: list[GenreError],
    at_once: int,
    afterwards: Callable[[Answer], None] | None,
) -> Iterator[Answer]:
    from genre.audio.sources import local_file

    def attempt(name: str) -> Answer | AudioError:
        try:
            with local_file(name) as path:
                return {**answer(path), "file": name}
        except AudioError as error:  # of this song; any other error ends the command
            return error
        except OSError as error:
            return AudioError(f"{name}: {error.strerror or error}")

    songs = _songs(names, failed)
    found: Iterable[Answer | AudioError]
    if at_once > 1 and len(songs) > 1:
        from genre.parallel import map_threads

        found = map_threads(attempt, songs, at_once)
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
            from genre.audio.dataset import audio_files

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


def verdict(answer: Mapping[str, Any]) -> str:
    """Return an answer of the query contract in a few words, such as "jazz (5 of 8 chunks, 62 %)"."""
    n_chunks = len(answer["chunks"])
    n_votes = answer["votes"].get(answer["genre"], max(answer["votes"].values()))
    chunks = f"{n_votes} of {n_chunks} chunk" + ("s" if n_chunks > 1 else "")
    return f"{answer['genre']} ({chunks}, {100 * answer['confidence']:.0f} %)"


def clock(seconds: float) -> str:
    """Return a time as minutes:seconds, or hours:minutes:seconds from an hour on."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _shard(text: str) -> Shard:
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if not match or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"{text} is not a part such as 3/16")
    return Shard(int(match[1]), int(match[2]))
