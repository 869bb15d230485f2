"""The interface of the feature engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from genre.errors import GenreError
from genre.features.transforms import Transform


@dataclass(frozen=True, slots=True)
class Job:
    """An audio file, and the output folder of each feature."""

    audio: Path
    folders: Mapping[str, Path]  # by feature name

    def target(self, transform: Transform) -> Path:
        """Return the path of one feature's CSV, with the file name that sonic-annotator would give it."""
        return self.folders[transform.feature] / transform.csv_name(self.audio.stem)


Failures = dict[Path, GenreError]  # by audio file


class Engine(Protocol):
    """Computes the features of audio files."""

    name: str

    def unusable(self) -> str | None:
        """Return None if the engine can be used on this machine, otherwise the reason and what to install."""

    def versions(self) -> dict[str, str]:
        """Return the versions, by name, of all software that determines the numbers."""

    def extract(self, jobs: Sequence[Job]) -> Failures:
        """Write the CSV files of all jobs; return the error of each audio file that failed.

        Raises EngineError if the engine itself fails, whatever the file.
        """
