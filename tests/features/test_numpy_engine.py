"""The NumPy engine gives sonic-annotator's numbers, however the signal arrives."""

from __future__ import annotations

import tracemalloc
import wave
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre.errors import FeatureError
from genre.features import csv, numpy_engine
from genre.features.transforms import CONTRAST_PEAKS, CONTRAST_VALLEYS, MFCC, TRANSFORMS, Transform

GOLDEN = Path(__file__).parents[1] / "golden"
SAMPLE_RATE = 22_050  # Hz
BATCH = numpy_engine.BATCH_HOST_BLOCKS * 1024  # samples


@pytest.mark.parametrize("transform", TRANSFORMS.values(), ids=lambda t: t.feature)
@pytest.mark.parametrize("wav", sorted(GOLDEN.glob("*.wav")), ids=lambda p: p.stem)
def test_golden_files_come_out_byte_for_byte(wav: Path, transform: Transform) -> None:
    samples, sample_rate = _read_wav(wav)
    values = numpy_engine.compute(samples, sample_rate)[transform.feature]
    expected = (GOLDEN / transform.csv_name(wav.stem)).read_bytes()
    assert csv.format_rows(values, sample_rate, transform.step) == expected


def test_there_are_golden_files() -> None:
    assert len(list(GOLDEN.glob("*.wav"))) == 6
    assert len(list(GOLDEN.glob("*.csv"))) == 18


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 3 * BATCH),
    cuts=st.lists(st.integers(0, 3 * BATCH), max_size=6),
)
def test_the_signal_may_be_cut_anywhere(n: int, cuts: list[int]) -> None:
    samples = _noise(n)
    pieces = np.split(samples, sorted(min(cut, n) for cut in cuts))
    parts = list(numpy_engine.compute_blocks(pieces, SAMPLE_RATE))
    for feature, whole in numpy_engine.compute(samples, SAMPLE_RATE).items():
        assert np.concatenate([part[feature] for part in parts]).tobytes() == whole.tobytes()


