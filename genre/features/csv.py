"""Feature CSV files, byte for byte as sonic-annotator 1.6 writes them: a time stamp, then the values of one frame."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre import archives
from genre.errors import FeatureError

VERSION = 2  # part of the cache key: raise it when the bytes of a CSV change
NUMBER_BYTES = b"0123456789+-.eE"


def format_rows(values: npt.NDArray[np.float32], sample_rate: int, step: int, first_frame: int = 0) -> bytes:
    """Return the CSV lines of consecutive frames, given their values [shape=(frames, columns)].

    Values are printed as C's ``%.6g``, but with ties rounded away from zero, as by Qt, and without the leading zero of
    a two-digit exponent. Row i has the time (first_frame + i) * step / sample_rate seconds, rounded half up to
    nanoseconds. `sample_rate` is in Hz, `step` in samples. Raises FeatureError if a value is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise FeatureError("a feature value is NaN or infinite and cannot be written")
    line = "%d.%09d" + ",%.6g" * values.shape[1] + "\n"
    lines = []
    for frame, row in enumerate(_without_ties(values).tolist(), start=first_frame):
        seconds, rest = divmod(frame * step, sample_rate)
        nanoseconds = (2_000_000_000 * rest + sample_rate) // (2 * sample_rate)
        lines.append(line % (seconds, nanoseconds, *row))
    return "".join(lines).replace("e-0", "e-").replace("e+0", "e+").encode("ascii")


def _without_ties(values: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Return the values, with those halfway between two numbers of six digits replaced by the next greater magnitude.

    A tie is an odd multiple of 0.5 * 10**j, of at most seven digits. A float32 has 24 bits, so it can be a tie only for
    -9 <= j <= 2: a multiple of 2**-10 below 1e8. All such multiples are replaced; the step, one float64, is too small
    to change the digits of the others.
    """
    exact = values.astype(np.float64)
    scaled = 1024.0 * exact
    candidates = (scaled == np.rint(scaled)) & (np.abs(exact) < 1e8) & (exact != 0.0)
    np.nextafter(exact, np.copysign(np.inf, exact), out=exact, where=candidates)
    return exact


def read(path: Path, columns: int) -> npt.NDArray[np.float32]:
    """Return the values of a feature CSV [shape=(frames, columns)], without the time stamps.

    `columns` is the number of values on each line after the time stamp.

    Raises FeatureError, with file and line, if the file is missing, empty or truncated, or a line has a wrong number of
    values or a value that is not a finite float32; DatasetError if it is in a damaged archive.
    """
    try:
        data = archives.read_bytes(path, "extract")
    except OSError as error:
        raise FeatureError(f"{path}: cannot be read ({error.strerror})") from error
    table = _parse(data, columns)
    if table is None:
        lines = data.splitlines(keepends=True)
        number = next((i for i, line in enumerate(lines, start=1) if _parse(line, columns) is None), 1)
        reason = f"line {number}: not a time and {columns} finite numbers with a line end"
        raise FeatureError(f"{path}, {reason}: compute the feature again")
    return table[:, 1:]


@np.errstate(over="ignore")
def _parse(data: bytes, columns: int) -> npt.NDArray[np.float32] | None:
    """Return times and values [shape=(lines, 1 + columns)], or None if any line is malformed or there is none."""
    import pandas as pd

    if not data.endswith(b"\n") or data.translate(None, NUMBER_BYTES + b",\n"):
        return None  # pandas would accept a missing line end, and "true" as a number
    try:
        table: npt.NDArray[np.float32] = pd.read_csv(
            io.BytesIO(data), header=None, dtype=np.float32, skip_blank_lines=False, na_filter=False, low_memory=False
        ).to_numpy()
    except (ValueError, OverflowError):
        return None
    return table if table.shape[1] == 1 + columns and np.isfinite(table).all() else None
