"""The plugins of the engine vamp get the spectra of the built-in engine; tested with the Vamp SDK's example plugins."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from genre.errors import EngineError
from genre.features.transforms import BATCH_HOST_BLOCKS, Transform, batches, spectra
from genre.features.vamp_engine import compute_blocks
from tests.made import noise

EXAMPLES = "vamp-example-plugins"
RATE = 22_050  # Hz
SIZES = [(1024, 512), (2048, 1024), (512, 256)]  # block, step


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


def _power(block: int, step: int, output: str = "powerspectrum", columns: int | None = None) -> Transform:
    vamp_id = f"vamp:{EXAMPLES}:powerspectrum:{output}"
    return Transform(f"{output} {block}", vamp_id, block, step, columns or block // 2 + 1)


def _compute(blocks: list[Any], *transforms: Transform) -> list[npt.NDArray[np.float32]]:
    parts = list(compute_blocks(blocks, RATE, transforms=transforms))
    return [np.concatenate([part[t.feature] for part in parts]) for t in transforms]


@pytest.mark.usefixtures("examples")
@pytest.mark.parametrize(("block", "step"), SIZES)
@pytest.mark.parametrize("n", [1, 1024, 5000])
def test_the_spectrum_that_a_plugin_gets_is_that_of_centred_frames(block: int, step: int, n: int) -> None:
    samples = noise(n)
    transform = _power(block, step)
    (power,) = _compute([samples], transform)
    ((batch, _),) = batches([samples])
    expected = np.abs(spectra(batch, transform, block // 2)[: transform.n_frames(n)]) ** 2
    np.testing.assert_allclose(power[:, :-1], expected, rtol=1e-5, atol=1e-6)  # the last bin is not passed on


@pytest.mark.usefixtures("examples")
def test_the_features_do_not_depend_on_how_the_signal_is_cut() -> None:
    samples = noise(2 * BATCH_HOST_BLOCKS * 1024 + 20_000)
    transforms = [_power(1024, 512), _power(2048, 1024)]
    whole = _compute([samples], *transforms)
    pieces = _compute([samples[:1], samples[1:1], samples[1:70_000], samples[70_000:]], *transforms)
    for one, other in zip(whole, pieces, strict=True):
        np.testing.assert_array_equal(one[:, :512], other[:, :512])


@pytest.mark.usefixtures("examples")
def test_a_plugin_without_the_output_of_the_table_is_refused() -> None:
    samples = noise(4096)
    with pytest.raises(EngineError, match=r"gave rows of \[513\] values for one frame, not one row of 20"):
        _compute([samples], _power(1024, 512, columns=20))
    with pytest.raises(EngineError, match=f"{EXAMPLES}:powerspectrum cannot be used: unknown output"):
        _compute([samples], _power(1024, 512, "nothing"))
    with pytest.raises(EngineError, match=r"no-such-pack:x cannot be used: "):
        _compute([samples], Transform("x", "vamp:no-such-pack:x:y", 1024, 512, 1))
