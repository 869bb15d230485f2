"""Make the songs searchable: landmarks of every song in a file, embeddings of every chunk in the vector store.

python -m stages.index
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genre import files, params
from genre.audio import ffmpeg, manifest
from genre.audio.manifest import Row
from genre.cache import Cache
from genre.cli import run_command
from genre.features.settings import Settings
from genre.models import embeddings
from genre.models.embeddings import Embedder
from genre.parallel import all_or_error, run
from genre.params import Params
from genre.paths import Paths
from genre.search import embedding_index, landmark_index, landmarks, similar, store, window_engine
from genre.search.embedding_index import Description, Projection, Vectors
from genre.search.engine import IndexedSong
from genre.search.landmark_index import LandmarkIndex, Landmarks
from genre.search.store import Window

Song = list[Row]  # the chunks of a song, in order


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: chunks/ and the songs -> vectors/ and the vector store."""
    argparse.ArgumentParser(prog="python -m stages.index", description=__doc__.splitlines()[0]).parse_args(argv)
    paths = Paths()
    settings = params.load(paths.params)
    songs = landmark_index.group_songs(manifest.read(paths.chunks))
    cache = Cache(paths.cache, settings.cache.max_bytes)
    index = index_landmarks(songs, settings, paths, cache)
    index.save(paths.landmarks)
    description = index_embeddings(songs, settings, paths, cache)
    description.save(paths.index)
    cache.trim()
    hours = index.total_frames * landmarks.FRAME_S / 3600
    print(
        f"index: {len(songs)} songs, {hours:.2f} h, {len(index.hashes)} landmarks,"
        f" {description.vectors + (description.windows or 0)} vectors of {description.dimension} values"
    )
    return 0


def index_landmarks(songs: Sequence[Song], settings: Params, paths: Paths, cache: Cache) -> LandmarkIndex:
    """Return the landmark index of songs."""
    task = _SongTask(_landmarks_of_file, ("landmarks", landmarks.SETTINGS), paths, cache)
    data = task.run(songs, settings, "landmarks")
    indexed = [IndexedSong(song[0].source_sha256, song[0].song, song[0].genre) for song in songs]
    return LandmarkIndex.build(list(zip(indexed, map(Landmarks.from_bytes, data), strict=True)))


def index_embeddings(songs: Sequence[Song], settings: Params, paths: Paths, cache: Cache) -> Description:
    """Write the projection and the vectors of songs; return their description."""
    split, parallel = settings.split, settings.parallel
    features = Settings(split.sample_rate, split.chunk_seconds, split.min_seconds)
    embedder = embeddings.load(embedding_index.embedding_name(settings), paths, cache=cache)
    chunk_files = [paths.chunks / row.chunk for song in songs for row in song]
    rows = embedder.of_files(chunk_files, workers=parallel.workers, scheduler=parallel.scheduler)
    of_songs = np.split(rows, np.cumsum([len(song) for song in songs])[:-1])
    training = [i for i, song in enumerate(songs) if song[0].split == "train"]
    projection = embedding_index.fit(np.concatenate([of_songs[i] for i in training]))
    projection.save(paths.projection)
    digest = embedding_index.digest(embedder, features, [songs[i][0].source_sha256 for i in training], projection)
    kinds: list[tuple[str, str, list[Vectors], float | None]] = [(similar.KIND, digest, of_songs, None)]
    if settings.index.windows:
        windows = embed_windows(songs, settings, embedder, cache)
        kinds.append((window_engine.KIND, window_engine.digest(digest), windows, window_engine.HOP_S))
    for kind, digest_of_kind, embedded, hop_s in kinds:
        with store.connect(
            settings, paths, kind=kind, digest=digest_of_kind, dimension=projection.dimension
        ) as collection:
            n_windows = {song[0].source_sha256: len(values) for song, values in zip(songs, embedded, strict=True)}
            collection.synchronize(_items(songs, embedded, projection, hop_s), n_windows)
    names = [[song[0].source_sha256, song[0].song, song[0].genre, [row.start_s for row in song]] for song in songs]
    return Description(
        embedding=embedder.name,
        settings=features.to_dict(),
        dimension=projection.dimension,
        digest=digest,
        songs=len(songs),
        vectors=len(rows),
        windows=sum(map(len, windows)) if settings.index.windows else None,
        contents=files.digest(digest, names),
    )


def embed_windows(songs: Sequence[Song], settings: Params, embedder: Embedder, cache: Cache) -> list[Vectors]:
    """Return the embeddings of the windows of each song [shape=(windows, values) each]."""
    sample_rate, paths = settings.split.sample_rate, embedder.paths
    compute = functools.partial(_windows_of_file, Embedder(embedder.name, paths), sample_rate)
    task = _SongTask(compute, ("windows", embedder.describe(), sample_rate, window_engine.SETTINGS), paths, cache)
    data = task.run(songs, settings, "windows")
    return [np.frombuffer(values, np.float32).reshape(-1, embedder.n_values) for values in data]


def _items(
    songs: Sequence[Song], embedded: Sequence[Vectors], projection: Projection, hop_s: float | None
) -> Iterator[tuple[Window, Vectors]]:
    """Yield the windows of songs with their vectors; `hop_s` None: the windows are the chunks."""
    for song, values in zip(songs, embedded, strict=True):
        for number, vector in enumerate(projection(values)):
            start_s = song[number].start_s if hop_s is None else number * hop_s
            yield Window(song[0].source_sha256, number, song[0].song, song[0].genre, start_s), vector


@dataclass(frozen=True, slots=True)
class _SongTask:
    """A computation on the file of a song, whose result is kept in the cache."""

    compute: Callable[[Path], bytes]
    settings: tuple[Any, ...]  # that change the result
    paths: Paths
    cache: Cache

    def __call__(self, song: Song) -> bytes:
        return self.cache.keep(self._key(song), self.compute(self.paths.root / song[0].source))

    def recall(self, song: Song) -> bytes | None:
        """Return the result for a song if it is in the cache."""
        return self.cache.recall(self._key(song))

    def run(self, songs: Sequence[Song], settings: Params, description: str) -> list[bytes]:
        """Return the result for each song."""
        workers, scheduler = settings.parallel.workers, settings.parallel.scheduler
        results = run(self, songs, description=description, workers=workers, scheduler=scheduler, known=self.recall)
        return list(all_or_error(results))

    def _key(self, song: Song) -> str:
        return files.digest(*self.settings, ffmpeg.version(), song[0].source_sha256)


def _landmarks_of_file(path: Path) -> bytes:
    return Landmarks.of_samples(landmarks.load(path)).to_bytes()


def _windows_of_file(embedder: Embedder, sample_rate: int, path: Path) -> bytes:
    samples = window_engine.load(path, sample_rate)
    return window_engine.embed(samples, embedder, sample_rate).tobytes()


if __name__ == "__main__":
    run_command(main)
