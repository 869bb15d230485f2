"""The feature engines by name."""

from __future__ import annotations

import sys

from genre.errors import EngineError
from genre.features import vamp_engine
from genre.features.extraction import Engine, NumpyEngine
from genre.features.plugin_engine import PluginEngine

_PACKS = (
    "the Vamp plugin packs qm-vamp-plugins and bbc-vamp-plugins in a folder of VAMP_PATH (default: ~/vamp, ~/.vamp, "
    "/usr/local/lib/vamp, /usr/lib/vamp)"
)
_ENGINES = (  # in the order of preference of `auto`
    PluginEngine("sonic-annotator", ("sonic-annotator",), f"install sonic-annotator and {_PACKS}"),
    PluginEngine(
        "vamp",
        (sys.executable, "-m", vamp_engine.__name__),
        f"`pip install vamp` (needs a C++ compiler), and install {_PACKS}",
        packages=("vamp", "numpy"),
    ),
    NumpyEngine(),
)
ENGINES: dict[str, Engine] = {engine.name: engine for engine in _ENGINES}


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
