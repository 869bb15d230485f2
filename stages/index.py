"""Make the songs searchable: embeddings of every chunk into the vector store, landmarks of every song into a file.

python -m stages.index
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genre import files, params
from genre.audio import ffmpeg, manifest
from genre.cache import Cache
from genre.cli import run_command
from genre.features.settings import Settings
from genre.models import embeddings
from genre.parallel import all_or_error, run
from genre.paths import Paths
from genre.search import embedding_index, embedding_manifest, landmark_index, landmarks, similar
from genre.search.embedding_index import Vectors
from genre.search.embedding_manifest import Manifest
from genre.search.landmark_index import Fingerprint
from genre.search.settings import IndexSettings, index_settings, search_settings
from genre.search.songs import Song, of_rows
from genre.search.store import VectorStore, Window, check_index

CHUNKS = Path("chunks")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: chunks/ and the songs -> vectors/ and the vector store."""
    argparse.ArgumentParser(prog="python -m stages.index", description=__doc__.splitlines()[0]).parse_args(argv)
    everything = params.load()
    settings = index_settings(everything)
    check_index(settings)
    embeddings.get(settings.embedding)
    songs = of_rows(manifest.read(CHUNKS))
    cache = Cache(Paths().cache, everything.cache.max_bytes)
    on = everything.parallel

    work = _Landmarks(cache)
    made = run(work.make, songs, description="landmarks", workers=on.workers, scheduler=on.scheduler, known=work.recall)
    prints = [Fingerprint.from_bytes(data) for data in all_or_error(made)]
    known = [landmark_index.Song(song.row.source_sha256, song.row.song, song.row.genre) for song in songs]
    recognisable = landmark_index.Index.empty().with_songs(zip(known, prints, strict=True))
    recognisable.save(embedding_manifest.LANDMARKS)

    paths = [CHUNKS / row.chunk for song in songs for row in song.rows]
    rows = embeddings.of_files(settings.embedding, paths, cache=cache, workers=on.workers, scheduler=on.scheduler)
    embedded = np.split(rows, np.cumsum([len(song.rows) for song in songs])[:-1])
    training = [i for i, song in enumerate(songs) if song.row.split == "train"]
    project = embedding_index.fit(np.concatenate([embedded[i] for i in training]))
    project.save(embedding_manifest.PROJECTION)
    split = everything.split
    made_with = embedding_manifest.describe(
        settings.embedding,
        Settings(split.sample_rate, split.chunk_seconds, split.min_seconds),
        [songs[i].row.source_sha256 for i in training],
        project,
    )
    vectors = [project(values) for values in embedded]
    scores = _store(settings, made_with, songs, vectors, search_settings(everything).top_k)

    n_windows = {song.row.source_sha256: len(song.rows) for song in songs}
    contents = files.digest(made_with.fingerprint, recognisable.digest(), [_described(song) for song in songs])
    embedding_manifest.write(
        made_with, songs=len(songs), windows=sum(n_windows.values()), contents=contents, scores=scores
    )
    cache.trim()
    hours = recognisable.total_frames * landmarks.FRAME_S / 3600
    print(f"index: {len(songs)} songs, {hours:.2f} h, {len(recognisable.keys)} landmarks,", end=" ")
    print(f"{sum(n_windows.values())} vectors of {made_with.dimension}; genre by neighbours {scores['mode']:.1%}")
    return 0


def _described(song: Song) -> list[object]:
    return [song.row.source_sha256, song.row.song, song.row.genre, [row.start_s for row in song.rows]]


@dataclass(frozen=True, slots=True)
class _Landmarks:
    """The fingerprint of a song, made once, wherever it is made."""

    cache: Cache

    def make(self, song: Song) -> bytes:
        """Return the song's fingerprint."""
        made = landmark_index.fingerprint(landmarks.load(Path(song.row.source))).to_bytes()
        return self.cache.keep(self._key(song), made)

    def recall(self, song: Song) -> bytes | None:
        """Return the song's fingerprint if it was made before."""
        return self.cache.recall(self._key(song))

    def _key(self, song: Song) -> str:
        return files.digest("landmarks", landmarks.SETTINGS, ffmpeg.version(), song.row.source_sha256)


def _store(
    settings: IndexSettings, made_with: Manifest, songs: Sequence[Song], vectors: Sequence[Vectors], top_k: int
) -> dict[str, float]:
    """Bring the vector store to hold these songs and no others; return how well neighbours tell the genre."""
    of_song = {song.row.source_sha256: array for song, array in zip(songs, vectors, strict=True)}
    with VectorStore(
        settings, kind=embedding_manifest.KIND, fingerprint=made_with.fingerprint, dimension=made_with.dimension
    ) as store:
        store.create()
        before = store.songs()
        store.remove_songs(sha for sha, n in before.items() if n > len(of_song.get(sha, ())))
        store.write(
            (Window(row.source_sha256, number, row.song, row.genre, row.start_s), vector)
            for song, array in zip(songs, vectors, strict=True)
            for number, (row, vector) in enumerate(zip(song.rows, array, strict=True))
        )
        genres = {song.row.source_sha256: song.row.genre for song in songs}
        return similar.leave_one_out(store, of_song, genres, top_k)


if __name__ == "__main__":
    run_command(main)
