"""The engine `numpy`: built in, needs nothing installed, writes the same numbers as the real tool."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genre.features import extraction
from genre.features.engines import Failures, Job
from genre.features.numpy_engine import compute_blocks

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
        return extraction.extract(jobs, compute_blocks)