@pytest.mark.parametrize("n", [BATCH - 1, BATCH, BATCH + 1])
def test_a_signal_longer_than_one_batch_may_be_cut_anywhere(n: int) -> None:
    samples = _noise(n)
    parts = list(numpy_engine.compute_blocks(np.array_split(samples, 7), SAMPLE_RATE))
    assert len(parts) == -(-n // BATCH)
    for feature, whole in numpy_engine.compute(samples, SAMPLE_RATE).items():
        assert len(whole) == TRANSFORMS[feature].n_frames(n)
        assert np.concatenate([part[feature] for part in parts]).tobytes() == whole.tobytes()


def test_a_frame_does_not_depend_on_what_comes_long_after_it() -> None:
    samples = _noise(2 * BATCH)
    beginning = numpy_engine.compute(samples[: 5 * 1024], SAMPLE_RATE)
    for feature, whole in numpy_engine.compute(samples, SAMPLE_RATE).items():
        assert whole[: len(beginning[feature])].tobytes() == beginning[feature].tobytes()


@pytest.mark.parametrize("sample_rate", [10_000, 12_700, 22_050, 48_000, 96_000, 200_000])
def test_every_sample_rate_follows_the_definition(sample_rate: int) -> None:
    samples = _noise(9 * 1024 + 100)
    found = numpy_engine.compute(samples, sample_rate)
    mfcc, peaks, valleys = _by_definition(samples / 32768, sample_rate)
    assert found[MFCC.feature].dtype == found[CONTRAST_PEAKS.feature].dtype == np.float32
    np.testing.assert_allclose(found[MFCC.feature], mfcc, rtol=3e-7, atol=1e-6)
    np.testing.assert_allclose(found[CONTRAST_PEAKS.feature], peaks, rtol=3e-7)
    np.testing.assert_allclose(found[CONTRAST_VALLEYS.feature], valleys, rtol=3e-7)


def test_silence_gives_twenty_exact_zeros() -> None:
    found = numpy_engine.compute(np.zeros(3 * 1024, np.int16), SAMPLE_RATE)
    assert found[MFCC.feature].shape == (3, 20)
    for values in found.values():
        assert not values.view(np.uint32).any()  # not even -0


def test_an_empty_signal_gives_no_rows_of_the_right_width() -> None:
    for feature, values in numpy_engine.compute(np.zeros(0, np.int16), SAMPLE_RATE).items():
        assert values.shape == (0, TRANSFORMS[feature].columns)
        assert values.dtype == np.float32
    assert not list(numpy_engine.compute_blocks([], SAMPLE_RATE))


def test_one_sample_gives_one_chunk_of_frames() -> None:
    found = numpy_engine.compute(np.array([12345], np.int16), SAMPLE_RATE)
    assert [values.shape for values in found.values()] == [(1, 20), (2, 7), (2, 7)]
    assert all(np.isfinite(values).all() for values in found.values())


def test_int16_and_float32_samples_mean_the_same() -> None:
    samples = _noise(5000)
    as_float = (samples / 32768).astype(np.float32)
    for feature, values in numpy_engine.compute(as_float, SAMPLE_RATE).items():
        assert values.tobytes() == numpy_engine.compute(samples, SAMPLE_RATE)[feature].tobytes()


def test_float_samples_are_clipped_at_full_scale() -> None:
    samples = 2 * np.sin(np.arange(4096) / 5).astype(np.float32)
    clipped = numpy_engine.compute(np.clip(samples, -1, 1), SAMPLE_RATE)
    for feature, values in numpy_engine.compute(samples, SAMPLE_RATE).items():
        assert values.tobytes() == clipped[feature].tobytes()


@pytest.mark.parametrize(
    "samples",
    [
        np.zeros((2, 1024), np.int16),
        np.zeros(1024, np.float64),
        np.zeros(1024, np.int32),
        np.array([0.0, np.nan], np.float32),
        np.array([0.0, np.inf], np.float32),
    ],
    ids=["stereo", "float64", "int32", "nan", "infinity"],
)
def test_samples_it_cannot_take_are_refused(samples: npt.NDArray[np.float32]) -> None:
    with pytest.raises(FeatureError, match="the samples"):
        numpy_engine.compute(samples, SAMPLE_RATE)


def test_a_sample_rate_of_zero_is_refused() -> None:
    with pytest.raises(FeatureError, match="sample rate is 0 Hz"):
        numpy_engine.compute(_noise(100), 0)


def test_a_long_signal_needs_no_more_memory_than_a_short_one() -> None:
    def minutes(n: int) -> Iterator[npt.NDArray[np.int16]]:
        block = _noise(60 * SAMPLE_RATE)
        for _ in range(n):
            yield block

    peaks = []
    for n in (1, 10):
        tracemalloc.start()
        n_rows = sum(len(part[MFCC.feature]) for part in numpy_engine.compute_blocks(minutes(n), SAMPLE_RATE))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n_rows == MFCC.n_frames(n * 60 * SAMPLE_RATE)
    assert peaks[1] < peaks[0] + 1_000_000


def _read_wav(path: Path) -> tuple[npt.NDArray[np.int16], int]:
    with wave.open(str(path)) as stream:
        assert (stream.getnchannels(), stream.getsampwidth()) == (1, 2)
        return np.frombuffer(stream.readframes(-1), "<i2").astype(np.int16), stream.getframerate()


def _noise(n: int) -> npt.NDArray[np.int16]:
    return np.random.default_rng(n).normal(0, 3000, n).astype(np.int16)


def _by_definition(
    signal: npt.NDArray[np.float64], sample_rate: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return MFCC, peaks and valleys as the formulas say, one number at a time."""
    mfcc = []
    for magnitude in _magnitudes(signal, MFCC):
        edges = [66.6666666 + 66.66666666 * j for j in range(13)]
        edges += [edges[12] * 1.0711703**j for j in range(1, 30)]
        logs = []
        for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False):
            energy = 0.0
            for k, value in enumerate(magnitude):
                f = k * sample_rate / MFCC.block
                if low < f <= centre:
                    energy += 2 / (high - low) * (f - low) / (centre - low) * value
                elif centre < f < high:
                    energy += 2 / (high - low) * (high - f) / (high - centre) * value
            logs.append(np.log10(energy) if energy > 0 else 0.0)
        mfcc.append(
            [
                np.sqrt((1 if i == 0 else 2) / 40)
                * sum(log * np.cos(np.pi * i * (q + 0.5) / 40) for q, log in enumerate(logs))
                for i in range(20)
            ]
        )
    peaks, valleys = [], []
    for magnitude in _magnitudes(signal, CONTRAST_PEAKS):
        bands = [sorted(magnitude[low:high]) for low, high in [(0, 8)] + [(2**b, 2 ** (b + 1)) for b in range(3, 9)]]
        ends = [1 if len(band) < 50 else int(len(band) * 0.02 + 0.5) for band in bands]
        peaks.append([np.mean(band[-n:]) for band, n in zip(bands, ends, strict=True)])
        valleys.append([np.mean(band[:n]) for band, n in zip(bands, ends, strict=True)])
    return np.array(mfcc), np.array(peaks), np.array(valleys)


def _magnitudes(signal: npt.NDArray[np.float64], transform: Transform) -> Iterator[npt.NDArray[np.float64]]:
    block, step = transform.block, transform.step
    padded = np.pad(signal, (block // 2, block))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(block) / block)
    for i in range(transform.n_frames(len(signal))):
        frame = padded[i * step : i * step + block] * window
        yield np.abs(np.fft.rfft(frame).astype(np.complex64).astype(np.complex128))[: block // 2]
