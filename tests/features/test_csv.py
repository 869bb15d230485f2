"""The feature CSV is byte for byte that of sonic-annotator; malformed files are refused."""

from __future__ import annotations

from collections.abc import Callable
from decimal import ROUND_HALF_UP, Context
from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from genre.errors import FeatureError
from genre.features import csv
from genre.features.transforms import TRANSFORMS
from tests.made import GOLDEN


def _bit_patterns() -> npt.NDArray[np.float32]:
    return np.random.default_rng(1).integers(0, 2**32, 200_000, np.uint32).view(np.float32)


def _ties() -> npt.NDArray[np.float32]:
    """Return values halfway between two numbers of six digits, and others with few bits."""
    rng = np.random.default_rng(2)
    dyadic = rng.integers(-(2**24), 2**24, 100_000) / 2.0 ** rng.integers(0, 24, 100_000)
    halves = (rng.integers(100_000, 1_000_000, 100_000) + 0.5) * 10.0 ** rng.integers(-43, 33, 100_000)
    ties = (2 * rng.integers(100_000, 1_000_000, 100_000) + 1) / 2.0 ** rng.integers(1, 11, 100_000)
    return np.concatenate([dyadic, halves, ties]).astype(np.float32)


def _neighbours_of_powers() -> npt.NDArray[np.float32]:
    powers = np.array([float(f"1e{e}") for e in range(-45, 39)] + [2.0**e for e in range(-149, 128)], np.float32)
    nines = np.array([float(f"9.999995e{e}") for e in range(-45, 38)], np.float32)
    bits = np.concatenate([powers, nines]).view(np.int32)
    return np.maximum(bits[:, np.newaxis] + np.arange(-9, 10, dtype=np.int32), 0).ravel().view(np.float32)


@pytest.mark.parametrize("make", [_bit_patterns, _ties, _neighbours_of_powers])
def test_values_are_printed_as_qt_prints_them(make: Callable[[], npt.NDArray[np.float32]]) -> None:
    values = make()
    values = values[np.isfinite(values)]
    lines = csv.format_rows(values.reshape(-1, 1), 22_050, 512).decode().splitlines()
    assert [line.split(",")[1] for line in lines] == _as_qt(values)


@settings(max_examples=50, deadline=None)
@given(first_frame=st.integers(0, 10**7), sample_rate=st.integers(1000, 400_000), step=st.sampled_from([512, 1024]))
def test_times_are_rounded_to_the_nearest_nanosecond(first_frame: int, sample_rate: int, step: int) -> None:
    lines = csv.format_rows(np.zeros((3, 1), np.float32), sample_rate, step, first_frame).decode().splitlines()
    for frame, line in enumerate(lines, start=first_frame):
        nanoseconds = int(Fraction(frame * step * 10**9, sample_rate) + Fraction(1, 2))
        assert line.split(",")[0] == f"{nanoseconds // 10**9}.{nanoseconds % 10**9:09d}"


def test_rows_formatted_in_pieces_or_from_a_view_are_those_formatted_at_once() -> None:
    values = np.exp(np.random.default_rng(0).normal(0, 4, (3000, 7))).astype(np.float32)
    pieces = [csv.format_rows(values[at : at + 700], 44_100, 512, at) for at in range(0, 3000, 700)]
    assert b"".join(pieces) == csv.format_rows(values, 44_100, 512)
    assert csv.format_rows(values[:0], 44_100, 512) == b""
    assert csv.format_rows(values[::2, ::2], 22_050, 512) == csv.format_rows(values[::2, ::2].copy(), 22_050, 512)
    for bad in (np.nan, np.inf):
        with pytest.raises(FeatureError, match="NaN or infinite"):
            csv.format_rows(np.array([[1.0, bad]], np.float32), 22_050, 512)


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.csv")), ids=lambda p: p.stem)
def test_golden_files_are_read_and_written_byte_for_byte(path: Path) -> None:
    transform = next(t for t in TRANSFORMS.values() if path.name.endswith(t.csv_name("")))
    sample_rate = 22_050 if "_22k_" in path.name else 44_100
    values = csv.read(path, transform.columns)
    np.testing.assert_array_equal(values, np.genfromtxt(path, delimiter=",")[:, 1:].astype(np.float32))
    assert csv.format_rows(values, sample_rate, transform.step) == path.read_bytes()


@settings(max_examples=50, deadline=None)
@given(values=st_numpy.arrays(np.float32, (5, 3), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
def test_reading_gives_the_float32_next_to_what_is_printed(
    values: npt.NDArray[np.float32], tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("csv") / "f.csv"
    path.write_bytes(csv.format_rows(values, 22_050, 512))
    expected = np.array([float(text) for text in _as_qt(values)], np.float32).reshape(values.shape)
    np.testing.assert_array_equal(csv.read(path, 3), expected)


@pytest.mark.parametrize(
    ("content", "line"),
    [
        (b"", 1),
        (b"0.000000000\n", 1),
        (b"0,1,2,3\n", 1),
        (b"0,1,2\n1,1\n", 2),
        (b"0,1,2\n1,1,2\n2,1,2", 3),
        (b"0,1,2\n1,1,x\n", 2),
        (b"0,1,nan\n", 1),
        (b"0,1,1e39\n", 1),
        (b"0,1,null\n", 1),
        (b"0,1],[2\n", 1),
        (b"0,1,2\n1,\0\0\0\0\n", 2),
    ],
)
def test_a_missing_or_malformed_file_is_refused_by_name_and_line(content: bytes, line: int, tmp_path: Path) -> None:
    path = tmp_path / "f.csv"
    with pytest.raises(FeatureError, match=r"f\.csv: cannot be read \(No such file"):
        csv.read(path, 2)
    path.write_bytes(content)
    with pytest.raises(FeatureError, match=rf"{path}, line {line}: not a time and 2 finite numbers"):
        csv.read(path, 2)


def _as_qt(values: npt.NDArray[np.float32]) -> list[str]:
    """Return each value as C's "%.6g" prints it after rounding its exact digits half away from zero."""
    rounded = Context(prec=6, rounding=ROUND_HALF_UP, Emin=-99).create_decimal_from_float
    texts = [f"{float(rounded(v)):.6g}" for v in values.ravel().tolist()]
    return [text.replace("e-0", "e-").replace("e+0", "e+") for text in texts]
