"""Entry point of every command, SONG arguments, and the writers of results: text, JSON, JSON lines and CSV."""

from __future__ import annotations

import argparse
import contextlib
import csv
import math
import os
import re
import signal
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar

from genre import terminal
from genre.errors import AudioError, GenreError
from genre.terminal import one_line, to_json

_FORMULA = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u200b-\u200f\u2060\ufeff]*[=+\-@]|[\t\r\n]")  # OWASP's list and more


def run_command(main: Callable[[Sequence[str] | None], int], log_format: str = "%(message)s") -> NoReturn:
    """Call a command's main() and exit with its status; an error is one line on stderr and exit code 1."""
    terminal.prepare(log_format)
    if os.name != "posix":  # signals of workers, limits of ffmpeg, memory-mapped indexes
        sys.exit(_report("this needs Linux or macOS: on Windows, use WSL 2 (docs/install.md)"))
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _stop)
    try:
        status = main(None)
        sys.stdout.flush()
    except GenreError as error:
        status = _report(str(error))
    except ModuleNotFoundError as error:
        status = _report(f"the Python module {error.name} is not installed: run `make setup`, or see docs/install.md")
    except BrokenPipeError:  # the reader of a pipe, such as `head`, has closed it
        terminal.discard_stdout()
        status = 128 + signal.SIGPIPE
    except OSError as error:  # such as a full disk, or a folder without write permission
        status = _report(": ".join(filter(None, (error.filename, error.strerror or str(error)))))
        terminal.discard_stdout()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)  # an exception while Python ends prints a traceback
    sys.exit(status)


def _stop(number: int, _: object) -> None:
    """Exit on a signal, so that finally blocks run."""
    signal.alarm(30)  # s; ends the process if the exception is lost in a destructor, or a thread waits for an import
    sys.exit(128 + number)


FORMATS = ("text", "json", "jsonl", "csv")
SONGS_AT_ONCE = 2  # the next song is decoded while the last chunks of one are predicted
SOURCES = ", an http(s) URL, or - for standard input"  # of songs, beside files and folders

Answer = dict[str, Any]
Number = TypeVar("Number", int, float)


def argument_parser(doc: str) -> argparse.ArgumentParser:
    """Return the parser of a command, described by the docstring of its module, with examples of command lines.

    If the installed command runs, they begin with genre in place of python -m stages.
    """
    if [Path(word).stem for word in sys.orig_argv[1:2]] == ["genre"]:
        doc = re.sub(r"python -m stages\.", "genre ", doc)
    name = re.search(r"(python -m stages\.|^genre )\w+", doc, re.MULTILINE)
    return _Parser(name[0] if name else None, description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)


class _Parser(argparse.ArgumentParser):
    """A parser that also completes words in the shell."""

    def parse_args(self, *arguments: Any) -> Any:  # type: ignore[override]
        if "_ARGCOMPLETE" in os.environ:  # set by the shell function of argcomplete
            import argcomplete

            argcomplete.autocomplete(self)
        return super().parse_args(*arguments)


def add_song_options(parser: argparse.ArgumentParser, metavar: str, others: str = SOURCES) -> None:
    """Add the arguments SONG..., --format, --models, --start and --duration."""
    parser.add_argument("songs", nargs="+", metavar=metavar, help=f"an audio file, a folder of them{others}")
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: %(default)s")
    parser.add_argument("--models", metavar="FILE", help="a package (genre pack), or a project (default: this one)")
    parser.add_argument("--start", type=seconds, default=0.0, metavar="S", help="start of the part in s (default: 0)")
    parser.add_argument("--duration", type=positive, metavar="S", help="length of the part in s (default: to the end)")


def answer_all(
    names: Sequence[str],
    answer: Callable[..., Mapping[str, Any]],
    show: Callable[[Answer], str],
    form: str,
    header: Sequence[str],
    rows: Callable[[Answer], Iterable[Sequence[object]]],
    *,
    together: bool = False,
    at_once: int = 1,
    afterwards: Callable[[Answer], None] | None = None,
) -> int:
    """Print an answer for each song; return 1 if a song failed, which is reported on stderr, else 0.

    `names` are files, folders (searched for audio files), http(s) URLs, and - for standard input. `answer` is called
    with the path of each song, in `at_once` threads; in its result, `file` becomes the given name. Answers are in the
    order of the songs; with `together`, there is one about all songs, for which `answer` is called with all paths.
    `form` is one of `FORMATS`: text is that of `show`, followed by the sentences of `warnings`; csv has the columns of
    `header` and the `rows` of each answer, with the warnings on stderr; json prints an object for one answer, and a
    list for several songs or a folder, at the end; the other forms print each answer when it is ready. `afterwards` is
    called with each answer after it is printed; an AudioError that it raises is reported.
    """
    failed = False
    values = []  # for json
    writer = csv.writer(sys.stdout, lineterminator="\n")
    if form == "csv":
        writer.writerow(map(_cell, header))
    for value in _answers(names, answer, at_once, together):
        if isinstance(value, str):
            failed = bool(_report(value))
            continue
        if form == "json":
            values.append(value)
        elif form == "jsonl":
            print(to_json(value))
        elif form == "csv":
            writer.writerows([_cell(cell) for cell in row] for row in rows(value))
            for warning in value.get("warnings", ()):
                print(one_line(f"warning: {value['file']}: {warning}"), file=sys.stderr)
        else:
            lines = [show(_in_one_line(value)), *(f"warning: {warning}" for warning in value.get("warnings", ()))]
            print("\n".join(lines))
        sys.stdout.flush()
        try:
            if afterwards:
                afterwards(value)
        except AudioError as error:
            failed = bool(_report(str(error)))
    is_one = together or (len(names) == 1 and not is_folder(names[0]))
    if form == "json" and (values or not is_one):
        print(to_json(values[0] if is_one else values, indent=2))
    return int(failed)


