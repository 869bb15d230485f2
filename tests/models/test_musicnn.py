"""MusiCNN: its front end agrees with librosa's, and its network with the package's own graph.

tests/golden/musicnn.npz holds 6 s of synthetic audio (notes and noise bursts, 16 kHz) and, of both checkpoints,
`max_pool` and `penultimate` of its two patches, as the graph of musicnn 0.1.0 computed them from librosa's
spectrogram in float32 (its models.py in TensorFlow 1 graph mode, TensorFlow 2.21 with tf_keras).
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest

from genre.errors import ModelError
from genre.models import musicnn
from tests.made import GOLDEN


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with both checkpoints as ONNX."""
    if importlib.util.find_spec("musicnn") is None:
        pytest.skip("musicnn is not installed: uv pip install --no-deps musicnn==0.1.0")
    folder = tmp_path_factory.mktemp("musicnn")
    for checkpoint in musicnn.CHECKPOINTS:
        musicnn.convert(checkpoint, folder / f"{checkpoint}.onnx")
    return folder


def tone(seconds: float, sample_rate: int, hz: float = 440.0) -> npt.NDArray[np.int16]:
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return np.round(20_000 * np.sin(2 * np.pi * hz * time)).astype(np.int16)


@pytest.mark.parametrize("sample_rate", [8_000, 44_100])
def test_other_sample_rates_give_nearly_the_same_patches(sample_rate: int) -> None:
    expected = musicnn.patches(tone(6, musicnn.SAMPLE_RATE), musicnn.SAMPLE_RATE)[:, 10:-10]
    result = musicnn.patches(tone(6, sample_rate), sample_rate)[:, 10:-10]
    assert np.abs(result - expected).max() < 0.05
    assert expected.max() > 3


def test_frequencies_above_8_khz_are_not_aliased_and_a_chunk_shorter_than_a_patch_is_repeated() -> None:
    assert musicnn.patches(tone(3, 44_100, hz=9_000), 44_100)[:, 10:-10].max() < 0.01
    (patch,) = musicnn.patches(tone(1, 16_000), 16_000)
    assert np.array_equal(patch[:63], patch[63:126])  # 16000 // 256 + 1 frames


@pytest.mark.slow
@pytest.mark.parametrize("checkpoint", musicnn.CHECKPOINTS)
def test_the_network_is_that_of_the_package(checkpoint: str, folder: Path) -> None:
    with np.load(GOLDEN / "musicnn.npz") as golden:
        samples = golden["samples"]
        expected = {vector: golden[f"{checkpoint}_{vector}"].mean(axis=0) for vector in ("max_pool", "penultimate")}
    result = musicnn.embed(folder / f"{checkpoint}.onnx", samples, musicnn.SAMPLE_RATE)
    assert result.shape == (953,)
    for vector, values in expected.items():
        np.testing.assert_allclose(result[musicnn.VECTORS[vector]], values, rtol=1e-4, atol=1e-4)


def test_missing_files_and_packages_and_other_weights_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ModelError, match=r"MSD_musicnn\.onnx cannot be loaded .*dvc repro"):
        musicnn.network(tmp_path / "MSD_musicnn.onnx")
    (tmp_path / "MSD_musicnn").mkdir()
    (tmp_path / "MSD_musicnn" / ".data-00000-of-00001").write_bytes(b"others")
    other = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    for spec, message in ((None, r"musicnn==0\.1\.0"), (other, r"not the file of musicnn 0\.1\.0")):
        monkeypatch.setattr(importlib.util, "find_spec", lambda _name, spec=spec: spec)
        with pytest.raises(ModelError, match=message):
            musicnn.convert("MSD_musicnn", tmp_path / "x.onnx")
