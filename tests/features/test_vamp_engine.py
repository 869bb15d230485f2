"""The Vamp engine: framing and padding are tested with the example plugins, the CSV bytes with the real plugins."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from genre.errors import EngineError, FeatureError
from genre.features import engines, vamp_engine
from genre.features.extraction import Job
from genre.features.transforms import TRANSFORMS, Transform
from genre.features.vamp_engine import VampEngine, compute_blocks
from tests.made import GOLDEN

EXAMPLES = "vamp-example-plugins"
RATE = 22_050  # Hz
SIZES = [(1024, 512), (2048, 1024), (512, 128)]  # block, step


@pytest.fixture
def examples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Put the example plugins on VAMP_PATH, or skip."""
    pytest.importorskip("vamp", reason="the package vamp is not installed")
    folders = [Path(name) for name in os.environ.get("VAMP_PATH", "").split(os.pathsep) if name]
    folders += [Path("/usr/lib/vamp"), Path("/usr/local/lib/vamp"), *Path("/usr/lib").glob("*/vamp")]
    matches = [folder for folder in folders if (folder / f"{EXAMPLES}.so").is_file()]
    if not matches:
        pytest.skip("the example plugins are not installed (Debian package vamp-examples)")
    monkeypatch.setenv("VAMP_PATH", str(matches[0]))


@pytest.fixture
def real_plugins() -> None:
    """Skip unless the QM and BBC plugins can be used."""
    if reason := VampEngine().unusable():
        pytest.skip(reason)


def _example(plugin: str, output: str, block: int, step: int, columns: int = 1) -> Transform:
    return Transform(f"{plugin} {output}", f"vamp:{EXAMPLES}:{plugin}:{output}", block, step, columns)


