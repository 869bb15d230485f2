"""The feature engines by name."""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from genre.errors import EngineError
from genre.features import extraction, numpy_engine, vamp_engine
from genre.features.extraction import Failures, Job
from genre.features.plugin_engine import PluginEngine


class NumpyEngine:
    """The built-in engine: needs no other software, writes the same numbers as sonic-annotator."""

    name = "numpy"

    def versions(self) -> dict[str, str]:
        """Return the versions of the engine and of NumPy, which computes the FFT."""
        return {"numpy engine": numpy_engine.VERSION, "numpy": np.__version__}

    def extract(self, jobs: Sequence[Job]) -> Failures:
        """Write the CSV files of all jobs; return the error of each audio file that failed."""
        return extraction.extract(jobs, numpy_engine.compute_blocks)


Engine = PluginEngine | NumpyEngine

_PACKS = (
    "the Vamp plugin packs qm-vamp-plugins and bbc-vamp-plugins in a folder of VAMP_PATH (default: ~/vamp, ~/.vamp, "
    "/usr/local/lib/vamp, /usr/lib/vamp)"
)
_ENGINES: tuple[Engine, ...] = (  # in the order of preference of `auto`
    PluginEngine("sonic-annotator", ("sonic-annotator",), f"install sonic-annotator and {_PACKS}"),
    PluginEngine(
        "vamp",
        (sys.executable, "-m", vamp_engine.__name__),
        f"`pip install vamp` (needs a C++ compiler), and install {_PACKS}",
        packages=("vamp", "numpy"),
    ),
    NumpyEngine(),
)
ENGINES = {engine.name: engine for engine in _ENGINES}


def choose(name: str) -> Engine:
    """Return the engine of that name; for `auto`, the first that can be used on this machine.

    Raises EngineError if the name is unknown, or the engine cannot be used on this machine.
    """
    if name not in ("auto", *ENGINES):
        raise EngineError(f"unknown engine {name}: choose auto, {', '.join(ENGINES)}")
    reason = ""
    for engine in ENGINES.values() if name == "auto" else [ENGINES[name]]:
        try:
            engine.versions()
        except EngineError as error:
            reason = str(error)
        else:
            return engine
    raise EngineError(f"the engine {name} cannot be used here: {reason}")
