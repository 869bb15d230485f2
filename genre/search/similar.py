"""Find the indexed songs most similar to one or several songs, and a genre by a vote of their nearest neighbours."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, NotRequired

import numpy as np
from pydantic import Field
from typing_extensions import TypedDict

from genre import files
from genre.audio import chunks
from genre.audio.process import collected_warnings
from genre.errors import SearchError
from genre.models.embeddings import Embedder, Vectors
from genre.params import CommandParams
from genre.paths import Paths
from genre.search import embedding_index
from genre.search.store import Neighbour, VectorStore

MIN_NEIGHBOURS = 200  # least number requested: an index of fewer chunks is returned completely
CHUNKS_PER_SONG = 10  # neighbours requested per song wanted: near chunks often belong to the same song
SYNTHETIC = "the indexed songs are synthetic: their genres mean nothing for real music"  # a warning
SHARPNESS = 10.0  # of the weighted vote: a neighbour 0.1 less similar than the nearest counts 1/e


class SimilarSong(TypedDict):
    """An indexed song and its similarity to the song in question."""

    song: str
    genre: str
    score: float  # cosine similarity
    path: NotRequired[Annotated[str | None, Field(exclude=True)]]  # of its file, None if unknown; not over HTTP


class Similar(TypedDict):
    """The answer of similar (docs/search.md)."""

    file: str
    genre: str  # mode over the chunks of the mode over their neighbours; a tie goes to the more similar genre
    weighted_genre: str  # greatest sum of weights over all neighbours
    warnings: list[str]
    votes: dict[str, int]  # chunks by genre
    songs: list[SimilarSong]  # nearest first


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The embedding index, open for searching."""

    description: embedding_index.Description
    projection: embedding_index.Projection
    embedder: Embedder
    store: VectorStore  # of the chunks
    top_k: int  # neighbours of each chunk that vote; see `n_voters` for small indexes

    def similar(self, *paths: Path, top: int = 10, start: float = 0.0, duration: float | None = None) -> Similar:
        """Return the `top` songs most similar to audio files (docs/search.md), leaving out these songs themselves.

        The score of a song is the mean over the files. `start` and `duration`, in s, are the part of each file to use.

        Raises AudioError if a file cannot be decoded; ModelError if the embedding needs a package that is not
        installed; SearchError if the vector store does not answer, without a song, or if `top` is not from 1 to 1000.
        """
        if not paths or not 1 <= top <= 1000:
            raise SearchError(f"similar needs at least one song, and top from 1 to 1000: it is {top}")
        with collected_warnings() as warnings:
            vectors = [self.embed(path, start=start, duration=duration) for path in paths]
        n_neighbours = max(self.top_k, CHUNKS_PER_SONG * top)
        n_requested = max(n_neighbours, MIN_NEIGHBOURS)
        neighbours = self.store.search(np.concatenate(vectors), n_requested, without=list(map(files.sha256, paths)))
        is_whole = all(len(nearest) < n_requested for nearest in neighbours)
        genre, weighted_genre, votes = vote(neighbours, n_voters(neighbours, self.top_k) if is_whole else self.top_k)
        weights = [1 / len(of_file) for of_file in vectors for _ in of_file]
        songs = nearest_songs([nearest[:n_neighbours] for nearest in neighbours], weights)[:top]
        return {
            "file": ", ".join(map(str, paths)),
            "genre": genre,
            "weighted_genre": weighted_genre,
            "warnings": [SYNTHETIC, *warnings] if self.description.synthetic else warnings,
            "votes": votes,
            "songs": songs,
        }

    def embed(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> Vectors:
        """Return the vectors of a song's chunks [shape=(chunks, dimension)]; raise AudioError or ModelError."""
        settings = self.description.settings
        pieces = chunks.audible(chunks.iterate(path, **asdict(settings), start=start, duration=duration), path)
        embedded = [self.embedder.of_audio(piece.samples, settings.sample_rate) for piece in pieces]
        return self.projection(np.stack(embedded))


@contextlib.contextmanager
def open_neighbours(params: CommandParams, paths: Paths) -> Iterator[Neighbours]:
    """Yield the embedding index of a project; raise as `embedding_index.opened`."""
    with embedding_index.opened(params, paths, "chunks") as index:
        yield Neighbours(*index, params.search.top_k)


def n_voters(neighbours: Sequence[Sequence[Neighbour]], top_k: int) -> int:
    """Return the number of neighbours of each chunk that vote, given all vectors of a small index as neighbours.

    It is `top_k`, or the number of chunks of the smallest genre if that is less: the mode over more neighbours would be
    the genre with most chunks for every song.
    """
    sizes = Counter(neighbour.song.genre for nearest in neighbours[:1] for neighbour in nearest)
    return min(top_k, *sizes.values()) if sizes else top_k


def vote(neighbours: Sequence[Sequence[Neighbour]], top_k: int) -> tuple[str, str, dict[str, int]]:
    """Return `genre`, `weighted_genre` and `votes` of `Similar`; both genres are "" without neighbours.

    Of the neighbours of each chunk, nearest first, `top_k` count.
    """
    voters = [nearest[:top_k] for nearest in neighbours if nearest]
    votes = Counter(_mode(Counter(n.song.genre for n in nearest), nearest) for nearest in voters)
    weights: defaultdict[str, float] = defaultdict(float)
    for nearest in voters:
        for neighbour in nearest:
            difference = neighbour.similarity - nearest[0].similarity
            weights[neighbour.song.genre] += float(np.exp(SHARPNESS * difference))
    genre = _mode(votes, itertools.chain.from_iterable(voters))
    return genre, max(weights, key=lambda g: weights[g], default=""), dict(votes.most_common())


def nearest_songs(neighbours: Sequence[Sequence[Neighbour]], weights: Sequence[float]) -> list[SimilarSong]:
    """Return the songs of all neighbours of each chunk, nearest first.

    The score of a song is its largest similarity to each chunk, averaged with the chunks' weights. If it is not among
    the neighbours of a chunk, the similarity of the last of them counts.
    """
    best: dict[tuple[str, str], dict[int, float]] = defaultdict(dict)
    for i, nearest in enumerate(neighbours):
        for neighbour in nearest:
            similarities = best[neighbour.song.genre, neighbour.song.song]
            similarities[i] = max(similarities.get(i, -1.0), neighbour.similarity)
    last = {i: nearest[-1].similarity for i, nearest in enumerate(neighbours) if nearest}
    used = [weights[i] for i in last]
    scores = {
        key: float(np.average([of_song.get(i, last[i]) for i in last], weights=used)) for key, of_song in best.items()
    }
    nearest_first = sorted(scores, key=lambda key: -scores[key])
    return [{"song": song, "genre": genre, "score": round(scores[genre, song], 4)} for genre, song in nearest_first]


def _mode(counts: Counter[str], neighbours: Iterable[Neighbour]) -> str:
    """Return the genre with the largest count; a tie goes to the one whose neighbours are more similar in total."""
    similarities: defaultdict[str, float] = defaultdict(float)
    for neighbour in neighbours:
        similarities[neighbour.song.genre] += neighbour.similarity
    return max(counts, key=lambda genre: (counts[genre], similarities[genre]), default="")
