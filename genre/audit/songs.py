"""The data set that is audited: its songs, the embeddings of their chunks, and the similarity of songs."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np

from genre.audio import manifest
from genre.cache import Cache
from genre.features import arrays
from genre.models import embeddings, rejection
from genre.models.embeddings import Vectors
from genre.params import Params
from genre.paths import Paths
from genre.search.embedding_index import Description, Projection


class AuditedSongs:
    """The results of split, vectorize and index. A song is named by its path below the folder of the data set."""

    def __init__(self, settings: Params, paths: Paths) -> None:
        self.settings, self.paths = settings, paths
        self.cache = Cache(paths.cache, settings.cache.max_bytes)
        self.folder = (paths.datasets / settings.dataset.name).relative_to(paths.root).as_posix()
        self.rows = sorted(manifest.read(paths.chunks), key=lambda row: row.split != "train")  # as in the vectors
        self.chunk_files = [paths.chunks / row.chunk for row in self.rows]
        self.songs: dict[str, manifest.Row] = {}  # first chunk of each song
        for row in self.rows:
            self.songs.setdefault(self.name(row.source), row)
        position = {song: i for i, song in enumerate(self.songs)}
        self.song_of = np.array([position[self.name(row.source)] for row in self.rows])  # [shape=(chunks,)]

    def name(self, source: str) -> str:
        """Return the name of a song, given its path below the project's root."""
        return source.removeprefix(f"{self.folder}/")

    @functools.cached_property
    def data(self) -> arrays.VectorSet:
        """Return features, labels, songs and genres of all chunks; VectorError if they are not those of chunks/."""
        data = arrays.read_all(self.paths.vectors, self.rows)
        return replace(data, songs=[self.name(row.source) for row in self.rows])

    @functools.cached_property
    def embeddings(self) -> dict[str, Vectors]:
        """Return the embeddings of `rejection.embedders` by name [shape=(chunks, values)]."""
        embedders = rejection.embedders(self.settings.musicnn, self.paths, self.cache)
        workers = self.settings.parallel.workers
        return {e.name: e.of_chunks(self.data.inputs, self.chunk_files, workers) for e in embedders}

    @functools.cached_property
    def similarities(self) -> Vectors:
        """Return the cosine similarities of the songs, of the means of their indexed vectors [shape=(songs, songs)]."""
        embedder = embeddings.load(Description.load(self.paths.index).embedding, self.paths, cache=self.cache)
        vectors = embedder.of_files(self.chunk_files, workers=self.settings.parallel.workers)
        vectors = Projection.load(self.paths.projection)(vectors)
        means = np.zeros((len(self.songs), vectors.shape[1]), np.float32)
        np.add.at(means, self.song_of, vectors)
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        return np.asarray(means @ means.T, np.float32)
