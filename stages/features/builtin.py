"""The engine `numpy`: built in, needs nothing installed, writes the same numbers as the real tool."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from stages import files
from stages.audio import chunks
from stages.audio.ffmpeg import stream_native
from stages.errors import AudioError, FeatureError, GenreError
from stages.features import csv
from stages.features.engines import Failures, Job
from stages.features.numpy_engine import Samples, compute_blocks
from stages.features.transforms import TRANSFORMS

VERSION = "1"  # raised with every change of the numbers


class Builtin:
    """The NumPy implementation."""

    name = "numpy"

    def unusable(self) -> None:
        """Return None: it can always be used."""

    def versions(self) -> dict[str, str]:
        """Return the versions of the engine and of what computes its FFT."""
        return {"numpy engine": VERSION, "numpy": np.__version__}

    def extract(self, jobs: Sequence[Job]) -> Failures:
        """Write the CSV files of all jobs, each file in bounded memory. See `Engine.extract`."""
        failures: Failures = {}
        for job in jobs:
            try:
                _extract_file(job)
            except GenreError as error:
                failures[job.audio] = error
        return failures


def _extract_file(job: Job) -> None:
    sample_rate, blocks = _open(job.audio)
    with contextlib.ExitStack() as stack:
        streams = {
            t: stack.enter_context(stack.enter_context(files.atomic_path(job.target(t))).open("wb"))
            for t in TRANSFORMS.values()
        }
        n_rows = dict.fromkeys(streams, 0)
        for part in compute_blocks(blocks, sample_rate):
            for transform, stream in streams.items():
                values = part[transform.feature]
                stream.write(csv.format_rows(values, sample_rate, transform.step, n_rows[transform]))
                n_rows[transform] += len(values)
        if not all(n_rows.values()):
            raise FeatureError(f"{job.audio}: holds no audio")


def _open(path: Path) -> tuple[int, Iterable[Samples]]:
    """Return sample rate and samples: of a mono PCM wav at once and without ffmpeg, of anything else in blocks."""
    try:
        samples, sample_rate = chunks.read(path)
    except AudioError:
        sample_rate, blocks = stream_native(path)
        return sample_rate, blocks
    return sample_rate, (samples,)
