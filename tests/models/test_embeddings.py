"""The embedding of a chunk is computed once and cached by the chunk's samples."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from genre.audio import chunks
from genre.cache import Cache
from genre.errors import AudioError, ModelError
from genre.features.numpy_engine import compute
from genre.models import embeddings
from genre.models.embeddings import EMBEDDINGS, Embedder, Embedding
from genre.paths import Paths
from tests.made import noise

RATE = 22_050


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Return an empty cache."""
    return Cache(tmp_path / "cache", max_bytes=10**9)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Return two chunk files of noise."""
    chunk_files = [tmp_path / f"{number}.wav" for number in range(2)]
    for number, path in enumerate(chunk_files):
        chunks.write(path, noise(2 * RATE, number), sample_rate=RATE)
    return chunk_files


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Add an embedding `mean` to the others; return the sample rates that it was called with."""
    rates: list[int] = []

    def mean(samples: npt.NDArray[np.int16], sample_rate: int, _paths: Paths) -> npt.NDArray[np.float32]:
        rates.append(sample_rate)
        return np.array([samples.mean()], np.float32)

    monkeypatch.setitem(EMBEDDINGS, "mean", Embedding(1, 1, of_audio=mean))
    return rates


def embedder(cache: Cache | None, name: str = "mean") -> Embedder:
    return embeddings.load(name, Paths(), cache=cache)


def test_chunk_files_are_embedded_once_and_in_order(cache: Cache, paths: list[Path], calls: list[int]) -> None:
    first = embedder(cache).of_files(paths, workers=1)
    np.testing.assert_array_equal(first[:, 0], [np.float32(chunks.read(path)[0].mean()) for path in paths])
    np.testing.assert_array_equal(embedder(cache).of_files(paths[::-1], workers=1), first[::-1])
    np.testing.assert_array_equal([embedder(cache).of_audio(*chunks.read(path)) for path in paths], first)
    assert calls == [RATE, RATE]
    embedder(None).of_audio(*chunks.read(paths[0]))
    assert len(calls) == 3


def test_chunk_files_are_embedded_at_another_level(cache: Cache, paths: list[Path], calls: list[int]) -> None:
    for _ in range(2):  # computed, then from the cache
        vectors = embedder(cache).of_files(paths, gains_db=(20.0, 0.0), workers=1)
        samples = [chunks.read(path)[0] * gain for gain in (10.0, 1.0) for path in paths]
        expected = [values.clip(-32768, 32767).mean() for values in samples]
        np.testing.assert_allclose(vectors[:, 0], expected, rtol=1e-5)
    assert len(calls) == 2 * len(paths)


def test_another_rate_or_version_is_another_embedding(
    cache: Cache, paths: list[Path], calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, _ = chunks.read(paths[0])
    embedder(cache).of_audio(samples, RATE)
    embedder(cache).of_audio(samples, 2 * RATE)
    monkeypatch.setitem(EMBEDDINGS, "mean", Embedding(1, 2, of_audio=EMBEDDINGS["mean"].of_audio))
    embedder(cache).of_audio(samples, RATE)
    assert calls == [RATE, 2 * RATE, RATE]


def test_an_embedding_of_features_computes_them_from_audio(cache: Cache, paths: list[Path]) -> None:
    features = [compute(*chunks.read(path)) for path in paths]
    statistics = embedder(cache, "statistics")
    for _ in range(2):  # computed, then from the cache
        vectors = statistics.of_files(paths, workers=2)
        np.testing.assert_array_equal(vectors, [embeddings.statistics(of_chunk) for of_chunk in features])
    stacked = {feature: np.stack([of_chunk[feature] for of_chunk in features]) for feature in features[0]}
    np.testing.assert_array_equal(statistics.of_features(stacked), vectors)


def test_a_file_that_is_no_chunk_is_named(cache: Cache, paths: list[Path], calls: list[int]) -> None:
    paths[1].write_bytes(b"no wav")
    with pytest.raises(AudioError, match=r"1\.wav"):
        embedder(cache).of_files(paths, workers=1)


def test_an_unknown_embedding_is_refused() -> None:
    with pytest.raises(ModelError, match="unknown embedding chroma; choose from statistics"):
        embedder(None, "chroma")


def test_silent_frames_do_not_change_the_statistics_of_the_mfcc() -> None:
    features = compute(noise(3 * RATE), RATE)
    padded = features | {"mfcc_coefficients": np.pad(features["mfcc_coefficients"], ((0, 50), (0, 0)))}
    np.testing.assert_array_equal(embeddings.statistics(padded), embeddings.statistics(features))
    assert np.isfinite(embeddings.statistics(compute(np.zeros(66_150, np.int16), RATE))).all()


@pytest.mark.slow
def test_librosa_ranges_are_minimum_mean_and_maximum() -> None:
    pytest.importorskip("librosa")
    values = embeddings.librosa_ranges(noise(3 * RATE), RATE, Paths())
    assert values.shape == (498,) == (EMBEDDINGS["librosa"].n_values,)
    low, mean, high = values[:60].reshape(3, 20)  # of the MFCC
    assert (low < mean).all()
    assert (mean < high).all()