def _power(block: int, step: int) -> Transform:
    return _example("powerspectrum", "powerspectrum", block, step, block // 2 + 1)


def _noise(n: int, seed: int = 0) -> npt.NDArray[np.int16]:
    return np.random.default_rng(seed).integers(-20_000, 20_000, n).astype(np.int16)


def _compute(blocks: list[Any], *transforms: Transform) -> list[npt.NDArray[np.float32]]:
    parts = list(compute_blocks(blocks, RATE, transforms=transforms))
    return [np.concatenate([part[t.feature] for part in parts]) for t in transforms]


def _frames(samples: npt.NDArray[np.int16], block: int, step: int) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the frames of the specification: frame i is centred on sample i * step, the last ends with the padding."""
    padded = np.zeros(-(-len(samples) // 1024) * 1024)
    padded[: len(samples)] = samples / 32768
    i = 0
    while i * step + block // 2 <= len(padded):
        first = i * step - block // 2
        before = np.zeros(max(0, -first))
        yield np.concatenate([before, padded[max(0, first) : first + block]])
        i += 1


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize(("block", "step"), SIZES)
@pytest.mark.parametrize("n", [1, 1024, 5000])
def test_the_spectrum_that_a_plugin_gets_is_that_of_centred_frames(block: int, step: int, n: int) -> None:
    samples = _noise(n)
    (power,) = _compute([samples], _power(block, step))
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(block) / block)
    expected = [np.abs(np.fft.fft(frame * window)[: block // 2]) ** 2 for frame in _frames(samples, block, step)]
    assert len(power) == len(expected)
    np.testing.assert_allclose(power[:, :-1], expected, rtol=1e-5, atol=1e-6)  # the last bin is not passed on


@pytest.mark.usefixtures("examples")
def test_the_features_do_not_depend_on_how_the_signal_is_cut() -> None:
    samples = _noise(2 * vamp_engine.PART_HOST_BLOCKS * 1024 + 20_000)
    transforms = [_power(1024, 512), _example("amplitudefollower", "amplitude", 2048, 1024)]
    whole = _compute([samples], *transforms)
    pieces = _compute([samples[:1], samples[1:1], samples[1:70_000], samples[70_000:]], *transforms)
    floats = _compute([(samples / np.float32(32768)).astype(np.float32)], *transforms)
    for one, other, third in zip(whole, pieces, floats, strict=True):
        np.testing.assert_array_equal(one[:, :512], other[:, :512])
        np.testing.assert_array_equal(one[:, :512], third[:, :512])


@pytest.mark.usefixtures("examples")
def test_floats_beyond_full_scale_are_clipped_and_nan_is_refused() -> None:
    amplitude = _example("amplitudefollower", "amplitude", 1024, 512)
    loud, full = _compute([np.full(4096, 7, np.float32)], amplitude), _compute([np.ones(4096, np.float32)], amplitude)
    np.testing.assert_array_equal(loud, full)
    with pytest.raises(FeatureError, match="NaN"):
        _compute([np.full(10, np.nan, np.float32)], amplitude)


@pytest.mark.usefixtures("examples")
def test_a_plugin_without_the_output_of_the_table_is_refused() -> None:
    samples = _noise(4096)
    with pytest.raises(EngineError, match=r"gave 1 rows of \[513\] values for one frame, not one row of 20"):
        _compute([samples], _example("powerspectrum", "powerspectrum", 1024, 512, 20))
    with pytest.raises(EngineError, match=f"{EXAMPLES}:zerocrossing cannot be used: unknown output"):
        _compute([samples], _example("zerocrossing", "nothing", 1024, 512))
    with pytest.raises(EngineError, match=r"no-such-pack:x cannot be used: .*; install the Vamp plugin packs"):
        _compute([samples], Transform("x", "vamp:no-such-pack:x:y", 1024, 512, 1))


def test_the_error_of_a_missing_package_names_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VAMP_PATH", str(tmp_path))
    monkeypatch.setitem(sys.modules, "vamp", None)
    with pytest.raises(EngineError, match="the package vamp is not installed; `pip install vamp`"):
        engines.choose("vamp")
    with pytest.raises(EngineError, match="the package vamp cannot be loaded"):
        _compute([_noise(10)], _power(1024, 512))


@pytest.mark.parametrize("home", [None, "/nowhere"])
def test_missing_plugins_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: str | None) -> None:
    pytest.importorskip("vamp", reason="the package vamp is not installed")
    if home is None:
        monkeypatch.delenv("HOME", raising=False)
    else:
        monkeypatch.setenv("HOME", home)
    monkeypatch.setenv("VAMP_PATH", str(tmp_path))
    both = "not found: qm-vamp-plugins:qm-mfcc, bbc-vamp-plugins:bbc-spectral-contrast; install"
    with pytest.raises(EngineError, match=both):
        engines.choose("vamp")
    with pytest.raises(EngineError, match=both):
        VampEngine().versions()


def test_a_plugin_library_that_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vamp", reason="the package vamp is not installed")
    monkeypatch.setenv("VAMP_PATH", str(tmp_path))
    for name in ("qm-vamp-plugins.so", "bbc-vamp-plugins.so"):
        (tmp_path / name).write_text("not a library")
    reason = VampEngine().unusable()
    assert reason is not None
    assert "qm-vamp-plugins:qm-mfcc" in reason
    assert f'("{tmp_path}/qm-vamp-plugins.so": ' in reason


@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler to make a library that crashes")
def test_a_plugin_library_that_crashes_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("vamp", reason="the package vamp is not installed")
    monkeypatch.setenv("VAMP_PATH", str(tmp_path))
    source = "#include <stdlib.h>\n__attribute__((constructor)) static void die(void) { abort(); }\n"
    library = tmp_path / "qm-vamp-plugins.so"
    (tmp_path / "bbc-vamp-plugins.so").touch()
    subprocess.run(["cc", "-shared", "-fPIC", "-x", "c", "-", "-o", library], input=source, text=True, check=True)
    with pytest.raises(EngineError, match=r"qm-vamp-plugins:qm-mfcc fails when it is loaded \(SIGABRT: "):
        engines.choose("vamp")


@pytest.mark.usefixtures("real_plugins")
@pytest.mark.parametrize("stem", sorted(path.stem for path in GOLDEN.glob("*.wav")))
def test_the_real_plugins_write_the_bytes_of_the_real_tool(tmp_path: Path, stem: str) -> None:
    assert VampEngine().extract([Job(GOLDEN / f"{stem}.wav", dict.fromkeys(TRANSFORMS, tmp_path))]) == {}
    written = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert written == {path.name: path.read_bytes() for path in GOLDEN.glob(f"{stem}_*.csv")}


@pytest.mark.usefixtures("real_plugins")
def test_versions_are_those_of_the_plugins() -> None:
    versions = engines.choose("vamp").versions()
    assert sorted(versions) == ["bbc-vamp-plugins:bbc-spectral-contrast", "numpy", "qm-vamp-plugins:qm-mfcc", "vamp"]
    assert all(versions.values())
