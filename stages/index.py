"""Make the songs searchable: landmarks of every song in a file, embeddings of every chunk in the vector store.

python -m stages.index
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Callable, Sequence
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
from genre.models.embeddings import Embedder, Vectors
from genre.parallel import all_or_error, run
from genre.params import Params
from genre.paths import Paths
from genre.search import embedding_index, landmark_index, landmarks, similar, store, window_engine
from genre.search.embedding_index import Description, Projection
from genre.search.engine import IndexedSong
from genre.search.landmark_index import LandmarkIndex, Landmarks
from genre.search.store import VectorStore, Window

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
    data = _of_songs("landmarks", _landmarks_of_file, [landmarks.SETTINGS], songs, settings, paths, cache)
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
    dimension, n_windows = projection.dimension, None
    with store.connect(settings, paths, kind=similar.KIND, digest=digest, dimension=dimension) as collection:
        _synchronize(collection, songs, of_songs, projection)
    if settings.index.windows:
        windows = embed_windows(songs, settings, embedder, cache)
        n_windows, of_windows = sum(map(len, windows)), window_engine.digest(digest)
        with store.connect(
            settings, paths, kind=window_engine.KIND, digest=of_windows, dimension=dimension
        ) as collection:
            _synchronize(collection, songs, windows, projection, window_engine.HOP_S)
    names = [[song[0].source_sha256, song[0].song, song[0].genre, [row.start_s for row in song]] for song in songs]
    contents = files.digest(digest, names)
    return Description(embedder.name, features.to_dict(), dimension, digest, len(songs), len(rows), n_windows, contents)


def embed_windows(songs: Sequence[Song], settings: Params, embedder: Embedder, cache: Cache) -> list[Vectors]:
    """Return the embeddings of the windows of each song [shape=(windows, values) each]."""
    sample_rate, paths = settings.split.sample_rate, embedder.paths
    compute = functools.partial(_windows_of_file, Embedder(embedder.name, paths), sample_rate)
    key = [embedder.describe(), sample_rate, window_engine.SETTINGS]
    data = _of_songs("windows", compute, key, songs, settings, paths, cache)
    return [np.frombuffer(values, np.float32).reshape(-1, embedder.n_values) for values in data]


def _synchronize(
    collection: VectorStore,
    songs: Sequence[Song],
    embedded: Sequence[Vectors],
    projection: Projection,
    hop_s: float | None = None,
) -> None:
    """Make a collection contain the windows of songs with these embeddings; `hop_s` None: windows are chunks."""
    items = (
        (Window(song[0].source_sha256, k, song[0].song, song[0].genre, k * hop_s if hop_s else song[k].start_s), vector)
        for song, values in zip(songs, embedded, strict=True)
        for k, vector in enumerate(projection(values))
    )
    collection.synchronize(items, {song[0].source_sha256: len(x) for song, x in zip(songs, embedded, strict=True)})


def _of_songs(
    name: str,
    compute: Callable[[Path], bytes],
    key: Sequence[Any],
    songs: Sequence[Song],
    settings: Params,
    paths: Paths,
    cache: Cache,
) -> list[bytes]:
    """Return the result of `compute` for the file of each song, cached under its name and key."""
    items = [
        (files.digest(name, *key, ffmpeg.version(), song[0].source_sha256), paths.root / song[0].source)
        for song in songs
    ]
    results = run(
        functools.partial(_computed, compute, cache),
        items,
        description=name,
        workers=settings.parallel.workers,
        scheduler=settings.parallel.scheduler,
        known=lambda item: cache.recall(item[0]),
    )
    return all_or_error(results)


def _computed(compute: Callable[[Path], bytes], cache: Cache, item: tuple[str, Path]) -> bytes:
    key, path = item
    return cache.keep(key, compute(path))


def _landmarks_of_file(path: Path) -> bytes:
    return Landmarks.of_samples(landmarks.load(path)).to_bytes()


def _windows_of_file(embedder: Embedder, sample_rate: int, path: Path) -> bytes:
    return window_engine.embed(window_engine.load(path, sample_rate), embedder, sample_rate).tobytes()


if __name__ == "__main__":
    run_command(main)
