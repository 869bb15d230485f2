"""The feature CSV, byte for byte as sonic-annotator writes it: a time stamp, then the values of one frame.

Numbers are formatted by the column with NumPy and parsed by simdjson (a line is the inside of a JSON array):
both cost a few nanoseconds a value, where Python's own conversions cost a hundred.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import numpy.typing as npt
import simdjson

from genre import files
from genre.errors import FeatureError

VALUES_PER_BLOCK = 16_384  # formatted together: the intermediate arrays stay in the L2 cache
BYTES_PER_READ = 1 << 17  # parsed together, for the same reason


def format_rows(values: npt.NDArray[np.float32], sample_rate: int, step: int, first_frame: int = 0) -> bytes:
    """Return the CSV lines of consecutive frames, as sonic-annotator 1.6 prints them.

    Parameters
    ----------
    values : float32 array [shape=(frames, columns)]
        Finite values; each becomes C's ``%.6g`` with the leading zero of a two-digit exponent dropped.
    sample_rate : int
        Hz.
    step : int
        Samples from one frame to the next.
    first_frame : int
        Number of the first row: row i has the time (first_frame + i) * step / sample_rate seconds.

    Raises
    ------
    FeatureError
        If a value is NaN or infinite.
    """
    if not np.isfinite(values).all():
        raise FeatureError("a feature has a value that is NaN or infinite: it cannot be written")
    n_rows = max(1, VALUES_PER_BLOCK // max(1, values.shape[1]))
    return b"".join(
        _format_block(values[start : start + n_rows], sample_rate, step, first_frame + start)
        for start in range(0, len(values), n_rows)
    )


def write(
    path: Path,
    values: npt.NDArray[np.float32] | Iterable[npt.NDArray[np.float32]],
    *,
    sample_rate: int,
    step: int,
) -> None:
    """Write a feature to `path` atomically.

    Parameters
    ----------
    path : Path
        Missing parent folders are made.
    values : float32 array [shape=(frames, columns)], or an iterable of such arrays
        The frames, or consecutive pieces of them, which are then held one at a time.
    sample_rate, step
        As for `format_rows`.

    Raises
    ------
    FeatureError
        As for `format_rows`.
    """
    parts = (values,) if isinstance(values, np.ndarray) else values
    with files.atomic_path(path) as temporary, temporary.open("wb") as stream:
        first_frame = 0
        for part in parts:
            stream.write(format_rows(part, sample_rate, step, first_frame))
            first_frame += len(part)


def read(path: Path, *, columns: int | None = None) -> npt.NDArray[np.float32]:
    """Read the values of a feature CSV, without their times.

    Parameters
    ----------
    path : Path
        A file as `write` or sonic-annotator makes it.
    columns : int, optional
        Values that each line must have after its time; by default as many as the first line has.

    Returns
    -------
    float32 array [shape=(frames, columns)]

    Raises
    ------
    FeatureError
        If the file is missing or empty, ends inside a line, or has a line with another number of values or with
        anything that is not a finite number. The message names file and line.
    """
    try:
        with path.open("rb") as stream:
            return _read_stream(stream, columns)
    except OSError as error:
        raise FeatureError(f"{path}: cannot be read ({error.strerror})") from error
    except _MalformedError as error:
        raise FeatureError(f"{path}{error}: compute the feature again") from None


class _MalformedError(Exception):
    """The rest of a sentence that begins with the file's name."""


# Formatting. A number is 16 bytes, any of which may be NUL, and the NULs are deleted at the end:
#   head (4)  ',' '-' '0' '.'        '0.' only for 0.0001 <= |value| < 1
#   body (8)  the six digits without trailing zeros, with the point or with the zeros after '0.'
#   tail (4)  'e-10', or the digit that does not fit in the body
# Bytes are handled eight at a time as uint64, first character lowest.

_LOWEST, _HIGHEST = -45, 39  # decimal exponents of float32, one more for 9.999999e38 rounding up
_ZERO_DIGITS = np.uint64(0x303030303030)


def _format_block(values: npt.NDArray[np.float32], sample_rate: int, step: int, first_frame: int) -> bytes:
    n_rows, n_columns = values.shape
    slots = np.zeros((n_rows, 5 + 4 * n_columns + 1), np.dtype("<u4"))
    _put_times(slots[:, :5], sample_rate, step, first_frame)
    _put_values(slots[:, 5:-1].reshape(n_rows, n_columns, 4), np.ascontiguousarray(values, np.float32))
    slots[:, -1] = ord("\n")
    return slots.tobytes().translate(None, b"\0")


