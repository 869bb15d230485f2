"""CPU seconds to train the networks: their members side by side, against the same members one after the other.

    python -m benchmarks.train [--epochs 20] [--chunks 100]

The features are made up: training takes as long as on music. An epoch has ceil(chunks / train.batch_size) steps.
"""

from __future__ import annotations

import argparse
import resource
from collections.abc import Callable

import numpy as np

from genre import params
from genre.cli import integer
from genre.features.arrays import VectorSet
from genre.models import keras_backend, networks
from genre.models.training import fit

GENRES = [str(i) for i in range(10)]
SHAPES = {"mfcc_coefficients": (646, 20), "spectral-contrast_peaks": (1292, 7), "spectral-contrast_valleys": (1292, 7)}


def main() -> None:
    """Print a table: CPU seconds of each network, side by side and one after the other, and the ratio."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.train", description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=integer(1, 10**6), default=20)
    parser.add_argument("--chunks", type=integer(20, 10**6), default=100, help="training chunks of 30 s")
    options = parser.parse_args()
    keras_backend.prepare()
    together = params.load().train.model_copy(update={"epochs": options.epochs})
    alone = together.model_copy(update={"members": 1})
    data = _features(options.chunks)
    fit(data, together.model_copy(update={"epochs": 1}), model="mfcc")  # imports
    print("| model | members | side by side, CPU s | one after the other, CPU s | ratio |\n|---|---|---|---|---|")
    for model in networks.MODELS:
        own = _cpu_s(fit, data, together, model=model)
        peer = sum(_cpu_s(fit, data, alone, model=model) for _ in range(together.members))
        print(f"| {model} | {together.members} | {own:.1f} | {peer:.1f} | {own / peer:.2f} |", flush=True)


def _features(n_chunks: int) -> VectorSet:
    """Return random features of `n_chunks` songs of one chunk."""
    rng = np.random.default_rng(0)
    inputs = {feature: rng.gamma(1.0, 1.0, (n_chunks, *shape)).astype(np.float32) for feature, shape in SHAPES.items()}
    labels = np.arange(n_chunks) % len(GENRES)
    songs = [f"{label}/{i}" for i, label in enumerate(labels)]
    return VectorSet(inputs, labels, songs, GENRES, songs)


def _cpu_s(function: Callable[..., object], *arguments: object, **options: object) -> float:
    before = resource.getrusage(resource.RUSAGE_SELF)
    function(*arguments, **options)
    after = resource.getrusage(resource.RUSAGE_SELF)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
