"""How a command starts and ends: log lines to stderr, errors as one sentence, an exit code that tells the truth."""

from __future__ import annotations

import logging
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from stages.errors import GenreError


def run_command(main: Callable[[Sequence[str] | None], int]) -> NoReturn:
    """Call a command's main() and exit: 0 when all was done, 1 with the error's sentence on stderr otherwise."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
    for stream in (sys.stdout, sys.stderr):  # file names may hold bytes that are not UTF-8
        stream.reconfigure(encoding="utf-8", errors="backslashreplace")  # type: ignore[union-attr]
    try:
        status = main(None)
        sys.stdout.flush()
    except GenreError as error:
        print(f"error: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 128 + signal.SIGINT
    except BrokenPipeError:  # the reader of a pipe has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 0
    sys.exit(status)