def _put_times(slots: npt.NDArray[np.uint32], sample_rate: int, step: int, first_frame: int) -> None:
    """Fill `slots` [shape=(rows, 5)]: eight characters for the seconds (three years), then '.' and nine digits."""
    samples = np.arange(first_frame, first_frame + len(slots)) * step
    seconds, rest = np.divmod(samples, sample_rate)
    nanoseconds = (2_000_000_000 * rest + sample_rate) // (2 * sample_rate)  # rounded half up
    first = int(seconds[0])
    texts = np.array([b"%d" % s for s in range(first, int(seconds[-1]) + 1)], "S8")
    slots[:, :2] = texts.view("<u4").reshape(-1, 2)[seconds - first]
    tables = _tables()
    thousands, low = np.divmod(nanoseconds, 1000)
    high, middle = np.divmod(thousands, 1000)
    slots[:, 2] = ord(".") | tables.digits[high] << np.uint64(8)
    slots[:, 3] = tables.digits[middle] | (tables.digits[low] & np.uint64(0xFF)) << np.uint64(24)
    slots[:, 4] = tables.digits[low] >> np.uint64(8)


def _put_values(slots: npt.NDArray[np.uint32], values: npt.NDArray[np.float32]) -> None:
    """Fill `slots` [shape=(rows, columns, 4)] with ',' and ``%.6g`` of each value."""
    tables = _tables()
    magnitude = np.abs(values, dtype=np.float64)
    binary = (values.view(np.uint32) >> 23 & 0xFF).astype(np.intp)
    exponent = tables.exponent[binary]
    exponent += magnitude >= tables.next_power[binary]
    scaled = magnitude * tables.scale[exponent]
    rounded = np.rint(scaled)
    carried = rounded >= 1e6
    if carried.any():
        rounded[carried] = 1e5
        exponent[carried] += 1

    high = ((rounded + 0.5) * 1e-3).astype(np.intp)
    low = rounded.astype(np.intp) - 1000 * high
    digits = np.where(low == 0, tables.stripped[high], tables.digits[high] | tables.stripped[low] << np.uint64(24))
    fraction = digits >> tables.whole_bits[exponent]
    body = (digits | _ZERO_DIGITS) & tables.whole_mask[exponent]
    body |= fraction << tables.fraction_at[exponent]
    body |= tables.zeros[exponent]
    body |= np.where(fraction != 0, tables.point[exponent], np.uint64(0))

    slots[..., 0] = tables.head[exponent] | np.signbit(values) * np.uint32(ord("-") << 8)
    slots[..., 1:3] = body.view("<u4").reshape(*body.shape, 2)
    slots[..., 3] = tables.tail[exponent] | fraction >> tables.spill_at[exponent]

    # The products carry an error of up to 3e-10, so what is nearer to a tie is left to C; so are denormals,
    # whose exponent the tables do not have.
    doubtful = np.abs(scaled - rounded) > 0.5 - 1e-9
    doubtful |= (binary == 0) & (magnitude > 0)
    for index in zip(*np.nonzero(doubtful), strict=True):
        text = b",%.6g" % float(values[index])
        slots[index] = np.frombuffer(text.replace(b"e-0", b"e-").replace(b"e+0", b"e+").ljust(16, b"\0"), "<u4")


@dataclass(frozen=True, slots=True)
class _Tables:
    """What the formatting looks up, by three digits, by binary exponent, or by decimal exponent - _LOWEST."""

    digits: npt.NDArray[np.uint64]  # '000' to '999'
    stripped: npt.NDArray[np.uint64]  # the same without trailing zeros
    exponent: npt.NDArray[np.intp]  # of the smallest value of a binade
    next_power: npt.NDArray[np.float64]  # of ten, above that value
    scale: npt.NDArray[np.float64]  # makes six digits before the point
    whole_bits: npt.NDArray[np.uint64]  # 8 * digits before the point
    whole_mask: npt.NDArray[np.uint64]
    point: npt.NDArray[np.uint64]  # '.' in its place
    fraction_at: npt.NDArray[np.uint64]  # bits to the first digit after the point
    zeros: npt.NDArray[np.uint64]  # '000' after '0.'
    spill_at: npt.NDArray[np.uint64]  # bits of the fraction that fit in the body
    head: npt.NDArray[np.uint32]
    tail: npt.NDArray[np.uint32]


