"""Entry point of every command, SONG arguments, and output as text, JSON, JSON lines and CSV."""

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

FORMATS = ("text", "json", "jsonl")

Answer = dict[str, Any]

_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")


@dataclass(frozen=True, slots=True)
class Table:
    """The CSV form of answers."""

    header: Sequence[str]
    rows: Callable[[Answer], Iterable[Sequence[object]]]  # of one answer


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several equal parts of the items, for job arrays."""

    number: int  # from 1
    count: int

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def of(self, items: Sequence[Item]) -> Sequence[Item]:
        """Return the items of this shard."""
        return items[self.number - 1 :: self.count]


def add_shard_option(parser: argparse.ArgumentParser) -> None:
    """Add --shard I/N."""
    parser.add_argument(
        "--shard", type=_shard, metavar="I/N", help="only compute part I of N and cache it, for `dvc repro`"
    )


def printable(text: str) -> str:
    """Return a text with control characters and direction marks escaped, for a terminal; line ends and tabs stay."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


class _Printable(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return printable(super().format(record))


def run_command(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Call a command's `main` and exit with its status, or with 1 and one line on stderr after an error."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for handler in logging.root.handlers:
        handler.setFormatter(_Printable("%(message)s"))
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # removes temporary files
    for stream in (sys.stdout, sys.stderr):  # file names may not be UTF-8
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = main(None)
        sys.stdout.flush()
    except GenreError as error:
        print(f"error: {printable(str(error))}", file=sys.stderr)
        status = 1
    except OSError as error:  # a full disk, a folder that cannot be written
        if isinstance(error, BrokenPipeError):  # such as `| head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(0)
        print(f"error: {printable(str(error.filename or 'a file'))}: {error.strerror or error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 128 + signal.SIGINT
    sys.exit(status)


def add_song_options(parser: argparse.ArgumentParser, metavar: str, formats: Sequence[str] = FORMATS) -> None:
    """Add SONG..., --format, --start and --duration."""
    parser.add_argument(
        "songs",
        nargs="+",
        metavar=metavar,
        help="an audio file, a folder, an http(s) URL, or - for standard input",
    )
    parser.add_argument("--format", choices=formats, default="text", help="default: %(default)s")
    parser.add_argument(
        "--start", type=seconds, default=0.0, metavar="S", help="start of the part to analyse, in seconds"
    )
    parser.add_argument("--duration", type=length, metavar="S", help="length of the part, in seconds")


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
    """Print the answer about each song, and errors on stderr; return 1 after an error, otherwise 0.

    Parameters
    ----------
    names : sequence of str
        Files, folders, http(s) URLs, and - for standard input.
    answer : callable
        Maps a file to an answer, whose `file` is then replaced by the name.
    show : callable
        Maps an answer to text.
    form : str
        One of `FORMATS`, or csv. json is an object for one file, and a list for several or for a folder.
    table : Table or None
        Required for csv.
    at_once : int
        Files analysed at a time, in threads.
    afterwards : callable or None
        Called with each answer after it is printed; an `AudioError` that it raises is reported.
    """
    failed: list[GenreError] = []
    answers = _answers(names, answer, failed, at_once, afterwards)
    if form == "json":
        complete = list(answers)
        single = len(names) == 1 and not is_folder(names[0])
        if complete or not single:
            print(json.dumps(complete[0] if single else complete, indent=2, ensure_ascii=False))
    elif form == "csv" and table is not None:
        writer = csv.writer(sys.stdout, lineterminator="\n")
        writer.writerow(map(_cell, table.header))
        for of_song in answers:
            writer.writerows([_cell(value) for value in row] for row in table.rows(of_song))
            sys.stdout.flush()
    else:
        for of_song in answers:
            if form == "jsonl":
                print(json.dumps(of_song, ensure_ascii=False), flush=True)
            else:  # a line break in a name would look like another answer
                print(printable(show(of_song | {"file": of_song["file"].replace("\n", "\\n")})), flush=True)
    return 1 if failed else 0


def is_folder(name: str) -> bool:
    """Return whether a SONG argument is a folder."""
    from genre.audio.sources import is_file_name

    try:
        return is_file_name(name) and Path(name).is_dir()
    except OSError:  # too long a name, no permission
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
        except AudioError as error:  # other errors end the command
            return error
        except OSError as error:
            return AudioError(f"{name}: {error.strerror or error}")

    songs = _songs(names, failed)
    results: Iterable[Answer | AudioError] = map(attempt, songs)
    if at_once > 1 and len(songs) > 1:
        from genre.parallel import map_threads

        results = map_threads(attempt, songs, at_once)
    if len(songs) > 1 and sys.stderr.isatty():
        from tqdm import tqdm

        results = tqdm(results, total=len(songs), unit="song")
    for result in results:
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
    """Return the names of all songs, including those in folders."""
    songs: list[str] = []
    for name in names:
        if not name:
            _report(AudioError("a name is empty"), failed)
        elif is_folder(name):
            from genre.audio.dataset import audio_files

            in_folder = audio_files(Path(name))
            if not in_folder:
                _report(AudioError(f"{name}: there is no audio file in this folder"), failed)
            songs += map(str, in_folder)
        else:
            songs.append(name)
    return songs


def _cell(value: object) -> object:
    """Return a value for CSV; text that a spreadsheet would take for a formula gets an apostrophe (OWASP)."""
    if not isinstance(value, str):
        return value
    return printable(f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value)


def _report(error: GenreError, failed: list[GenreError]) -> None:
    failed.append(error)
    print(f"error: {printable(str(error))}", file=sys.stderr)


def seconds(text: str) -> float:
    """Return the number of seconds in an option, 0 or more."""
    value = float(text)
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} must be a number of seconds, 0 or more")
    return value


def length(text: str) -> float:
    """Return the number of seconds in an option, greater than 0."""
    value = seconds(text)
    if not value:
        raise argparse.ArgumentTypeError(f"{text} must be greater than 0")
    return value


def share(text: str) -> float:
    """Return the number in an option, 0 to 1."""
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} must be between 0 and 1")
    return value


def verdict(answer: Mapping[str, Any]) -> str:
    """Return the summary of an answer of query, such as "jazz (5 of 8 chunks, 62 %)"."""
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
        raise argparse.ArgumentTypeError(f"{text} must be a part such as 3/16")
    return Shard(int(match[1]), int(match[2]))
