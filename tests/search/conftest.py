"""Made music for the tests of search: random notes, every song its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from genre.audio import chunks
from genre.search.landmarks import SAMPLE_RATE
from stages import fingerprint, index_network, split
from tests.conftest import write_params

Signal = npt.NDArray[np.float32]
Music = Callable[..., Signal]


N_SONGS = 8
SONG_S = 14.0


@pytest.fixture(scope="session")
def network_made(music: Music, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project folder with a fingerprint network, trained on half of the songs, and the vectors of all."""
    folder = tmp_path_factory.mktemp("network")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MILVUS_URI", raising=False)
        write_params(
            folder,
            parallel__workers=1,
            split__test_fraction=0.5,
            fingerprint__renditions=6,
            fingerprint__max_steps=60,
            fingerprint__batch_size=24,
            evaluate_identify__snippets=3,
            evaluate_identify__seconds=[4.0],
        )
        for seed in range(N_SONGS):
            path = folder / "dataset" / "tiny" / ("rock", "jazz")[seed % 2] / f"{seed}.wav"
            path.parent.mkdir(parents=True, exist_ok=True)
            samples = np.rint(music(seed, SONG_S, 22_050) * 32767).astype(np.int16)
            chunks.write(path, samples, sample_rate=22_050)
        assert split.main([]) == 0
        assert fingerprint.main([]) == 0
        assert index_network.main([]) == 0
    return folder


@pytest.fixture
def network_project(network_made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of it, as the working directory."""
    shutil.copytree(network_made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.delenv("MILVUS_URI", raising=False)
    return tmp_path / "copy"


@pytest.fixture(scope="session")
def music() -> Music:
    """Return a function that makes a song of a seed: random notes with harmonics, over a little noise."""
    return _music


def _music(seed: int, seconds: float = 20.0, sample_rate: int = SAMPLE_RATE) -> Signal:
    rng = np.random.default_rng(seed)
    n_samples = round(seconds * sample_rate)
    song = 0.003 * rng.standard_normal(n_samples)
    for _ in range(round(6 * seconds)):
        begin = int(rng.integers(0, n_samples))
        t = np.arange(min(round(rng.uniform(0.2, 0.8) * sample_rate), n_samples - begin)) / sample_rate
        hz = 440.0 * 2 ** (rng.integers(-24, 24) / 12)
        tones = sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 5) if k * hz < sample_rate / 2)
        song[begin : begin + len(t)] += rng.uniform(0.1, 0.4) * tones * np.exp(-4 * t)
    scaled: Signal = (0.5 * song / np.abs(song).max()).astype(np.float32)
    return scaled
