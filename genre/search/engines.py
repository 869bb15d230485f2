"""The two engines of `identify` behind one face: landmarks in a file, or a network's vectors in the vector store."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from typing_extensions import TypedDict

from genre.errors import SearchError
from genre.search import embedding_manifest, landmarks, network, windows
from genre.search import identify as recognition
from genre.search.identify import MAX_SPEED_CHANGE, Found
from genre.search.landmark_index import MAX_SNIPPET_S, Index
from genre.search.landmarks import Floats
from genre.search.network import Network
from genre.search.settings import ENGINES, IndexSettings
from genre.search.store import VectorStore


class Match(TypedDict):
    """The answer of identify (docs/search.md)."""

    file: str
    song: str | None  # None where no indexed song matches
    offset: float | None  # s from the start of the song to the start of the snippet
    score: float  # 0 to 1
    genre: str | None


class Engine(Protocol):
    """What names the song of a snippet."""

    def load(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> Floats:
        """Decode a snippet as `recognise` takes it [shape=(n,)]; `AudioError` if that fails."""

    def recognise(self, samples: Floats, *, without: Collection[str] = ()) -> Sequence[Found]:
        """Return the songs that it may be from, the best first, as if songs of these SHA-256 were not indexed."""


@dataclass(frozen=True, slots=True)
class Landmarks:
    """The engine of the landmark index."""

    index: Index
    max_speed_change: float = MAX_SPEED_CHANGE

    def load(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> Floats:
        """See `Engine.load`."""
        return landmarks.load(path, start=start, duration=duration)

    def recognise(self, samples: Floats, *, without: Collection[str] = ()) -> Sequence[Found]:
        """See `Engine.recognise`."""
        return recognition.recognise(samples, self.index, max_speed_change=self.max_speed_change, without=without)


@dataclass(frozen=True, slots=True)
class Windows:
    """The engine of the fingerprint network."""

    network: Network
    store: VectorStore
    max_speed_change: float = MAX_SPEED_CHANGE

    def load(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> Floats:
        """See `Engine.load`."""
        return network.load(path, start=start, duration=duration)

    def recognise(self, samples: Floats, *, without: Collection[str] = ()) -> Sequence[Found]:
        """See `Engine.recognise`."""
        return windows.recognise(
            samples, self.network, self.store, max_speed_change=self.max_speed_change, without=without
        )


@contextlib.contextmanager
def opened(
    name: str, settings: IndexSettings, *, max_speed_change: float = MAX_SPEED_CHANGE, root: Path = Path()
) -> Iterator[Engine]:
    """Yield the engine of this name with what the DAG has indexed in the project's folder.

    Raises
    ------
    SearchError
        If there is no such engine, or its index or network is missing or was made otherwise.
    """
    if name == "landmarks":
        yield Landmarks(Index.load(root / embedding_manifest.LANDMARKS), max_speed_change)
    elif name == "network":
        its_network = Network.load(root)
        with windows.open_store(settings.under(root), its_network) as store:
            store.open(windows.n_vectors(root))
            yield Windows(its_network, store, max_speed_change)
    else:
        raise SearchError(f"search.engine {name} is not known: use one of {', '.join(ENGINES)}")


def identify(
    path: Path, *, engine: Engine, start: float = 0.0, duration: float | None = None, min_score: float = 0.5
) -> Match:
    """Answer which song a snippet is from, in the form of the identify contract (see docs/search.md).

    Raises
    ------
    AudioError
        If the file cannot be decoded.
    SearchError
        If the vector store does not answer.
    """
    seconds = MAX_SNIPPET_S if duration is None else min(duration, MAX_SNIPPET_S)
    found = engine.recognise(engine.load(path, start=start, duration=seconds))
    best = found[0] if found else None
    known = best if best is not None and best.score >= min_score else None
    return {
        "file": str(path),
        "song": known.song.song if known else None,
        "offset": round(known.offset_s, 2) if known else None,
        "score": round(best.score, 4) if best else 0.0,
        "genre": known.song.genre if known else None,
    }
