"""What is this song like? Its genre by a vote of the nearest windows, and the nearest songs."""

from __future__ import annotations

import contextlib
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from typing_extensions import TypedDict

from genre import files
from genre.audio import chunks
from genre.errors import SearchError
from genre.features.settings import Settings
from genre.models import embeddings
from genre.search import embedding_manifest
from genre.search.embedding_index import Projection, Vectors
from genre.search.embedding_manifest import Manifest
from genre.search.settings import IndexSettings
from genre.search.store import Neighbour, VectorStore

WINDOWS_PER_SONG = 10  # near windows may be of few songs: so many are asked for to name one
MAX_LEFT_OUT = 2000  # songs that are left out in turn; of more, as many evenly spaced ones
SHARPNESS = 10.0  # of the weighted vote: a neighbour 0.1 less similar than the nearest counts 1/e


class SimilarSong(TypedDict):
    """An indexed song and its similarity to the song that was asked about."""

    song: str
    genre: str
    score: float  # cosine similarity


class Similar(TypedDict):
    """The answer of similar (docs/search.md)."""

    file: str
    genre: str  # mode over the chunks
    weighted_genre: str  # by the sum of the neighbours' weights
    votes: dict[str, int]  # chunks by genre
    songs: list[SimilarSong]  # nearest first


@dataclass(frozen=True, slots=True)
class Song:
    """A song that was found, with its greatest similarity to each chunk asked for, averaged."""

    song: str
    genre: str
    similarity: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What the neighbours say."""

    genre: str  # mode over the chunks of the mode over their neighbours; a tie goes to the more similar
    weighted_genre: str  # greatest sum over all neighbours, near ones counting more
    votes: dict[str, int]  # chunks by genre
    songs: list[Song]  # nearest first


@dataclass(frozen=True, slots=True)
class Neighbours:
    """What `similar` needs, ready to be asked."""

    made_with: Manifest
    projection: Projection
    store: VectorStore


@contextlib.contextmanager
def opened(root: Path, settings: IndexSettings) -> Iterator[Neighbours]:
    """Yield what the stage `index` has made in a project's folder.

    Raises
    ------
    SearchError
        If something is missing or damaged, was made otherwise, or does not belong together.
    """
    made_with = embedding_manifest.read(root / embedding_manifest.MANIFEST)
    project = Projection.load(root / embedding_manifest.PROJECTION)
    if project.axes.shape[1] != made_with.dimension:
        raise SearchError(
            f"{root / embedding_manifest.PROJECTION} does not belong to {root / embedding_manifest.MANIFEST}:"
            " run `dvc repro index`"
        )
    with VectorStore(
        settings.under(root),
        kind=embedding_manifest.KIND,
        fingerprint=made_with.fingerprint,
        dimension=made_with.dimension,
    ) as store:
        store.open(made_with.vectors)
        yield Neighbours(made_with, project, store)


def embed_file(
    path: Path, name: str, settings: Settings, *, start: float = 0.0, duration: float | None = None
) -> Vectors:
    """Cut a song as the DAG does and return the embeddings of its chunks [shape=(chunks, values)].

    Raises
    ------
    AudioError
        If the song cannot be decoded.
    ModelError
        If there is no such embedding, or what it needs is missing.
    """
    cut = chunks.iterate(path, **asdict(settings), start=start, duration=duration)
    return np.stack([embeddings.of_samples(name, chunk.samples, settings.sample_rate) for chunk in cut])


def similar(
    path: Path,
    *,
    store: VectorStore,
    projection: Projection,
    embedding: str,
    settings: Settings,
    top: int = 10,
    top_k: int = 10,
    start: float = 0.0,
    duration: float | None = None,
) -> Similar:
    """Answer what a song is like, in the form of the similar contract (see docs/search.md).

    A song that is itself in the store does not count, by the SHA-256 of its file.

    Raises
    ------
    AudioError
        If the song cannot be decoded.
    SearchError
        As `VectorStore.search`.
    """
    vectors = projection(embed_file(path, embedding, settings, start=start, duration=duration))
    found = store.search(vectors, max(top_k, WINDOWS_PER_SONG * top), without=[files.sha256(path)])
    outcome = decide(found, top_k)
    return {
        "file": str(path),
        "genre": outcome.genre,
        "weighted_genre": outcome.weighted_genre,
        "votes": outcome.votes,
        "songs": [
            {"song": song.song, "genre": song.genre, "score": round(song.similarity, 4)} for song in outcome.songs[:top]
        ],
    }


def decide(found: Sequence[Sequence[Neighbour]], top_k: int) -> Outcome:
    """Return what the neighbours of a song's chunks say together; the genre counts the `top_k` nearest of each."""
    near = [hits[:top_k] for hits in found]
    votes = Counter(_mode(hits) for hits in near if hits)
    total: defaultdict[str, float] = defaultdict(float)
    plain: defaultdict[str, float] = defaultdict(float)
    for hits in near:
        for hit in hits:
            plain[hit.window.genre] += hit.similarity
            total[hit.window.genre] += float(np.exp(SHARPNESS * (hit.similarity - hits[0].similarity)))
    genre = max(votes, key=lambda g: (votes[g], plain[g]), default="")
    return Outcome(genre, max(total, key=lambda g: total[g], default=""), dict(votes.most_common()), _songs(found))


