"""The feature engines by name."""

from __future__ import annotations

from genre.errors import EngineError
from genre.features.extraction import Engine, NumpyEngine
from genre.features.sonic_annotator import SonicAnnotator
from genre.features.vamp_engine import VampEngine

ENGINES: dict[str, Engine] = {  # in the order of preference of `auto`
    engine.name: engine for engine in (SonicAnnotator(), VampEngine(), NumpyEngine())
}


def choose(name: str) -> Engine:
    """Return the engine of that name; for `auto`, the first that can be used on this machine.

    Raises EngineError if the name is unknown, or the engine cannot be used on this machine.
    """
    if name == "auto":
        return next(engine for engine in ENGINES.values() if engine.unusable() is None)
    if name not in ENGINES:
        raise EngineError(f"unknown engine {name}: choose auto, {', '.join(ENGINES)}")
    if reason := ENGINES[name].unusable():
        raise EngineError(f"the engine {name} cannot be used here: {reason}")
    return ENGINES[name]
