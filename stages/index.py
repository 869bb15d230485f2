"""Make the songs searchable: landmarks of every song in files, embeddings of every chunk in the vector store.

python -m stages.index
dvc repro index      with the stages before it, if they changed
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from genre import files, params
from genre.audio import ffmpeg, manifest
from genre.cache import Cache
from genre.cli import argument_parser, run_command
from genre.errors import DatasetError
from genre.features.transforms import Settings
from genre.models import embeddings
from genre.models.embeddings import Embedder, Vectors
from genre.paths import Paths
from genre.search import embedding_index, landmark_index, landmarks, window_engine
from genre.search.embedding_index import WINDOW_HOP_S, WINDOW_SETTINGS, Description
from genre.search.engine import IndexedSong
from genre.search.store import Window

Source = tuple[Path, str]  # file of a song and its SHA-256, as split read it


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: chunks/ and the songs -> vectors/ and the vector store."""
    argument_parser(__doc__).parse_args(argv)
    paths = Paths()
    settings = params.load(paths.params)
    songs = landmark_index.group_songs(manifest.read(paths.chunks))
    indexer = Indexer(songs, settings, paths, Cache(paths.cache, settings.cache.max_bytes))
    index = indexer.landmarks()
    description = indexer.embeddings()
    description.save(paths.index)
    indexer.cache.trim()
    hours = index.n_frames.sum() * landmarks.FRAME_S / 3600
    print(
        f"index: {len(songs)} songs, {hours:.2f} h,"
        f" {description.vectors + (description.windows or 0)} vectors of {description.dimension} values"
        + (f", recall@10 {description.recall_at_10:.3f}" if description.recall_at_10 is not None else "")
    )
    return 0


@dataclass(frozen=True, slots=True)
class Indexer:
    """The songs of a project, to be indexed."""

    songs: Mapping[IndexedSong, list[manifest.Row]]  # with the chunks of each, in order
    settings: params.Params
    paths: Paths
    cache: Cache

    def landmarks(self) -> landmark_index.LandmarkIndex:
        """Write the landmark index, and return it."""

        def peaks_of(part: Sequence[IndexedSong]) -> Iterator[landmarks.Peaks]:
            for data in self._results(part, "landmarks", _peaks_of_song, landmarks.SETTINGS):
                yield landmarks.Peaks(**files.read_npz(data))

        return landmark_index.write(self.paths.landmarks, self.songs, peaks_of, self.settings.index.landmark_density)

    def embeddings(self) -> Description:
        """Write the projection and the vectors; return their description."""
        split = self.settings.split
        features = Settings(split.sample_rate, split.chunk_seconds, split.min_seconds)
        embedder = embeddings.load(embedding_index.embedding_name(self.settings), self.paths, cache=self.cache)
        chunk_files = [self.paths.chunks / row.chunk for rows in self.songs.values() for row in rows]
        embedded = embedder.of_files(chunk_files, **dict(self.settings.parallel))
        ends = np.cumsum([len(rows) for rows in self.songs.values()])
        of_song = dict(zip(self.songs, np.split(embedded, ends[:-1]), strict=True))
        training = [song for song, rows in self.songs.items() if rows[0].split == "train"]
        projection = embedding_index.fit(np.concatenate([of_song[song] for song in training]))
        # the songs stand for the numbers of the projection, whose last digits differ between machines
        fitted_on = sorted(song.sha256 for song in training)
        constants = [embedding_index.VERSION, embedding_index.LIMIT, projection.dimension]
        digest = files.digest(embedder.describe(), features.to_dict()["digest"], fitted_on, constants)
        windows = self._windows(embedder) if self.settings.index.windows else None
        starts = {song: [row.start_s for row in rows] for song, rows in self.songs.items()}
        description = Description(
            embedding=embedder.name,
            settings=features,
            dimension=projection.dimension,
            digest=digest,
            songs=len(self.songs),
            vectors=len(embedded),
            windows=None if windows is None else sum(map(len, windows.values())),
            contents=files.digest(digest, [[*astuple(song), of_song] for song, of_song in starts.items()]),
            synthetic=self.paths.is_synthetic(self.settings.dataset.name),
        )
        recall = self._store("chunks", description, starts, map(projection, of_song.values()))
        if windows is not None:
            starts = {song: [k * WINDOW_HOP_S for k in range(len(values))] for song, values in windows.items()}
            self._store("windows", description, starts, map(projection, windows.values()))
        self.paths.index.unlink(missing_ok=True)  # an interrupted run leaves no projection with another's description
        projection.save(self.paths.projection)
        return replace(description, recall_at_10=recall)

    def _windows(self, embedder: Embedder) -> dict[IndexedSong, Vectors]:
        """Return the embeddings of the windows of each song [shape=(windows, values) each]."""
        rate = self.settings.split.sample_rate
        compute = functools.partial(_windows_of_song, Embedder(embedder.name, self.paths), rate)
        data = self._results(self.songs, "windows", compute, embedder.describe(), rate, WINDOW_SETTINGS)
        arrays = (np.frombuffer(values, np.float32).reshape(-1, embedder.embedding.n_values) for values in data)
        return dict(zip(self.songs, arrays, strict=True))

    def _store(
        self, kind: str, description: Description, starts: Mapping[IndexedSong, list[float]], parts: Iterable[Vectors]
    ) -> float | None:
        """Write the vectors of each song's chunks or windows, which start at `starts` in s; return their recall."""
        windows = [Window(song, start_s) for song, of_song in starts.items() for start_s in of_song]
        vectors = np.concatenate(list(parts))
        with embedding_index.connect(self.settings, self.paths, description, kind) as collection:
            collection.write(windows, vectors)
            return embedding_index.recall(collection, vectors)

    def _results(
        self, songs: Collection[IndexedSong], name: str, compute: Callable[[Source], bytes], *parts: Any
    ) -> Iterator[bytes]:
        """Return the result of `compute` for the file of each song; `parts` are what else the result depends on."""
        keys = [files.digest(name, *parts, ffmpeg.version(), song.sha256) for song in songs]
        sources = [(self.paths.root / self.songs[song][0].source, song.sha256) for song in songs]
        items = list(zip(keys, sources, strict=True))
        return self.cache.run(compute, items, description=name, **dict(self.settings.parallel))


def _peaks_of_song(source: Source) -> bytes:
    return files.npz(**asdict(landmark_index.song_peaks(landmarks.load(_unchanged(source)))))


def _windows_of_song(embedder: Embedder, sample_rate: int, source: Source) -> bytes:
    return window_engine.embed(window_engine.load(_unchanged(source), sample_rate), embedder, sample_rate).tobytes()


def _unchanged(source: Source) -> Path:
    """Return the file of a song; raise DatasetError if it is not the one that split read, as its cache key says."""
    path, sha256 = source
    if not path.is_file() or files.sha256(path) != sha256:
        raise DatasetError(f"{path} was changed or removed after `split`: run `dvc repro`")
    return path


if __name__ == "__main__":
    run_command(main)
