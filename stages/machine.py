"""What this machine offers to the work: its cores, and how the numeric libraries share them."""

from __future__ import annotations

import os

THREADS = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "TF_NUM_INTRAOP_THREADS",
    "TF_NUM_INTEROP_THREADS",
)


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def one_thread_each() -> None:
    """Keep the numeric libraries to one thread, unless the user says otherwise: processes or threads fill the cores.

    They look at it when they are loaded, so this comes first.
    """
    for name in THREADS:
        os.environ.setdefault(name, "1")
