"""Identify a snippet by embeddings: windows of 3 s vote for the song and offset on which they agree.

The windows of all songs are in the vector store, with the embedding and projection that `similar` uses. Each window of
the snippet votes, with its cosine similarity, for the songs of its nearest windows and the offset that they imply.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre.audio import chunks, ffmpeg
from genre.models.embeddings import Embedder, Samples, Vectors
from genre.search.embedding_index import WINDOW_HOP_S, WINDOW_S, Projection
from genre.search.engine import Candidate, IndexedSong, probability
from genre.search.store import Neighbour, VectorStore

SNIPPET_HOP_S = 0.4  # of a snippet; no multiple of WINDOW_HOP_S, so that errors of the offset average out
TOP_K = 20  # nearest windows of each window of the snippet
CHANCE = 1.05  # divided by the root of the number of windows: mean similarity of a wrong song, by chance

# Logistic function from evidence to score: 2 % of out-of-set snippets exceed the centre (docs/search.md).
CENTRE, SPREAD = 0.37, 0.05


@dataclass(frozen=True, slots=True)
class EmbeddingEngine:
    """The identification engine `embeddings`."""

    embedder: Embedder
    sample_rate: int  # Hz
    projection: Projection
    store: VectorStore

    def load(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> Vectors:
        """Return the vectors of a file; see `embed`. Raise AudioError if it cannot be decoded."""
        return self.embed(load(path, self.sample_rate, start=start, duration=duration))

    def embed(self, samples: Samples) -> Vectors:
        """Return the vectors of the windows of a snippet [shape=(windows, dimension)]; silence has none.

        The samples are mono at `sample_rate` [shape=(n,)].
        """
        if chunks.is_silent(samples, self.sample_rate):
            return np.empty((0, self.projection.dimension), np.float32)
        return self.projection(embed(samples, self.embedder, self.sample_rate, SNIPPET_HOP_S))

    def recognise(self, snippet: Vectors, *, without: Collection[str] = ()) -> list[Candidate]:
        """Return one candidate per song, best first, leaving out songs of these SHA-256; see `vote`."""
        return vote(self.store.search(snippet, TOP_K, without=without)) if len(snippet) else []


def load(path: Path, sample_rate: int, *, start: float = 0.0, duration: float | None = None) -> Samples:
    """Return the samples of a file, mono at `sample_rate` in Hz [shape=(n,)]; raise AudioError."""
    return np.concatenate(list(ffmpeg.stream_pcm(path, sample_rate=sample_rate, start=start, duration=duration)))


def embed(samples: Samples, embedder: Embedder, sample_rate: int, hop_s: float = WINDOW_HOP_S) -> Vectors:
    """Return the embeddings [shape=(windows, values)] of windows of samples [shape=(n,)], mono at `sample_rate` in Hz.

    There is one window every `hop_s` seconds; a recording shorter than a window is one window.
    """
    length, n_windows = round(WINDOW_S * sample_rate), 1
    n_windows += max(0, int((len(samples) - length) / (hop_s * sample_rate)))
    starts = np.rint(np.arange(n_windows) * hop_s * sample_rate).astype(int)
    return np.stack([embedder.of_audio(samples[start : start + length], sample_rate) for start in starts])


def vote(neighbours: Sequence[Sequence[Neighbour]]) -> list[Candidate]:
    """Return one candidate per song, best first, from the neighbours of each window of a snippet.

    The evidence of a song is the mean over the windows of their similarity to a window at the offset with most
    similarity, where a window without a neighbour counts 0; less the mean that is reached by chance, which is larger
    for fewer windows.
    """
    votes: defaultdict[IndexedSong, list[tuple[float, ...]]] = defaultdict(list)
    for i, nearest in enumerate(neighbours):
        for neighbour in nearest:
            votes[neighbour.song].append((i, neighbour.start_s - i * SNIPPET_HOP_S, max(0.0, neighbour.similarity)))
    candidates = []
    for song, of_song in votes.items():
        table = np.array(of_song)
        offset_s, total = max((_agreement(table, offset_s) for offset_s in table[:, 1]), key=lambda pair: pair[1])
        evidence = total / len(neighbours) - CHANCE / len(neighbours) ** 0.5
        candidates.append(Candidate(song, offset_s, evidence, probability(evidence, CENTRE, SPREAD)))
    return sorted(candidates, key=lambda candidate: (-candidate.evidence, candidate.song.sha256))


def _agreement(votes: npt.NDArray[np.float64], offset_s: float) -> tuple[float, float]:
    """Return the mean offset in seconds of the votes near an offset, one per window, and the sum of their similarities.

    `votes` [shape=(votes, 3)] have the window of the snippet, the offset in seconds, and the similarity.
    """
    near = votes[np.abs(votes[:, 1] - offset_s) <= WINDOW_HOP_S / 2 + 1e-6]
    best_first = near[np.argsort(-near[:, 2], kind="stable")]
    best = best_first[np.unique(best_first[:, 0], return_index=True)[1]]
    total = float(best[:, 2].sum())
    return (float(np.average(best[:, 1], weights=best[:, 2])), total) if total else (float(offset_s), 0.0)
