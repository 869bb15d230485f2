"""The data set that is audited: its songs, the embeddings of their chunks, and the similarity of songs."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from genre.audio import manifest
from genre.audio.manifest import Row
from genre.cache import Cache
from genre.errors import DatasetError
from genre.features import arrays
from genre.features.arrays import VectorSet
from genre.models import embeddings
from genre.models.rejection import STATISTICS
from genre.params import Params
from genre.paths import Paths
from genre.search.embedding_index import Description, Projection

MUSICNN = "musicnn"

Vectors = npt.NDArray[np.float32]


class Project:
    """The results of split, vectorize and index. A song is named by its path below the folder of the data set."""

    def __init__(self, settings: Params, paths: Paths) -> None:
        self.settings, self.paths = settings, paths
        self.cache = Cache(paths.cache, settings.cache.max_bytes)
        self.folder = (paths.datasets / settings.dataset.name).relative_to(paths.root).as_posix()
        self.rows = sorted(manifest.read(paths.chunks), key=lambda row: row.split != "train")  # as in the vectors
        self.songs: dict[str, Row] = {}  # first chunk of each song
        for row in self.rows:
            self.songs.setdefault(self.name(row.source), row)
        position = {song: i for i, song in enumerate(self.songs)}
        self.song_of = np.array([position[self.name(row.source)] for row in self.rows])  # [shape=(chunks,)]

    def name(self, source: str) -> str:
        """Return the name of a song, given its path below the project's root."""
        return source.removeprefix(f"{self.folder}/")

    @functools.cached_property
    def data(self) -> VectorSet:
        """Return features, labels, songs and genres of all chunks; DatasetError if they are not those of chunks/."""
        data = arrays.read_all(self.paths.vectors)
        if data.songs != [row.song_id for row in self.rows]:
            raise DatasetError(f"{self.paths.chunks}/ has other songs than the vectors: run `dvc repro vectorize`")
        return replace(data, songs=[self.name(row.source) for row in self.rows])

    @functools.cached_property
    def embeddings(self) -> dict[str, Vectors]:
        """Return embeddings [shape=(chunks, values)] by name: `STATISTICS` and, if its network is there, `MUSICNN`."""
        vectors = {STATISTICS: embeddings.load(STATISTICS, self.paths).of_features(self.data.inputs)}
        if self.paths.musicnn(self.settings.musicnn.network).is_file():
            vectors[MUSICNN] = self._embedded(self.settings.musicnn.embedding)
        return vectors

    @functools.cached_property
    def similarities(self) -> Vectors:
        """Return the cosine similarities of the songs, of the means of their indexed vectors [shape=(songs, songs)]."""
        vectors = Projection.load(self.paths.projection)(self._embedded(Description.load(self.paths.index).embedding))
        means = np.zeros((len(self.songs), vectors.shape[1]), np.float32)
        np.add.at(means, self.song_of, vectors)
        means /= np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)
        similarities: Vectors = means @ means.T
        return similarities

    def _embedded(self, name: str) -> Vectors:
        embedder = embeddings.load(name, self.paths, cache=self.cache)
        chunk_files = [self.paths.chunks / row.chunk for row in self.rows]
        return embedder.of_files(chunk_files, workers=self.settings.parallel.workers)
