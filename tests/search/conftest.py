"""Indexes of synthetic songs, and settings of search."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from genre import params
from genre.params import Params
from genre.search.engine import IndexedSong
from genre.search.landmark_index import LandmarkIndex, Landmarks
from tests.made import ROOT, Signal


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILVUS_URI", raising=False)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)


def landmark_index(songs: Sequence[Signal]) -> LandmarkIndex:
    """Return the index of songs named song0, song1, ..., whose SHA-256 are their numbers."""
    names = [IndexedSong(f"{i:064x}", f"song{i}", "synthetic") for i in range(len(songs))]
    return LandmarkIndex.build(list(zip(names, map(Landmarks.of_samples, songs), strict=True)))


def search_params(dataset: str = "demo", index_params: dict[str, int] | None = None, **index: object) -> Params:
    """Return params.yaml with other values of the section `index`."""
    settings = params.load(ROOT / "params.yaml")
    changes = {
        "dataset": settings.dataset.model_copy(update={"name": dataset}),
        "index": settings.index.model_copy(update=index),
        "search": settings.search.model_copy(update={"index_params": index_params or {}}),
    }
    return settings.model_copy(update=changes)
