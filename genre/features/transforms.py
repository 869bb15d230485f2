"""Table of the Vamp transforms, the settings of features, and the spectra of a signal as the Vamp host computes them.

Source of every number: sonic-annotator 1.6 with qm-vamp-plugins 1.8 (qm-mfcc) and bbc-vamp-plugins 1.1
(bbc-spectral-contrast) at their defaults.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from genre.errors import FeatureError

Samples = npt.NDArray[np.int16] | npt.NDArray[np.float32]  # mono [shape=(n,)], full scale 32768 or 1.0
Features = dict[str, npt.NDArray[np.float32]]  # by feature name, [shape=(frames, columns)]

HOST_BLOCK = 1024  # samples; the Vamp host pads the input with zeros to a multiple of this
BATCH_HOST_BLOCKS = 64  # host blocks transformed together, 3 s at 22,050 Hz; larger batches are not faster


@dataclass(frozen=True, slots=True)
class Transform:
    """One output of a Vamp plugin."""

    feature: str  # name of the feature, as in features/<feature>/
    vamp_id: str  # as sonic-annotator spells it
    block: int  # samples per analysis frame
    step: int  # samples from one frame to the next, half a block
    columns: int  # values per frame

    @property
    def plugin(self) -> str:
        """Return the plugin as the Python package vamp names it, "<library>:<plugin>"."""
        return ":".join(self.vamp_id.split(":")[1:3])

    def csv_name(self, stem: str) -> str:
        """Return sonic-annotator's file name for the CSV of an audio file named `stem` and an extension."""
        return f"{stem}_{self.vamp_id}.csv".replace(":", "_")

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames that sonic-annotator writes for a signal of `n_samples` samples."""
        return -(-n_samples // HOST_BLOCK) * (HOST_BLOCK // self.step)


MFCC = Transform("mfcc_coefficients", "vamp:qm-vamp-plugins:qm-mfcc:coefficients", 2048, 1024, 20)
CONTRAST_PEAKS = Transform("spectral-contrast_peaks", "vamp:bbc-vamp-plugins:bbc-spectral-contrast:peaks", 1024, 512, 7)
CONTRAST_VALLEYS = Transform(
    "spectral-contrast_valleys", "vamp:bbc-vamp-plugins:bbc-spectral-contrast:valleys", 1024, 512, 7
)

TRANSFORMS: dict[str, Transform] = {t.feature: t for t in (MFCC, CONTRAST_PEAKS, CONTRAST_VALLEYS)}

NOT_FINITE = "the samples contain NaN or infinity: decode the audio again"
CONTRAST_FLOOR = 1e-4  # magnitude; about the noise of 16-bit samples in one bin of a 1024-sample Hann window


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, besides the transform table, that changes a feature vector: equal for what can be combined."""

    sample_rate: int  # Hz
    chunk_seconds: float
    min_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, the transform table, and the SHA-256 of both in hexadecimal, ready for JSON."""
        described = {**asdict(self), "transforms": [asdict(t) for t in TRANSFORMS.values()]}
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        return {**described, "digest": digest}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Return the settings in a dict as `to_dict` returns it.

        Raises KeyError, TypeError, ValueError if a setting is missing or outside the range that params.yaml allows, or
        the transform table is another.
        """
        settings = cls(*(values[key] for key in ("sample_rate", "chunk_seconds", "min_seconds")))
        rate, chunk_s, min_s = settings.sample_rate, settings.chunk_seconds, settings.min_seconds
        if not (8_000 <= rate <= 192_000 and 1 <= chunk_s <= 600 and min_s > 0):
            raise ValueError(f"sample_rate {rate}, chunk_seconds {chunk_s} or min_seconds {min_s} is out of range")
        if other := [key for key, value in settings.to_dict().items() if values.get(key) != value]:
            raise ValueError(f"made with other {', '.join(other)} than this version computes")
        return settings


def batches(blocks: Iterable[Samples]) -> Iterator[tuple[npt.NDArray[np.float64], int]]:
    """Yield a signal in batches of `BATCH_HOST_BLOCKS` host blocks, and the number of its samples in each.

    `blocks` are consecutive parts [shape=(any,)] of one mono signal: int16, which is divided by 32768, or float32,
    which is clipped to -1.0 to 1.0. A batch [shape=((1 + BATCH_HOST_BLOCKS) * HOST_BLOCK,)] starts with the last host
    block of the previous one, or with zeros, and ends with zeros behind the signal. Its array is reused. Raises
    FeatureError if a sample is NaN or infinite.
    """
    batch = np.zeros((1 + BATCH_HOST_BLOCKS) * HOST_BLOCK)
    end = HOST_BLOCK
    for block in blocks:
        if not np.isfinite(block).all():
            raise FeatureError(NOT_FINITE)
        rest = block
        while rest.size:
            part, rest = rest[: batch.size - end], rest[batch.size - end :]
            batch[end : end + part.size] = part / 32768.0 if part.dtype == np.int16 else np.clip(part, -1.0, 1.0)
            end += part.size
            if end == batch.size:
                yield batch, end - HOST_BLOCK
                batch[:HOST_BLOCK] = batch[-HOST_BLOCK:]
                end = HOST_BLOCK
    if end > HOST_BLOCK:
        batch[end:] = 0.0
        yield batch, end - HOST_BLOCK


def spectra(batch: npt.NDArray[np.float64], transform: Transform, n_bins: int) -> npt.NDArray[np.complex64]:
    """Return the lowest bins of the spectra of the frames of a batch of `batches` [shape=(frames, n_bins)].

    Frame i is centred on sample i * step of the batch, after its first host block. Window and FFT are float64, as in
    the Vamp host.
    """
    centred = batch[HOST_BLOCK - transform.block // 2 :]
    frames = np.lib.stride_tricks.sliding_window_view(centred, transform.block)[:: transform.step]
    return np.fft.rfft(frames * hann(transform.block))[:, :n_bins].astype(np.complex64)


@functools.cache
def hann(block: int) -> npt.NDArray[np.float64]:
    """Return a periodic Hann window [shape=(block,)]."""
    return 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(block) / block)
