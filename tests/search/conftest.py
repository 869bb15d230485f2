"""Indexes of synthetic songs, and settings of search."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from genre import params
from genre.params import Params
from genre.search.engine import IndexedSong
from genre.search.landmark_index import LandmarkIndex, song_peaks, write
from genre.search.landmarks import Peaks
from tests.made import ROOT, Signal


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILVUS_URI", raising=False)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)


DENSITY = 0.5


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


def search_params(dataset: str = "demo", index_params: dict[str, int] | None = None, **index: object) -> Params:
    """Return params.yaml with other values of the section `index`."""
    settings = params.load(ROOT / "params.yaml")
    changes = {
        "dataset": settings.dataset.model_copy(update={"name": dataset}),
        "index": settings.index.model_copy(update=index),
        "search": settings.search.model_copy(update={"index_params": index_params or {}}),
    }
    return settings.model_copy(update=changes)