@functools.cache
def _tables() -> _Tables:
    exponents = range(_LOWEST, _HIGHEST + 1)
    smallest = [2.0 ** max(b - 127, -126) for b in range(256)]
    decimal = [math.floor(math.log10(x)) for x in smallest]
    decimal[0] = 0  # zero is a digit before the point

    def whole(e: int) -> int:
        return 0 if -4 <= e < 0 else e + 1 if 0 <= e < 6 else 1

    def leading_zeros(e: int) -> int:
        return -1 - e if -4 <= e < 0 else 0

    def words(texts: Iterable[str]) -> npt.NDArray[np.uint64]:
        return np.array([int.from_bytes(t.encode(), "little") for t in texts], np.uint64)

    return _Tables(
        digits=words(f"{n:03d}" for n in range(1000)),
        stripped=words(f"{n:03d}".rstrip("0") for n in range(1000)),
        exponent=np.array(decimal) - _LOWEST,
        next_power=np.array([math.inf] + [10.0 ** (e + 1) for e in decimal[1:]]),
        scale=np.array([float(f"1e{5 - e}") for e in exponents]),
        whole_bits=np.array([8 * whole(e) for e in exponents], np.uint64),
        whole_mask=np.array([256 ** whole(e) - 1 for e in exponents], np.uint64),
        point=np.array([ord(".") << 8 * whole(e) if whole(e) else 0 for e in exponents], np.uint64),
        fraction_at=np.array([8 * (whole(e) + 1) if whole(e) else 8 * leading_zeros(e) for e in exponents], np.uint64),
        zeros=words("0" * leading_zeros(e) for e in exponents),
        spill_at=np.array([64 - 8 * leading_zeros(e) if leading_zeros(e) else 63 for e in exponents], np.uint64),
        head=words("," + "\0" + ("0." if -4 <= e < 0 else "") for e in exponents).astype(np.uint32),
        tail=words("" if -4 <= e < 6 else f"e{e:+d}" for e in exponents).astype(np.uint32),
    )


# Reading. Line ends become a number that no float32 can be, so that the place of each is checked with the values.

_LINE_END = 1e300
_SEPARATOR = b",1e300,"


def _read_stream(stream: BinaryIO, columns: int | None) -> npt.NDArray[np.float32]:
    parts: list[npt.NDArray[np.float32]] = []
    n_lines = 0
    while data := stream.read(BYTES_PER_READ):
        data += stream.readline()
        if columns is None:
            columns = data.partition(b"\n")[0].count(b",")
            if columns == 0:
                raise _MalformedError(", line 1: there is no value after the time")
        part = _parse(data, columns)
        if part is None:
            raise _first_bad_line(data, columns, n_lines)
        parts.append(part)
        n_lines += len(part)
    if not parts:
        raise _MalformedError(" is empty")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _parse(data: bytes, columns: int) -> npt.NDArray[np.float32] | None:
    """Return the values [shape=(lines, columns)] of whole lines, or None if there is anything wrong."""
    if not data.endswith(b"\n") or b"[" in data:
        return None
    text = data.replace(b"\n", _SEPARATOR)
    n_lines = (len(text) - len(data)) // (len(_SEPARATOR) - 1)  # counting them would take a sixth of the time
    try:
        array = simdjson.Parser().parse(b"[" + text[:-1] + b"]")
        numbers = np.frombuffer(cast(simdjson.Array, array).as_buffer(of_type="d"))
    except (ValueError, TypeError, RuntimeError):
        return None
    if numbers.size % (columns + 2):
        return None
    table = numbers.reshape(-1, columns + 2)
    if len(table) != n_lines or not (table[:, -1] == _LINE_END).all():  # a line may hold that number too
        return None
    with np.errstate(over="ignore"):
        values = table[:, 1:-1].astype(np.float32)
    return values if np.isfinite(values).all() else None


def _first_bad_line(data: bytes, columns: int, n_before: int) -> _MalformedError:
    *lines, last = data.split(b"\n")
    for number, line in enumerate(lines, start=n_before + 1):
        n_values = line.count(b",")
        if n_values != columns:
            return _MalformedError(f", line {number}: {n_values} values after the time, not {columns}")
        if _parse(line + b"\n", columns) is None:
            return _MalformedError(f", line {number}: something is not a finite number")
    return _MalformedError(f", line {n_before + len(lines) + 1}: the file ends inside it ({len(last)} bytes)")