def is_folder(name: str) -> bool:
    """Return whether a SONG argument is a folder."""
    from genre.audio.sources import is_file_name

    return is_file_name(name) and os.path.isdir(name)  # noqa: PTH112 (no error for a name that is too long)


def _answers(
    names: Sequence[str], answer: Callable[..., Mapping[str, Any]], at_once: int, together: bool
) -> Iterator[Answer | str]:
    """Yield the answer for each song or for all songs together, or the message of its error."""
    from genre.audio.sources import local_file
    from genre.parallel import map_threads

    stop = threading.Event()

    def attempt(*names: str) -> Answer | str:
        try:
            with contextlib.ExitStack() as stack:
                paths = [stack.enter_context(local_file(name, stop)) for name in names]
                return {**answer(*paths), "file": ", ".join(names)}
        except AudioError as error:
            return str(error)
        except OSError as error:
            return f"{', '.join(names)}: {error.strerror or error}"

    songs, errors = _songs(names)
    yield from errors
    if together and songs:
        yield attempt(*songs)
        return
    results = map_threads(attempt, songs, at_once, stop) if at_once > 1 and len(songs) > 1 else map(attempt, songs)
    yield from terminal.progress(results, total=len(songs), unit="song") if len(songs) > 1 else results


def _songs(names: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the names of all songs, with folders replaced by their audio files, and messages about other names."""
    from genre.audio.dataset import walk

    songs: list[str] = []
    errors: list[str] = []
    for name in names:
        files, others = [name], []
        if name and is_folder(name):
            files, others = (list(map(str, paths)) for paths in walk(Path(name), follow_links=True))
        if others:
            print(one_line(f"{name}: {len(others)} other files skipped, e.g. {others[0]}"), file=sys.stderr)
        if not name:
            errors.append("a SONG argument is empty")
        elif not files:
            errors.append(f"{name}: no audio file in this folder")
        else:
            songs += files
    return songs, errors


def _in_one_line(value: Any) -> Any:
    """Return a value of JSON with line ends in its texts escaped: a name must not begin a line."""
    if isinstance(value, dict):
        return {key: _in_one_line(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_in_one_line(item) for item in value]
    return one_line(value) if isinstance(value, str) else value


def _cell(value: object) -> object:
    """Return a value for CSV; text that a spreadsheet may read as a formula is prefixed with an apostrophe (OWASP).

    Full-width signs count as signs (NFKC), and also signs behind spaces, control characters and line ends.
    """
    if not isinstance(value, str) or value == "-":
        return value
    return f"'{value}" if _FORMULA.match(unicodedata.normalize("NFKC", value)) else value


def _report(message: str) -> int:
    """Print an error on stderr and return the exit code 1."""
    print(f"error: {one_line(message)}", file=sys.stderr)
    return 1


def _number(kind: Callable[[str], Number], rule: str, is_valid: Callable[[Number], bool]) -> Callable[[str], Number]:
    """Return the type of an option that is a number."""

    def convert(text: str) -> Number:
        with contextlib.suppress(ValueError):
            if is_valid(value := kind(text)):
                return value
        raise argparse.ArgumentTypeError(f"{text} {rule}")

    return convert


seconds = _number(float, "must be a number of seconds, 0 or more", lambda value: 0.0 <= value < math.inf)
positive = _number(float, "must be greater than 0", lambda value: 0.0 < value < math.inf)
fraction = _number(float, "must be between 0 and 1", lambda value: 0.0 <= value <= 1.0)


def integer(low: int, high: int) -> Callable[[str], int]:
    """Return the type of an option that is a whole number from `low` to `high`."""
    return _number(int, f"must be a whole number from {low} to {high}", lambda value: low <= value <= high)


def verdict(answer: Mapping[str, Any]) -> str:
    """Return the genre, votes and confidence of an answer as text, such as "jazz (5 of 8 chunks, 62 %)"."""
    n_chunks = len(answer["chunks"])
    n_votes = answer["votes"].get(answer["genre"], max(answer["votes"].values()))
    chunks = f"{n_votes} of {n_chunks} chunk" + ("s" if n_chunks > 1 else "")
    reason = f"; {answer['reason']}" if answer.get("reason") else ""
    return f"{answer['genre']} ({chunks}, {100 * answer['confidence']:.0f} %{reason})"


def clock(seconds: float) -> str:
    """Return a time as minutes:seconds, or as hours:minutes:seconds from one hour."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