def leave_one_out(
    store: VectorStore, vectors: Mapping[str, Vectors], genres: Mapping[str, str], top_k: int
) -> dict[str, float]:
    """Return the share of songs whose genre their neighbours tell, each song's own windows left out.

    Parameters
    ----------
    store : VectorStore
        With these songs.
    vectors : mapping of npt.NDArray[np.float32] [shape=(chunks, dimension)]
        Of the songs, by SHA-256.
    genres : mapping of str
        Of the songs, by SHA-256.
    top_k : int
        Neighbours of each chunk.

    Returns
    -------
    dict of float
        "mode" and "weighted": by each of the votes of `Outcome`.
    """
    right = Counter({"mode": 0, "weighted": 0})
    tried = list(vectors)[:: max(1, len(vectors) // MAX_LEFT_OUT)]
    for sha256 in tried:
        of_song = vectors[sha256]
        # a song has at most as many windows of its own before the others; a filter for each song would be slower
        found = store.search(of_song, top_k + len(of_song))
        others = [[hit for hit in hits if hit.window.song_sha256 != sha256] for hits in found]
        outcome = decide(others, top_k)
        right["mode"] += outcome.genre == genres[sha256]
        right["weighted"] += outcome.weighted_genre == genres[sha256]
    return {vote: round(n / max(len(tried), 1), 4) for vote, n in right.items()}


def _mode(hits: Sequence[Neighbour]) -> str:
    counts = Counter(hit.window.genre for hit in hits)
    similarity: defaultdict[str, float] = defaultdict(float)
    for hit in hits:
        similarity[hit.window.genre] += hit.similarity
    return max(counts, key=lambda genre: (counts[genre], similarity[genre]))


def _songs(found: Sequence[Sequence[Neighbour]]) -> list[Song]:
    """Return the songs of all hits; where a song is not among a chunk's hits, it is as similar as the last of them."""
    best: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for i, hits in enumerate(found):
        for hit in hits:
            of_song = best[hit.window.genre, hit.window.song]
            of_song[i] = max(of_song.get(i, -1.0), hit.similarity)
    last = [hits[-1].similarity for hits in found if hits]
    chunks_with_hits = [i for i, hits in enumerate(found) if hits]
    songs = [
        Song(
            song,
            genre,
            float(np.mean([of_song.get(i, floor) for i, floor in zip(chunks_with_hits, last, strict=True)])),
        )
        for (genre, song), of_song in best.items()
    ]
    return sorted(songs, key=lambda song: -song.similarity)
