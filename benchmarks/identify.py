"""Recognition rate, false acceptance, offset error and time of `identify` on the songs of a folder.

    python -m benchmarks.identify FOLDER [--engine landmarks] [--snippets 100] [--seconds 5 10] [--fit]

All songs below FOLDER are indexed. Each degraded snippet is identified twice: against all songs, and against all but
its own, which gives the false acceptance rate. The time includes decoding. The engine embeddings uses the embedding
that params.yaml names, so it needs the network that `python -m stages.convert` writes.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from benchmarks import recognition
from benchmarks.degradations import CONDITIONS, SAMPLE_RATE
from benchmarks.recognition import NO_EVIDENCE, Recording
from genre import files, params
from genre.audio import dataset, ffmpeg
from genre.cli import integer, positive
from genre.errors import GenreError
from genre.models import embeddings
from genre.params import Params
from genre.paths import Paths
from genre.search import embedding_index, landmark_index, landmarks, store, window_engine
from genre.search.engine import IndexedSong
from genre.search.identify import Engine
from genre.search.landmark_engine import LandmarkEngine
from genre.search.store import Window
from genre.search.window_engine import EmbeddingEngine

if TYPE_CHECKING:
    import pandas as pd

SEED = 2016


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identify", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="songs to index, 20 s or longer")
    parser.add_argument("--engine", choices=("landmarks", "embeddings"), default="landmarks")
    parser.add_argument("--snippets", type=integer(1, 10**8), default=100, help="of each length and condition")
    parser.add_argument("--seconds", type=positive, nargs="+", default=[5.0, 10.0])
    parser.add_argument("--conditions", nargs="+", default=[condition.name for condition in CONDITIONS])
    parser.add_argument("--fit", action="store_true", help="fit evidence to score on half of the songs, check the rest")
    options = parser.parse_args(argv)
    settings = params.load()
    open_engine = _landmarks if options.engine == "landmarks" else _embeddings
    try:
        songs = recordings(options.folder)
        began = time.perf_counter()
        with open_engine(songs, settings) as engine:
            print(f"{len(songs)} songs indexed in {time.perf_counter() - began:.1f} s")
            outcomes = recognition.measure(
                songs,
                engine,
                conditions=[condition for condition in CONDITIONS if condition.name in options.conditions],
                seconds=options.seconds,
                n_snippets=options.snippets,
                seed=SEED,
            )
    except GenreError as error:
        print(error, file=sys.stderr)
        return 1
    print(recognition.summary(outcomes, settings.search.min_score).to_string(index=False))
    if options.fit:
        _print_fit(outcomes)
    return 0


def recordings(folder: Path) -> list[Recording]:
    """Return the songs below a folder, of those with equal bytes one."""
    songs = {}
    for path in tqdm(dataset.walk(folder, follow_links=True)[0], desc="decode", disable=not sys.stderr.isatty()):
        n_samples = sum(len(block) for block in ffmpeg.stream_pcm(path, sample_rate=SAMPLE_RATE))
        sha256 = files.sha256(path)
        songs[sha256] = Recording(sha256, path, n_samples)
    return list(songs.values())


def _name(song: Recording) -> IndexedSong:
    return IndexedSong(song.sha256, song.path.stem, song.path.parent.name)


@contextlib.contextmanager
def _landmarks(songs: Sequence[Recording], settings: Params) -> Iterator[Engine]:
    of_songs = {_name(song): landmark_index.song_peaks(landmarks.load(song.path)) for song in songs}
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        density = settings.index.landmark_density
        index = landmark_index.write(Path(folder), of_songs, lambda part: [of_songs[song] for song in part], density)
        yield LandmarkEngine(index, settings.search.max_speed_change)


@contextlib.contextmanager
def _embeddings(songs: Sequence[Recording], settings: Params) -> Iterator[Engine]:
    embedder = embeddings.load(embedding_index.embedding_name(settings), Paths())
    sample_rate = settings.split.sample_rate
    embedded = [
        window_engine.embed(window_engine.load(song.path, sample_rate), embedder, sample_rate) for song in songs
    ]
    projection = embedding_index.fit(np.concatenate(embedded))
    windows = [
        Window(IndexedSong(song.sha256, song.path.stem, song.path.parent.name), k * embedding_index.WINDOW_HOP_S)
        for song, values in zip(songs, embedded, strict=True)
        for k in range(len(values))
    ]
    os.environ.pop("MILVUS_URI", None)  # a benchmark writes nothing to a server
    with (
        tempfile.TemporaryDirectory(prefix="benchmark-") as folder,
        store.connect(
            settings, Paths(Path(folder)), kind="windows", digest="0" * 64, dimension=projection.dimension
        ) as collection,
    ):
        collection.write(windows, projection(np.concatenate(embedded)))
        yield EmbeddingEngine(embedder, sample_rate, projection, collection)


def _print_fit(outcomes: pd.DataFrame) -> None:
    """Fit the logistic function of evidence on the songs of even index; print its rates on the others, by length."""
    from sklearn.linear_model import LogisticRegression

    for seconds, of_length in outcomes.groupby("seconds"):
        halves = []
        for half in (0, 1):
            rows = of_length[of_length["song"] % 2 == half]
            evidence = np.concatenate([rows["evidence"], rows["false_evidence"]])
            correct = np.repeat([1, 0], len(rows))
            halves.append((evidence[evidence > NO_EVIDENCE, None], correct[evidence > NO_EVIDENCE]))
        (evidence, correct), (other_evidence, other_correct) = halves
        fitted = LogisticRegression(C=1e6).fit(evidence, correct)
        slope, centre = fitted.coef_[0, 0], -fitted.intercept_[0] / fitted.coef_[0, 0]
        print(
            f"\n{seconds:g} s: maximum likelihood on half of the songs: CENTRE, SPREAD = {centre:.3f}, {1 / slope:.3f}"
        )
        print("accepted on the other half, by evidence: right songs, wrong songs")
        for limit in np.quantile(evidence[correct == 0], [0.98, 0.99, 0.995, 0.998]):
            right, wrong = (np.mean(other_evidence[other_correct == kind] >= limit) for kind in (1, 0))
            print(f"  {limit:6.3f}: {100 * right:6.2f} % {100 * wrong:6.2f} %")


if __name__ == "__main__":
    sys.exit(main())
