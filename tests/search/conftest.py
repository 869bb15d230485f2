"""Indexes of synthetic songs, and a vector store."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from genre import params
from genre.models.embeddings import Vectors
from genre.paths import Paths
from genre.search import store
from genre.search.engine import IndexedSong
from genre.search.landmark_index import LandmarkIndex, song_peaks, write
from genre.search.landmarks import Peaks
from genre.search.store import VectorStore, Window
from tests.made import ROOT, Signal

DENSITY = 0.5  # of landmarks
DIMENSION = 8  # of vectors
DIGEST = "0123456789abcdef" * 4
SHA = [f"{i:064x}" for i in range(6)]


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILVUS_URI", raising=False)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)


def landmark_items(songs: Sequence[Signal]) -> list[tuple[IndexedSong, Peaks]]:
    """Return songs named song0, song1, ..., whose SHA-256 are their numbers, with their peaks."""
    return [(IndexedSong(f"{i:064x}", f"song{i}", "synthetic"), song_peaks(samples)) for i, samples in enumerate(songs)]


def landmark_index(songs: Sequence[Signal]) -> LandmarkIndex:
    """Return the index of `landmark_items`."""
    with tempfile.TemporaryDirectory() as folder:
        return write_landmarks(Path(folder), landmark_items(songs))


def write_landmarks(folder: Path, items: Sequence[tuple[IndexedSong, Peaks]]) -> LandmarkIndex:
    """Write the index of songs with their peaks, and return it."""
    of_songs = dict(items)
    return write(folder, of_songs, lambda part: [of_songs[song] for song in part], DENSITY)


@contextlib.contextmanager
def connected(
    uri: str,
    *,
    dataset: str = "demo",
    digest: str = DIGEST,
    index_params: dict[str, int] | None = None,
    **index: object,
) -> Iterator[VectorStore]:
    """Connect to a store with params.yaml and other values of its section `index`."""
    settings = params.load(ROOT / "params.yaml")
    changes = {
        "dataset": settings.dataset.model_copy(update={"name": dataset}),
        "index": settings.index.model_copy(update={"uri": uri, **index}),
        "search": settings.search.model_copy(update={"index_params": index_params or {}}),
    }
    changed = settings.model_copy(update=changes)
    with store.connect(changed, Paths(), kind="chunks", digest=digest, dimension=DIMENSION) as collection:
        yield collection


def windows_of(*songs: int, n: int = 3) -> tuple[list[Window], Vectors]:
    """Return `n` windows of each song, with vectors that differ between songs and windows."""
    windows = [Window(IndexedSong(SHA[song], f"song {song}", "rock"), 30.0 * k) for song in songs for k in range(n)]
    vectors = np.concatenate([np.random.default_rng(song).standard_normal((n, DIMENSION)) for song in songs])
    return windows, vectors.astype(np.float32)
