"""Choose a feature engine by name."""

from __future__ import annotations

from genre.errors import EngineError
from genre.features.engine import Engine
from genre.features.extraction import NumpyEngine
from genre.features.sonic_annotator import SonicAnnotator
from genre.features.vamp_engine import VampEngine

NAMES = ("sonic-annotator", "vamp", "numpy")  # in the order of preference of `auto`


def get(name: str) -> Engine:
    """Return the engine of that name, usable on this machine or not.

    Raises EngineError if the name is unknown.
    """
    match name:
        case "sonic-annotator":
            return SonicAnnotator()
        case "vamp":
            return VampEngine()
        case "numpy":
            return NumpyEngine()
    raise EngineError(f"unknown engine {name}: choose auto, {', '.join(NAMES)}")


def choose(name: str) -> Engine:
    """Return the engine of that name; for `auto`, the first that can be used on this machine.

    Raises EngineError if the name is unknown, or the engine cannot be used on this machine.
    """
    if name == "auto":
        return next(engine for engine in map(get, NAMES) if engine.unusable() is None)
    engine = get(name)
    if reason := engine.unusable():
        raise EngineError(f"the engine {name} cannot be used here: {reason}")
    return engine
