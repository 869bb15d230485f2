"""Made-up embeddings and features of chunks, and settings of a fast training."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from genre import params
from genre.features.arrays import VectorSet
from genre.params import TrainParams
from tests.made import ROOT

GENRES = ["folk", "jazz", "rock"]
N_SONGS, N_CHUNKS = 4, 2  # songs of a genre, chunks of a song
N_VALUES = 287  # of the embedding `statistics`
LABELS = np.repeat(np.arange(len(GENRES)), N_SONGS * N_CHUNKS)
SONGS = [f"{GENRES[label]}/s{i // N_CHUNKS % N_SONGS}" for i, label in enumerate(LABELS)]


def embeddings_of_genres(spread: float = 1.0) -> tuple[npt.NDArray[np.float32], VectorSet]:
    """Return embeddings [shape=(24, 287)] and their chunks; the genres overlap more with a larger spread."""
    rng = np.random.default_rng(0)
    centres = rng.normal(0, 1, (len(GENRES), N_VALUES))
    vectors = (centres[LABELS] + rng.normal(0, spread, (len(LABELS), N_VALUES))).astype(np.float32)
    return vectors, VectorSet({}, LABELS, SONGS, GENRES, SONGS)


def feature_set() -> VectorSet:
    """Return features of chunks of 64 MFCC frames; the genres differ in c1 and in the highest band of the contrast."""
    rng = np.random.default_rng(0)
    mfcc = rng.normal(0, 1, (len(LABELS), 64, 20))
    mfcc[:, :, 1] += 3 * LABELS[:, None]
    peaks = 10 ** rng.normal(0, 0.3, (len(LABELS), 128, 7))
    peaks[:, :, 6] *= 10.0 ** LABELS[:, None]
    inputs = {"mfcc_coefficients": mfcc, "spectral-contrast_peaks": peaks, "spectral-contrast_valleys": peaks / 100}
    return VectorSet({name: array.astype(np.float32) for name, array in inputs.items()}, LABELS, SONGS, GENRES, SONGS)


def train_params(**changes: Any) -> TrainParams:
    """Return the section `train` of params.yaml, small enough for a test, with changed keys of any subsection."""
    small = {"members": 1, "epochs": 1, "batch_size": 8, "filters": 4, "patience": None}
    section = params.load(ROOT / "params.yaml").train.model_dump()
    for key, value in (small | changes).items():
        next(part for part in (section, section["optimizer"], section["augmentation"]) if key in part)[key] = value
    return TrainParams.model_validate(section)
