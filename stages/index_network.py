"""Make the songs recognisable by the fingerprint network: the vectors of their windows into the vector store.

python -m stages.index_network
"""

from __future__ import annotations

import argparse
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genre import files, params
from genre.audio import ffmpeg, manifest
from genre.cache import Cache
from genre.cli import run_command
from genre.parallel import all_or_error, run
from genre.paths import Paths
from genre.search import network, windows
from genre.search.network import Network
from genre.search.settings import index_settings
from genre.search.songs import Song, of_rows
from genre.search.store import Window, check_index

CHUNKS = Path("chunks")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: the songs and the network -> the vector store and vectors/fingerprints.json."""
    parser = argparse.ArgumentParser(prog="python -m stages.index_network", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    everything = params.load()
    settings = index_settings(everything)
    check_index(settings)
    its_network = Network.load()
    songs = of_rows(manifest.read(CHUNKS))
    cache = Cache(Paths().cache, everything.cache.max_bytes)
    work = _Work(cache, its_network.card.fingerprint)
    results = run(
        work.vectors,
        songs,
        description="fingerprints",
        workers=everything.parallel.workers,
        known=work.known_vectors,
    )
    vectors = [np.load(io.BytesIO(data)) for data in all_or_error(results)]
    with windows.open_store(settings, its_network) as store:
        store.create()
        before = store.songs()
        n_windows = {song.row.source_sha256: len(array) for song, array in zip(songs, vectors, strict=True)}
        store.remove_songs(sha for sha, n in before.items() if n > n_windows.get(sha, 0))
        store.write(
            (Window(row.source_sha256, number, row.song, row.genre, its_network.seconds(number)), vector)
            for row, array in zip((song.row for song in songs), vectors, strict=True)
            for number, vector in enumerate(array)
        )
    described = [[song.row.source_sha256, song.row.song, song.row.genre] for song in songs]
    files.write_json(
        windows.MANIFEST,
        {
            "fingerprint": its_network.card.fingerprint,
            "songs": len(songs),
            "vectors": sum(n_windows.values()),
            "contents": files.digest(its_network.card.fingerprint, described),
        },
    )
    cache.trim()
    print(f"index_network: {len(songs)} songs, {sum(n_windows.values())} vectors of {its_network.card.dimension}")
    return 0


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done with a song, once, wherever it is done."""

    cache: Cache
    fingerprint: str  # of the network

    def vectors(self, song: Song) -> bytes:
        """Return the vectors of the song's windows as an array in NumPy's format."""
        stream = io.BytesIO()
        np.save(stream, _network(self.fingerprint).embed(network.load(Path(song.row.source))))
        return self.cache.keep(self._key(song), stream.getvalue())

    def known_vectors(self, song: Song) -> bytes | None:
        """Return the vectors if they were made before."""
        return self.cache.recall(self._key(song))

    def _key(self, song: Song) -> str:
        return files.digest("fingerprints", self.fingerprint, ffmpeg.version(), song.row.source_sha256)


@functools.lru_cache(maxsize=1)
def _network(_fingerprint: str) -> Network:
    """Return the network of this fingerprint, loaded once in each process."""
    return Network.load()


if __name__ == "__main__":
    run_command(main)
