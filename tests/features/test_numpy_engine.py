"""The NumPy engine computes the features as they are defined, from samples in blocks of any size."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
import scipy.fft
import scipy.signal
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genre.features import numpy_engine
from genre.features.transforms import BATCH_HOST_BLOCKS, CONTRAST_PEAKS, CONTRAST_VALLEYS, MFCC, TRANSFORMS, Transform
from tests.made import noise

SAMPLE_RATE = 22_050  # Hz
BATCH = BATCH_HOST_BLOCKS * 1024  # samples


@settings(max_examples=10, deadline=None)
@given(n=st.integers(1, 3 * BATCH), cuts=st.lists(st.integers(0, 3 * BATCH), max_size=6))
@example(n=BATCH, cuts=[1, BATCH - 1])
@example(n=BATCH + 1, cuts=[BATCH])
def test_the_features_do_not_depend_on_how_the_signal_is_cut(n: int, cuts: list[int]) -> None:
    samples = noise(n)
    pieces = np.split(samples, sorted(min(cut, n) for cut in cuts))
    parts = list(numpy_engine.compute_blocks(pieces, SAMPLE_RATE))
    for feature, whole in numpy_engine.compute(samples, SAMPLE_RATE).items():
        assert len(whole) == TRANSFORMS[feature].n_frames(n)
        assert np.concatenate([part[feature] for part in parts]).tobytes() == whole.tobytes()


@pytest.mark.parametrize("sample_rate", [10_000, 22_050, 96_000])
def test_every_sample_rate_follows_the_definition(sample_rate: int) -> None:
    samples = noise(9 * 1024 + 100)
    features = numpy_engine.compute(samples, sample_rate)
    mfcc, peaks, valleys = _by_definition(samples / 32768, sample_rate)
    assert {values.dtype for values in features.values()} == {np.dtype(np.float32)}
    np.testing.assert_allclose(features[MFCC.feature], mfcc, rtol=3e-7, atol=1e-6)
    np.testing.assert_allclose(features[CONTRAST_PEAKS.feature], peaks, rtol=3e-7)
    np.testing.assert_allclose(features[CONTRAST_VALLEYS.feature], valleys, rtol=3e-7)


@pytest.mark.parametrize(("n", "n_frames"), [(1, (1, 2, 2)), (3 * 1024, (3, 6, 6))])
def test_silence_of_any_length_gives_exact_zeros_in_rows_of_the_right_width(n: int, n_frames: tuple[int, ...]) -> None:
    features = numpy_engine.compute(np.zeros(n, np.int16), SAMPLE_RATE)
    assert [values.shape for values in features.values()] == list(zip(n_frames, (20, 7, 7), strict=True))
    for values in features.values():
        assert not values.view(np.uint32).any()  # not even -0


def test_float32_samples_give_the_features_of_int16_and_are_clipped_at_full_scale() -> None:
    samples = noise(5000)
    samples[:100] = -32768
    floats = (samples / 32768).astype(np.float32)
    floats[:100] = -2.0
    expected = numpy_engine.compute(samples, SAMPLE_RATE)
    for feature, values in numpy_engine.compute(floats, SAMPLE_RATE).items():
        assert values.tobytes() == expected[feature].tobytes()


def test_a_long_signal_needs_no_more_memory_than_a_short_one() -> None:
    def minutes(n: int) -> Iterator[npt.NDArray[np.int16]]:
        block = noise(60 * SAMPLE_RATE)
        for _ in range(n):
            yield block

    peaks = []
    for n in (1, 4):
        tracemalloc.start()
        n_rows = sum(len(part[MFCC.feature]) for part in numpy_engine.compute_blocks(minutes(n), SAMPLE_RATE))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert n_rows == MFCC.n_frames(n * 60 * SAMPLE_RATE)
    assert peaks[1] < peaks[0] + 1_000_000


def _by_definition(
    signal: npt.NDArray[np.float64], sample_rate: int
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return MFCC, peaks and valleys by their formulas."""
    edges = [66.6666666 + 66.66666666 * j for j in range(13)]
    edges += [edges[12] * 1.0711703**j for j in range(1, 30)]
    bins_hz = np.arange(MFCC.block // 2) * sample_rate / MFCC.block
    filters = [
        2 / (high - low) * np.interp(bins_hz, [low, centre, high], [0, 1, 0])
        for low, centre, high in zip(edges, edges[1:], edges[2:], strict=False)
    ]
    energies = np.array(list(_magnitudes(signal, MFCC))) @ np.transpose(filters)
    logs = np.log10(energies, where=energies > 0, out=np.zeros_like(energies))
    peaks, valleys = [], []
    for magnitude in _magnitudes(signal, CONTRAST_PEAKS):
        bands = [sorted(magnitude[low:high]) for low, high in [(0, 8)] + [(2**b, 2 ** (b + 1)) for b in range(3, 9)]]
        ends = [1 if len(band) < 50 else int(len(band) * 0.02 + 0.5) for band in bands]
        peaks.append([np.mean(band[-n:]) for band, n in zip(bands, ends, strict=True)])
        valleys.append([np.mean(band[:n]) for band, n in zip(bands, ends, strict=True)])
    return scipy.fft.dct(logs, norm="ortho")[:, :20], np.array(peaks), np.array(valleys)


def _magnitudes(signal: npt.NDArray[np.float64], transform: Transform) -> Iterator[npt.NDArray[np.float64]]:
    block, step = transform.block, transform.step
    padded = np.pad(signal, (block // 2, block))
    window = scipy.signal.get_window("hann", block)
    for i in range(transform.n_frames(len(signal))):
        frame = padded[i * step : i * step + block] * window
        yield np.abs(np.fft.rfft(frame).astype(np.complex64).astype(np.complex128))[: block // 2]
