"""Standard streams that escape control characters and direction marks or are held back, and progress bars."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import os
import re
import sys
import tempfile
import warnings
from collections.abc import Iterable, Iterator
from typing import Any, TextIO

# Bytes that are not UTF-8 (category Cs); of Cc, Cf, Zl and Zp, all but line ends, tabs and the joiners of emoji and of
# Indic scripts.
_CONTROL = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\xad\u061c\u180e\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ud800-\udfff\ufeff\ufff9-\ufffb"
    r"\U000e0000-\U000e007f]"
)


def printable(text: str) -> str:
    """Return a text with control characters and direction marks escaped; line ends and tabs are kept."""
    return _CONTROL.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def one_line(text: str) -> str:
    """Return a text with line ends escaped too, so that a file name cannot begin a line."""
    return printable(text.replace("\n", "\\n"))


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON; control characters and direction marks in it are escaped as JSON escapes them."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _CONTROL.sub(lambda match: json.dumps(match[0])[1:-1], text)


def prepare(log_format: str = "%(message)s") -> None:
    """Replace stdout and stderr by streams that escape control characters, and print logs and warnings to stderr.

    A standard stream that was closed is opened on /dev/null, so that no other file takes its number; writing to a
    closed stdout is an error.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    closed = open(os.open(os.devnull, os.O_RDONLY), "w")  # noqa: SIM115 (nothing can be written to it)
    sys.stdout = _Escaped(sys.stdout or closed, "standard output")
    sys.stderr = _Escaped(sys.stderr or closed)
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_OneLine(log_format))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    warnings.formatwarning = lambda message, category, filename, lineno, line=None: (  # noqa: ARG005 (the line of code)
        f"{filename}:{lineno}: {category.__name__}: {message}"
    )
    logging.captureWarnings(True)


def progress(items: Iterable[Any] | None = None, **options: Any) -> Any:
    """Return a tqdm progress bar, shown if stderr is a terminal; it moves the cursor, so its output is not escaped."""
    from tqdm import tqdm

    return tqdm(items, file=sys.__stderr__, disable=not sys.stderr.isatty(), **options)


@contextlib.contextmanager
def quiet() -> Iterator[TextIO]:
    """Hold back the output of native code to stderr, and print it only after an exception; yield the real stderr.

    KeyboardInterrupt does not count as an exception.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held, open(kept, "w", closefd=False) as real:
        os.dup2(held.fileno(), 2)
        try:
            yield real
        except Exception:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def discard_stdout() -> None:
    """Discard what has not been written, after an error of stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Escaped(io.TextIOWrapper):
    """A stream on the buffer of another. An OSError has the given name; without a name, it is ignored."""

    def __init__(self, stream: TextIO, error_name: str | None = None) -> None:
        options = {name: getattr(stream, name) for name in ("line_buffering", "write_through")}
        super().__init__(stream.buffer, encoding="utf-8", errors="backslashreplace", **options)
        self._source = stream  # which closes the buffer when it is collected
        self._error_name = error_name

    def write(self, text: str) -> int:
        with self._named_errors():
            super().write(printable(text))
        return len(text)

    def flush(self) -> None:
        with self._named_errors():
            super().flush()

    @contextlib.contextmanager
    def _named_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if self._error_name:
                error.filename = self._error_name
                raise


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        record.message = one_line(record.message)
        return super().formatMessage(record)
