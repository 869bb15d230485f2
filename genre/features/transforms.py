"""The transform table: Vamp ids, block and step sizes and column counts.

Source of every number: sonic-annotator 1.6 with qm-vamp-plugins 1.8 (qm-mfcc) and bbc-vamp-plugins 1.1
(bbc-spectral-contrast) at their defaults.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Samples = npt.NDArray[np.int16] | npt.NDArray[np.float32]  # mono [shape=(n,)], full scale 32768 or 1.0
Features = dict[str, npt.NDArray[np.float32]]  # by feature name, [shape=(frames, columns)]

HOST_CHUNK = 1024  # samples; the Vamp host pads the input with zeros to a multiple of this


@dataclass(frozen=True, slots=True)
class Transform:
    """One output of a Vamp plugin."""

    feature: str  # name of the feature, as in features/<feature>/
    vamp_id: str  # as sonic-annotator spells it
    block: int  # samples per analysis frame
    step: int  # samples from one frame to the next
    columns: int  # values per frame

    def csv_name(self, stem: str) -> str:
        """Return sonic-annotator's file name for the CSV of an audio file named `stem` and an extension."""
        return f"{stem}_{self.vamp_id}.csv".replace(":", "_")

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames that sonic-annotator writes for a signal of `n_samples` samples."""
        return -(-n_samples // HOST_CHUNK) * (HOST_CHUNK // self.step)


MFCC = Transform("mfcc_coefficients", "vamp:qm-vamp-plugins:qm-mfcc:coefficients", 2048, 1024, 20)
CONTRAST_PEAKS = Transform("spectral-contrast_peaks", "vamp:bbc-vamp-plugins:bbc-spectral-contrast:peaks", 1024, 512, 7)
CONTRAST_VALLEYS = Transform(
    "spectral-contrast_valleys", "vamp:bbc-vamp-plugins:bbc-spectral-contrast:valleys", 1024, 512, 7
)

TRANSFORMS: dict[str, Transform] = {t.feature: t for t in (MFCC, CONTRAST_PEAKS, CONTRAST_VALLEYS)}

CONTRAST_FLOOR = 1e-4  # magnitude; about the noise of 16-bit samples in one bin of a 1024-sample Hann window
