"""The vector of a chunk is made once, and found again by the chunk's samples."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from genre.audio import chunks
from genre.cache import Cache
from genre.errors import AudioError
from genre.models import embeddings
from genre.models.embeddings import EMBEDDINGS, Embedding

RATE = 22_050


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Return an empty cache."""
    return Cache(tmp_path / "cache", max_bytes=10**9)


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Return two chunk files of noise."""
    rng = np.random.default_rng(0)
    made = [tmp_path / f"{number}.wav" for number in range(2)]
    for path in made:
        chunks.write(path, rng.integers(-9000, 9000, 2 * RATE, dtype=np.int16), sample_rate=RATE)
    return made


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Put an embedding `mean` beside the others; return the sample rates that it was called with."""
    rates: list[int] = []

    def mean(samples: npt.NDArray[np.int16], sample_rate: int) -> npt.NDArray[np.float32]:
        rates.append(sample_rate)
        return np.array([samples.mean()], np.float32)

    monkeypatch.setitem(EMBEDDINGS, "mean", Embedding(1, 1, of_samples=mean))
    return rates


def test_chunk_files_are_embedded_once_and_in_order(cache: Cache, paths: list[Path], calls: list[int]) -> None:
    first = embeddings.of_files("mean", paths, cache=cache, workers=1)
    np.testing.assert_array_equal(first[:, 0], [np.float32(chunks.read(path)[0].mean()) for path in paths])
    again = embeddings.of_files("mean", paths[::-1], cache=cache, workers=1)
    np.testing.assert_array_equal(again, first[::-1])
    assert calls == [RATE, RATE]


def test_who_embeds_samples_finds_what_was_made_of_files(cache: Cache, paths: list[Path], calls: list[int]) -> None:
    made = embeddings.of_files("mean", paths, cache=cache, workers=1)
    found = embeddings.embed("mean", audio=map(chunks.read, paths), cache=cache)
    np.testing.assert_array_equal(found, made)
    assert len(calls) == 2
    embeddings.embed("mean", audio=map(chunks.read, paths))
    assert len(calls) == 4


def test_another_rate_or_version_is_another_vector(
    cache: Cache, paths: list[Path], calls: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    samples, _ = chunks.read(paths[0])
    embeddings.of_samples("mean", samples, RATE, cache)
    embeddings.of_samples("mean", samples, 2 * RATE, cache)
    monkeypatch.setitem(EMBEDDINGS, "mean", Embedding(1, 2, of_samples=EMBEDDINGS["mean"].of_samples))
    embeddings.of_samples("mean", samples, RATE, cache)
    assert calls == [RATE, 2 * RATE, RATE]


def test_an_embedding_of_features_takes_those_of_the_built_in_engine(cache: Cache, paths: list[Path]) -> None:
    from genre.features.numpy_engine import compute

    expected = [embeddings.statistics(compute(*chunks.read(path))) for path in paths]
    for _ in range(2):  # made, then found
        np.testing.assert_array_equal(embeddings.of_files("statistics", paths, cache=cache, workers=2), expected)


def test_a_file_that_is_no_chunk_is_named(cache: Cache, paths: list[Path], calls: list[int]) -> None:
    paths[1].write_bytes(b"no wav")
    with pytest.raises(AudioError, match=r"1\.wav"):
        embeddings.of_files("mean", paths, cache=cache, workers=1)


def test_no_files_are_no_vectors(cache: Cache, calls: Any) -> None:
    assert embeddings.of_files("mean", [], cache=cache).shape == (0, 1)
    assert calls == []
