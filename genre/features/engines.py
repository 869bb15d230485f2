"""The engines that compute features: one interface, one registry, one answer."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from genre.errors import EngineError, GenreError
from genre.features.transforms import Transform


@dataclass(frozen=True, slots=True)
class Job:
    """One audio file, and the folder that each feature's CSV goes to."""

    audio: Path
    folders: Mapping[str, Path]  # by feature

    def target(self, transform: Transform) -> Path:
        """Return where the CSV of one transform goes, named as sonic-annotator names it."""
        return self.folders[transform.feature] / transform.csv_name(self.audio.stem)


Failures = dict[Path, GenreError]  # by audio file


NAMES = ("sonic-annotator", "vamp", "numpy")  # in the order in which `auto` prefers them


class Engine(Protocol):
    """What every engine offers."""

    name: str

    def unusable(self) -> str | None:
        """Return None if the engine can be used here; otherwise why not and what to install."""

    def versions(self) -> dict[str, str]:
        """Return the versions of all that has a say in the numbers."""

    def extract(self, jobs: Sequence[Job]) -> Failures:
        """Write the CSV files of all jobs; return the files that failed, each with its error.

        Raises
        ------
        EngineError
            If the engine itself cannot work (no file is to blame).
        """


def vamp_folders() -> list[Path]:
    """Return where Vamp plugins are looked for: the folders of VAMP_PATH, or the Vamp SDK's defaults for Unix."""
    if told := os.environ.get("VAMP_PATH"):
        return [Path(folder) for folder in told.split(os.pathsep) if folder]
    home = Path(os.environ.get("HOME", "/"))
    return [home / "vamp", home / ".vamp", Path("/usr/local/lib/vamp"), Path("/usr/lib/vamp")]


def get(name: str) -> Engine:
    """Return the engine of that name, usable here or not.

    Raises
    ------
    EngineError
        If there is none.
    """
    match name:
        case "sonic-annotator":
            from genre.features.sonic_annotator import SonicAnnotator

            return SonicAnnotator()
        case "vamp":
            from genre.features.vamp_engine import VampHost

            return VampHost()
        case "numpy":
            from genre.features.builtin import Builtin

            return Builtin()
    raise EngineError(f"there is no engine {name}: choose auto, {', '.join(NAMES)}")


def choose(name: str) -> Engine:
    """Return the engine of that name, or for `auto` the first that can be used here.

    Raises
    ------
    EngineError
        If there is no such engine, or it cannot be used here (the message says why).
    """
    if name == "auto":
        return next(engine for engine in map(get, NAMES) if engine.unusable() is None)
    engine = get(name)
    if reason := engine.unusable():
        raise EngineError(f"the engine {name} cannot be used here: {reason}")
    return engine
