"""The mel filters are those that librosa computes."""

from __future__ import annotations

import numpy as np
import pytest

from genre.features import mel


@pytest.mark.parametrize(
    ("sample_rate", "n_fft", "n_mels", "lowest_hz"), [(16_000, 512, 96, 0.0), (8000, 1024, 128, 250.0)]
)
def test_the_filters_are_those_of_librosa(sample_rate: int, n_fft: int, n_mels: int, lowest_hz: float) -> None:
    librosa = pytest.importorskip("librosa")
    theirs = librosa.filters.mel(sr=sample_rate, n_fft=n_fft, n_mels=n_mels, fmin=lowest_hz)
    np.testing.assert_allclose(mel.filters(sample_rate, n_fft, n_mels, lowest_hz).T, theirs, atol=1e-8)
