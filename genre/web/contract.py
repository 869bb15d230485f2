"""What the parts of the service ask of each other: who answers, and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol


class Limits(Protocol):
    """What is taken from the section `serve` of params.yaml."""

    @property
    def workers(self) -> int:
        """Threads that answer."""

    @property
    def queue(self) -> int:
        """Songs that wait for them."""

    @property
    def uploads(self) -> int:
        """Uploads at the same time, of the interface and of the page together."""

    @property
    def max_upload_bytes(self) -> int:
        """Of one request."""

    @property
    def max_parts(self) -> int:
        """Fields of a form beside the file."""

    @property
    def max_audio_s(self) -> float:
        """Seconds of a song that are heard."""

    @property
    def timeout_s(self) -> float:
        """Seconds from the end of the upload to the answer."""


class Asked(Protocol):
    """What the page asks."""

    @property
    def ready(self) -> bool:
        """Whether everything is loaded."""

    @property
    def model(self) -> str | None:
        """The name of the model that answers; None until it is loaded."""

    @property
    def genres(self) -> Sequence[str]:
        """In the order of the model's outputs."""

    def query(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> Any:
        """Return the genre of a song."""

    def identify(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> Any:
        """Return which indexed song it is."""

    def similar(self, path: Path, *, top: int = 10, start: float = 0.0, duration: float | None = None) -> Any:
        """Return the songs most like it."""


class Answering(Asked, Protocol):
    """What gives the answers, as `answerer.Answerer` does."""

    def load(self) -> None:
        """Load it."""

    def close(self) -> None:
        """Let go of it."""
