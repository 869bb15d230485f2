"""The two engines of `identify` behind one face: landmarks in a file, or a network's vectors in the vector store."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from stages.errors import SearchError
from stages.search import landmarks, manifest, network, recognition, sequences
from stages.search.fingerprints import MAX_SNIPPET_S, Index
from stages.search.landmarks import Floats
from stages.search.network import Network
from stages.search.recognition import MAX_SPEED_CHANGE, Found
from stages.search.settings import ENGINES, IndexSettings
from stages.search.store import VectorStore


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
        return sequences.recognise(
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
        yield Landmarks(Index.load(root / manifest.LANDMARKS), max_speed_change)
    elif name == "network":
        its_network = Network.load(root)
        with sequences.open_store(settings.under(root), its_network) as store:
            store.open(sequences.n_vectors(root))
            yield Windows(its_network, store, max_speed_change)
    else:
        raise SearchError(f"search.engine {name} is not known: use one of {', '.join(ENGINES)}")


def identify(
    path: Path, *, engine: Engine, start: float = 0.0, duration: float | None = None, min_score: float = 0.5
) -> dict[str, Any]:
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
