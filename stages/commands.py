"""How a command starts and ends: log lines to stderr, errors as one sentence, an exit code that tells the truth."""

from __future__ import annotations

import argparse
import logging
import os
import re
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NoReturn, TypeVar

from stages.errors import GenreError

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


def _shard(text: str) -> Shard:
    match = re.fullmatch(r"([1-9]\d*)/([1-9]\d*)", text)
    if not match or int(match[1]) > int(match[2]):
        raise argparse.ArgumentTypeError(f"{text} is not a part such as 3/16")
    return Shard(int(match[1]), int(match[2]))
