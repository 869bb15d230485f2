"""Faults of files are measured, and a file without faults has none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genre.audio import ffmpeg
from genre.audit import quality
from genre.errors import AudioError
from tests.made import Signal, music, pcm

RATE = 44_100


def _noise(seed: int = 0) -> Signal:
    return (0.1 * np.random.default_rng(seed).standard_normal(8 * RATE)).astype(np.float32)


@pytest.mark.parametrize(
    ("channels", "rate", "fault"),
    [
        ([_noise()], RATE, {}),
        ([_noise(), _noise(1)], RATE, {}),
        ([_noise(), _noise()], RATE, {"mono": 0.0}),
        ([np.clip(20 * music(1, 8.0, RATE), -1, 1)], RATE, {"clipped": pytest.approx(0.3, abs=0.3)}),
        ([1e-4 * _noise()], RATE, {"silent": pytest.approx(96, abs=6)}),
        ([_noise()[: 8 * 16_000]], 16_000, {"bandwidth": pytest.approx(-8 / 22.05, abs=0.025)}),
    ],
    ids=["mono", "stereo", "mono as stereo", "clipped", "silent", "resampled"],
)
def test_each_fault_is_the_only_one(channels: list[Signal], rate: int, fault: dict[str, Any], tmp_path: Path) -> None:
    samples = np.stack([pcm(channel) for channel in channels], axis=1)
    ffmpeg.encode(tmp_path / "a.wav", samples, sample_rate=rate, ar=RATE, format="wav")
    assert {kind: severity for kind, _, _, severity in quality.faults(tmp_path / "a.wav")} == fault


def test_damaged_parts_are_reported_with_the_reason_of_the_decoder(tmp_path: Path) -> None:
    ffmpeg.encode(tmp_path / "a.flac", pcm(_noise())[:, np.newaxis], sample_rate=RATE, format="flac")
    data = (tmp_path / "a.flac").read_bytes()
    (tmp_path / "a.flac").write_bytes(data[: len(data) // 2])
    ((kind, evidence, *_),) = quality.faults(tmp_path / "a.flac")
    assert (kind, "of the 8.0 s that its header states" in evidence) == ("damaged", True)
    (tmp_path / "b.mp3").write_bytes(b"no audio")
    with pytest.raises(AudioError, match=r"b\.mp3: cannot be decoded"):
        quality.faults(tmp_path / "b.mp3")
