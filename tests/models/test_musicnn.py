"""MusiCNN: its front end is librosa's, and its network gives the vectors of the package's own graph.

tests/golden/musicnn.npz holds 6 s of made audio (notes and noise bursts, 16 kHz) and, of both checkpoints, `max_pool`
and `penultimate` of its two patches, as the graph of musicnn 0.1.0 computed them from librosa's spectrogram in
float32 (its models.py in TensorFlow 1 graph mode, TensorFlow 2.21 with tf_keras).
"""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import numpy.typing as npt
import pytest

from genre.errors import ModelError
from genre.models import musicnn
from genre.models.musicnn import MusiCNN

GOLDEN = Path(__file__).parent.parent / "golden" / "musicnn.npz"


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if importlib.util.find_spec("musicnn") is None:
        pytest.skip("musicnn is not installed: uv pip install --no-deps musicnn==0.1.0")
    return tmp_path_factory.mktemp("musicnn")


def tone(seconds: float, sample_rate: int, hz: float = 440.0) -> npt.NDArray[np.int16]:
    time = np.arange(round(seconds * sample_rate)) / sample_rate
    return np.round(20_000 * np.sin(2 * np.pi * hz * time)).astype(np.int16)


def test_the_mel_filters_are_those_of_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    theirs = librosa.filters.mel(sr=musicnn.SAMPLE_RATE, n_fft=musicnn.FFT, n_mels=musicnn.N_MELS)
    np.testing.assert_allclose(musicnn.mel_filters().T, theirs, atol=1e-8)


def test_patches_are_the_spectrogram_of_librosa() -> None:
    librosa = pytest.importorskip("librosa")
    with np.load(GOLDEN) as golden:
        samples = golden["samples"]
    power = librosa.feature.melspectrogram(
        y=samples / np.float32(32768), sr=musicnn.SAMPLE_RATE, n_fft=musicnn.FFT, hop_length=musicnn.HOP, n_mels=96
    )
    expected = np.log10(10_000 * power.T + 1)[: 2 * musicnn.PATCH_FRAMES]
    got = musicnn.patches(samples, musicnn.SAMPLE_RATE)
    assert got.shape == (2, 187, 96)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got.reshape(-1, 96), expected, atol=1e-4)


@pytest.mark.parametrize("sample_rate", [8_000, 22_050, 44_100])
def test_the_sample_rate_changes_little(sample_rate: int) -> None:
    expected = musicnn.patches(tone(6, musicnn.SAMPLE_RATE), musicnn.SAMPLE_RATE)[:, 10:-10]
    got = musicnn.patches(tone(6, sample_rate), sample_rate)[:, 10:-10]
    assert np.abs(got - expected).max() < 0.05
    assert expected.max() > 3


@pytest.mark.parametrize(("sample_rate", "n_samples"), [(22_050, 66_150), (44_100, 10_001), (8_000, 999), (48_000, 7)])
def test_resampling_is_that_of_scipy(sample_rate: int, n_samples: int) -> None:
    from scipy.signal import firwin, kaiserord, resample_poly

    samples = np.random.default_rng(0).integers(-32768, 32767, n_samples).astype(np.int16)
    divisor = math.gcd(musicnn.SAMPLE_RATE, sample_rate)
    up, down = musicnn.SAMPLE_RATE // divisor, sample_rate // divisor
    n_taps, beta = kaiserord(100, 0.087 / max(up, down))
    low_pass = firwin(n_taps | 1, 0.9565 / max(up, down), window=("kaiser", beta))
    expected = resample_poly(samples / 32768, up, down, window=low_pass)
    np.testing.assert_allclose(musicnn._resampled(samples, sample_rate), expected, rtol=0, atol=1e-12)


def test_what_is_above_8_khz_does_not_fold_back() -> None:
    assert musicnn.patches(tone(3, 44_100, hz=9_000), 44_100)[:, 10:-10].max() < 0.01


def test_a_chunk_shorter_than_a_patch_is_repeated() -> None:
    (patch,) = musicnn.patches(tone(1, 16_000), 16_000)
    assert np.array_equal(patch[:63], patch[63:126])  # 16000 // 256 + 1 frames


def test_the_loudest_music_stays_finite() -> None:
    square = np.where(np.arange(48_000) % 100 < 50, 32767, -32768).astype(np.int16)
    assert np.isfinite(musicnn.patches(square, 16_000)).all()


@pytest.mark.parametrize("checkpoint", musicnn.CHECKPOINTS)
def test_the_network_is_that_of_the_package(checkpoint: str, cache: Path) -> None:
    with np.load(GOLDEN) as golden:
        samples = golden["samples"]
        expected = {vector: golden[f"{checkpoint}_{vector}"].mean(axis=0) for vector in ("max_pool", "penultimate")}
    got = MusiCNN(checkpoint, cache).embed(samples, musicnn.SAMPLE_RATE)
    assert got.shape == (953,)
    for vector, values in expected.items():
        np.testing.assert_allclose(got[musicnn.VECTORS[vector]], values, rtol=1e-4, atol=1e-4)


def test_filters_that_are_rounding_errors_are_dead() -> None:
    kernel = np.random.default_rng(0).normal(size=(7, 3, 1, 6)).astype(np.float32)
    kernel[..., [1, 4]] *= np.float32(1e-9)
    assert musicnn.live_filters(kernel).tolist() == [0, 2, 3, 5]


def test_a_converted_checkpoint_needs_no_package(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = musicnn.converted("MSD_musicnn", cache)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    assert musicnn.converted("MSD_musicnn", cache) == path


def test_a_missing_package_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: None)
    with pytest.raises(ModelError, match=r"musicnn==0\.1\.0"):
        MusiCNN("MSD_musicnn", tmp_path)


def test_other_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "MSD_musicnn").mkdir()
    (tmp_path / "MSD_musicnn" / ".data-00000-of-00001").write_bytes(b"others")
    spec = SimpleNamespace(submodule_search_locations=[str(tmp_path)])
    monkeypatch.setattr(importlib.util, "find_spec", lambda _name: spec)
    with pytest.raises(ModelError, match=r"not the file of musicnn 0\.1\.0"):
        MusiCNN("MSD_musicnn", tmp_path)


def test_an_unknown_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="MSD_musicnn"):
        MusiCNN("MSD_vgg", tmp_path)


def test_a_damaged_cache_is_named(tmp_path: Path) -> None:
    path = tmp_path / f"MSD_musicnn-{musicnn.CHECKPOINTS['MSD_musicnn']}-{musicnn.VERSION}.onnx"
    path.write_bytes(b"not ONNX")
    with pytest.raises(ModelError, match="delete it"):
        MusiCNN("MSD_musicnn", tmp_path)
