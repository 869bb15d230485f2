"""The embedding index: a projection of embeddings to vectors, and vectors/index.json, which describes the vectors.

Embeddings are standardised, clipped and projected on principal axes, each scaled by the square root of its standard
deviation. On GTZAN mini this ranks songs of the same genre higher than the embeddings do (docs/search.md).
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import SearchError
from genre.features.transforms import Settings
from genre.models import embeddings
from genre.models.embeddings import Embedder, Vectors
from genre.params import CommandParams
from genre.paths import Paths
from genre.search import store
from genre.search.store import VectorStore

VERSION = 1  # part of the digest of the index: raise it with every change of the vectors
N_AXES = 64
LIMIT = 3.0  # standard deviations
WINDOW_S = 3.0  # length of a window: that of a patch of MusiCNN
WINDOW_HOP_S = 0.5  # between the windows of a song
RECALL_SAMPLE = 100  # vectors
Floats = npt.NDArray[np.floating]

WINDOW_SETTINGS = {"version": 1, "window_s": WINDOW_S, "hop_s": WINDOW_HOP_S}


@dataclass(frozen=True, slots=True)
class Projection:
    """A map from embeddings to vectors of unit length."""

    mean: Vectors  # shape (values,)
    scale: Vectors  # shape (values,)
    axes: Vectors  # shape (values, dimension)

    @property
    def dimension(self) -> int:
        """Return the number of values of a vector."""
        return int(self.axes.shape[1])

    def __call__(self, embeddings: Vectors) -> Vectors:
        """Return the vectors [shape=(n, dimension)] of embeddings [shape=(n, values)]."""
        projected = _clipped(embeddings, self.mean, self.scale) @ self.axes
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        vectors: Vectors = (projected / np.maximum(lengths, 1e-12)).astype(np.float32)
        return vectors

    def save(self, path: Path) -> None:
        """Write the projection to a file, atomically."""
        files.write_bytes(path, files.npz(**asdict(self)))

    @classmethod
    def load(cls, path: Path) -> Projection:
        """Read a projection; raise SearchError if the file is missing or damaged."""
        with files.reading(path, SearchError, "index"):
            return cls(**files.read_npz(path))


def fit(embeddings: Vectors) -> Projection:
    """Return the projection fitted on embeddings [shape=(n, values)]."""
    mean = embeddings.mean(axis=0, dtype=np.float64)
    scale = 1 / (embeddings.std(axis=0, dtype=np.float64) + 1e-6)
    clipped = _clipped(embeddings, mean, scale)
    values, axes = np.linalg.eigh(clipped.T @ clipped / len(clipped))
    largest = np.argsort(-values)[: min(N_AXES, max(len(embeddings) - 1, 2), len(mean))]  # Milvus requires 2 or more
    scaled = axes[:, largest] * np.maximum(values[largest], 1e-6 * values.max()) ** -0.25
    return Projection(mean.astype(np.float32), scale.astype(np.float32), scaled.astype(np.float32))


@dataclass(frozen=True, slots=True)
class Description:
    """The settings and the number of the vectors in the store: vectors/index.json."""

    embedding: str
    settings: Settings  # of the chunks
    dimension: int
    digest: str  # of every setting that changes a vector, and of the songs that the projection was fitted on
    songs: int
    vectors: int  # of chunks
    windows: int | None  # vectors of windows; None: not indexed
    contents: str  # digest of the songs and their chunks
    synthetic: bool = False  # whether the songs are synthetic
    recall_at_10: float | None = None  # of the chunks, see `recall`; None for fewer than 11

    def save(self, path: Path) -> None:
        """Write the description as JSON, atomically."""
        files.write_json(path, {**asdict(self), "settings": self.settings.to_dict()})

    @classmethod
    def load(cls, path: Path) -> Description:
        """Read a description; raise SearchError if it is missing, damaged or of a version with other features."""
        from pydantic import TypeAdapter

        with files.reading(path, SearchError, "index"):
            values = files.read_json(path)
            return TypeAdapter(cls).validate_python({**values, "settings": Settings.from_dict(values["settings"])})


def recall(collection: VectorStore, vectors: Vectors, k: int = 10) -> float | None:
    """Return the share of the `k` nearest other vectors that a collection of `vectors` finds, or None for too few.

    It is the mean over `RECALL_SAMPLE` of the vectors [shape=(n, dimension)], drawn at random, whose neighbours are
    also searched for exactly. Equally near ones count alike.
    """
    if len(vectors) <= k:
        return None
    rows = np.random.default_rng(0).permutation(len(vectors))[:RECALL_SAMPLE]
    n_found = 0
    for row, found in zip(rows, collection.search(vectors[rows], k + 1), strict=True):
        exact = np.partition(vectors @ vectors[row], -k - 1)[-k - 1]  # of the vector itself and the k nearest
        n_found += max(0, sum(neighbour.similarity >= exact - 1e-5 for neighbour in found) - 1)
    return n_found / (k * len(rows))


def embedding_name(params: CommandParams) -> str:
    """Return the name of the embedding that `index.embedding` names."""
    return params.musicnn.embedding if params.index.embedding == "musicnn" else params.index.embedding


def connect(
    params: CommandParams, paths: Paths, description: Description, kind: str
) -> contextlib.AbstractContextManager[VectorStore]:
    """Connect to the collection of the vectors of a kind, "chunks" or "windows"; see `store.connect`."""
    digest = description.digest if kind == "chunks" else files.digest(description.digest, WINDOW_SETTINGS)
    return store.connect(params, paths, kind=kind, digest=digest, dimension=description.dimension)


@contextlib.contextmanager
def opened(
    params: CommandParams, paths: Paths, kind: str
) -> Iterator[tuple[Description, Projection, Embedder, VectorStore]]:
    """Yield the description and projection of a project's vectors, their embedding, and the store with those of a kind.

    Raises SearchError if they are missing, damaged or do not belong together, the index has no windows, or as
    `store.connect`; ModelError if the network is missing.
    """
    description, projection = Description.load(paths.index), Projection.load(paths.projection)
    if projection.dimension != description.dimension:
        raise SearchError(f"{paths.projection} does not belong to {paths.index}: run `dvc repro index`")
    n_vectors = description.vectors if kind == "chunks" else description.windows
    if n_vectors is None:
        raise SearchError("the index has no windows: set index.windows to true, then run `dvc repro index`")
    embedder = embeddings.load(description.embedding, paths)
    with connect(params, paths, description, kind) as collection:
        collection.open(n_vectors)
        yield description, projection, embedder, collection


def _clipped(embeddings: Vectors, mean: Floats, scale: Floats) -> Floats:
    return np.clip((embeddings - mean) * scale, -LIMIT, LIMIT)
