"""Name the indexed song that a snippet is from."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from genre.errors import SearchError
from genre.params import CommandParams
from genre.paths import Paths
from genre.search import embedding_index
from genre.search.engine import MAX_SNIPPET_S
from genre.search.landmark_engine import LandmarkEngine
from genre.search.landmark_index import LandmarkIndex
from genre.search.window_engine import EmbeddingEngine

Engine = LandmarkEngine | EmbeddingEngine


class MatchedSong(TypedDict):
    """A song of a snippet."""

    song: str
    offset: float  # s from the start of the song to the start of the snippet
    score: float  # 0 to 1
    genre: str
    path: NotRequired[Annotated[str | None, Field(exclude=True)]]  # of its file, None if unknown; not over HTTP


class Match(TypedDict):
    """The answer of identify (docs/search.md)."""

    file: str
    song: str | None  # None if no indexed song matches
    offset: float | None
    score: float  # of the best indexed song
    genre: str | None
    songs: list[MatchedSong]  # all that are in the snippet, best first
    path: NotRequired[Annotated[str | None, Field(exclude=True)]]


@contextlib.contextmanager
def open_engine(params: CommandParams, paths: Paths, engine: str | None = None) -> Iterator[Engine]:
    """Yield the engine "landmarks" or "embeddings" (None: search.engine) with the index of a project.

    Raises SearchError if there is no such engine, or if its index is missing, damaged or made with other settings; and
    as `embedding_index.opened`.
    """
    if (engine or params.search.engine) == "embeddings":
        with embedding_index.opened(params, paths, "windows") as (description, projection, embedder, windows):
            yield EmbeddingEngine(embedder, description.settings.sample_rate, projection, windows)
    elif engine not in {None, "landmarks"}:
        raise SearchError(f"there is no engine {engine}: landmarks or embeddings")
    else:
        index = LandmarkIndex.load(paths.landmarks, params.index.landmark_density)
        yield LandmarkEngine(index, params.search.max_speed_change)


def identify(
    path: Path, engine: Engine, *, start: float = 0.0, duration: float | None = None, min_score: float = 0.5
) -> Match:
    """Return the indexed songs of an audio file (docs/search.md); below `min_score` no song is named.

    `start` and `duration` are the part of the file to use, in seconds; at most `MAX_SNIPPET_S` are used.

    Raises AudioError if the file cannot be decoded; SearchError if the vector store does not answer.
    """
    duration = MAX_SNIPPET_S if duration is None else min(duration, MAX_SNIPPET_S)
    candidates = engine.recognise(engine.load(path, start=start, duration=duration))
    songs: list[MatchedSong] = [
        {"song": c.song.song, "offset": round(c.offset_s, 2), "score": round(c.score, 4), "genre": c.song.genre}
        for c in candidates
        if c.score >= min_score
    ]
    return {
        "file": str(path),
        "song": songs[0]["song"] if songs else None,
        "offset": songs[0]["offset"] if songs else None,
        "score": round(candidates[0].score, 4) if candidates else 0.0,
        "genre": songs[0]["genre"] if songs else None,
        "songs": songs,
    }
