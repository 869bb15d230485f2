"""Make the songs searchable: landmarks of every song in files, embeddings of every chunk in the vector store.

python -m stages.index
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from genre import files, params
from genre.audio import ffmpeg, manifest
from genre.audio.manifest import Row
from genre.cache import Cache
from genre.cli import argument_parser, run_command
from genre.features.transforms import Settings
from genre.models import embeddings
from genre.models.embeddings import Embedder, Vectors
from genre.parallel import run
from genre.params import Params
from genre.paths import Paths
from genre.search import embedding_index, landmark_index, landmarks, window_engine
from genre.search.embedding_index import WINDOW_HOP_S, WINDOW_SETTINGS, Description, Projection
from genre.search.engine import IndexedSong
from genre.search.landmark_index import LandmarkIndex
from genre.search.landmarks import Peaks
from genre.search.store import Window

Song = list[Row]  # the chunks of a song, in order


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: chunks/ and the songs -> vectors/ and the vector store."""
    argument_parser(__doc__).parse_args(argv)
    paths = Paths()
    settings = params.load(paths.params)
    songs = landmark_index.group_songs(manifest.read(paths.chunks))
    cache = Cache(paths.cache, settings.cache.max_bytes)
    indexer = Indexer(songs, settings, paths, cache)
    index = indexer.landmarks()
    description = indexer.embeddings()
    description.save(paths.index)
    cache.trim()
    hours = index.total_frames * landmarks.FRAME_S / 3600
    print(
        f"index: {len(songs)} songs, {hours:.2f} h,"
        f" {description.vectors + (description.windows or 0)} vectors of {description.dimension} values"
        + (f", recall@10 {description.recall_at_10:.3f}" if description.recall_at_10 is not None else "")
    )
    return 0


@dataclass(frozen=True, slots=True)
class Indexer:
    """The songs of a project, to be indexed."""

    songs: Sequence[Song]
    settings: Params
    paths: Paths
    cache: Cache

    def landmarks(self) -> LandmarkIndex:
        """Write the landmark index, and return it."""
        songs = {song[0].source_sha256: song for song in self.songs}

        def peaks_of(part: Sequence[IndexedSong]) -> Iterator[Peaks]:
            rows = [songs[indexed.sha256] for indexed in part]
            for data in self._results(rows, "landmarks", _peaks_of_file, landmarks.SETTINGS):
                yield Peaks(**files.read_npz(data))

        density = self.settings.index.landmark_density
        return landmark_index.write(self.paths.landmarks, self._indexed(), peaks_of, density)

    def embeddings(self) -> Description:
        """Write the projection and the vectors; return their description."""
        split = self.settings.split
        features = Settings(split.sample_rate, split.chunk_seconds, split.min_seconds)
        embedder = embeddings.load(embedding_index.embedding_name(self.settings), self.paths, cache=self.cache)
        chunk_files = [self.paths.chunks / row.chunk for song in self.songs for row in song]
        rows = embedder.of_files(chunk_files, **dict(self.settings.parallel))
        of_songs = np.split(rows, np.cumsum([len(song) for song in self.songs])[:-1])
        training = [i for i, song in enumerate(self.songs) if song[0].split == "train"]
        projection = embedding_index.fit(np.concatenate([of_songs[i] for i in training]))
        projection.save(self.paths.projection)
        fitted_on = [self.songs[i][0].source_sha256 for i in training]
        digest = embedding_index.digest(embedder, features, fitted_on, projection)
        windows = self._windows(embedder) if self.settings.index.windows else None
        names = [[s[0].source_sha256, s[0].song, s[0].genre, [row.start_s for row in s]] for s in self.songs]
        description = Description(
            embedding=embedder.name,
            settings=features.to_dict(),
            dimension=projection.dimension,
            digest=digest,
            songs=len(self.songs),
            vectors=len(rows),
            windows=None if windows is None else sum(map(len, windows)),
            contents=files.digest(digest, names),
            synthetic=self.paths.is_synthetic(self.settings.dataset.name),
        )
        recall = self._store("chunks", description, projection, of_songs)
        if windows is not None:
            self._store("windows", description, projection, windows)
        return replace(description, recall_at_10=recall)

    def _indexed(self) -> list[IndexedSong]:
        return [IndexedSong(rows[0].source_sha256, rows[0].song, rows[0].genre) for rows in self.songs]

    def _windows(self, embedder: Embedder) -> list[Vectors]:
        """Return the embeddings of the windows of each song [shape=(windows, values) each]."""
        rate = self.settings.split.sample_rate
        compute = functools.partial(_windows_of_file, Embedder(embedder.name, self.paths), rate)
        data = self._results(self.songs, "windows", compute, embedder.describe(), rate, WINDOW_SETTINGS)
        return [np.frombuffer(values, np.float32).reshape(-1, embedder.embedding.n_values) for values in data]

    def _store(
        self, kind: str, description: Description, projection: Projection, embedded: Sequence[Vectors]
    ) -> float | None:
        """Write the projections of the embeddings of each song's chunks or windows; return the collection's recall."""
        windows = [
            Window(indexed, rows[k].start_s if kind == "chunks" else k * WINDOW_HOP_S)
            for indexed, rows, values in zip(self._indexed(), self.songs, embedded, strict=True)
            for k in range(len(values))
        ]
        vectors = np.concatenate([projection(values) for values in embedded])
        with embedding_index.connect(self.settings, self.paths, description, kind) as collection:
            collection.write(windows, vectors)
            return embedding_index.recall(collection, vectors)

    def _results(self, songs: Sequence[Song], name: str, compute: Callable[[Path], bytes], *parts: Any) -> list[bytes]:
        """Return the result of `compute` for the file of each song; `parts` are what else the result depends on."""
        items = [
            (files.digest(name, *parts, ffmpeg.version(), song[0].source_sha256), self.paths.root / song[0].source)
            for song in songs
        ]
        computed, parallel = functools.partial(_computed, compute, self.cache), dict(self.settings.parallel)
        results = run(computed, items, description=name, recall=lambda item: self.cache.recall(item[0]), **parallel)
        return list(results)


def _computed(compute: Callable[[Path], bytes], cache: Cache, item: tuple[str, Path]) -> bytes:
    key, path = item
    return cache.keep(key, compute(path))


def _peaks_of_file(path: Path) -> bytes:
    return files.npz(**asdict(landmark_index.song_peaks(landmarks.load(path))))


def _windows_of_file(embedder: Embedder, sample_rate: int, path: Path) -> bytes:
    return window_engine.embed(window_engine.load(path, sample_rate), embedder, sample_rate).tobytes()


if __name__ == "__main__":
    run_command(main)
