"""Synthetic songs for the tests of search: random notes, different for every seed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from genre import params
from genre.params import Params
from genre.search.engine import IndexedSong
from genre.search.landmark_index import LandmarkIndex, Landmarks
from genre.search.landmarks import SAMPLE_RATE
from tests.made import ROOT

Signal = npt.NDArray[np.float32]


@pytest.fixture(autouse=True)
def _no_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILVUS_URI", raising=False)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)


def music(seed: int, seconds: float = 20.0, sample_rate: int = SAMPLE_RATE) -> Signal:
    """Return a song of random notes with harmonics and a little noise [shape=(n,)]."""
    rng = np.random.default_rng(seed)
    n_samples = round(seconds * sample_rate)
    song = 0.003 * rng.standard_normal(n_samples)
    for _ in range(round(6 * seconds)):
        begin = int(rng.integers(0, n_samples))
        t = np.arange(min(round(rng.uniform(0.2, 0.8) * sample_rate), n_samples - begin)) / sample_rate
        hz = 440.0 * 2 ** (rng.integers(-24, 24) / 12)
        tones = sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 5) if k * hz < sample_rate / 2)
        song[begin : begin + len(t)] += rng.uniform(0.1, 0.4) * tones * np.exp(-4 * t)
    song /= 2 * np.abs(song).max()
    return song.astype(np.float32)


def pcm(song: Signal) -> npt.NDArray[np.int16]:
    """Return a song as PCM 16 bit [shape=(n,)]."""
    return (song * 32767).round().astype(np.int16)


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
