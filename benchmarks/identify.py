"""How well and how fast a song is recognised from a short snippet of it, spoiled in the ways of the world.

    python -m benchmarks.identify FOLDER [--engine landmarks] [--snippets 100] [--seconds 5 10 15] [--out DIR] [--fit]

All songs below FOLDER are indexed. Each snippet is written to a file and asked for twice: against all songs, and
against all but its own, which is how often a song that is not in the index is taken for another. The noise of the
music conditions is another song of the folder, which then does not count. The time includes the decoding. The network
is trained on every other song first, with the section fingerprint of params.yaml; "unseen" are the snippets of the
songs that it was not trained on (with landmarks, which learn nothing, the snippets of the same songs).
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from genre import files, params
from genre.audio import dataset, ffmpeg
from genre.errors import GenreError
from genre.models import cards
from genre.search import identify_eval, landmark_index, landmarks, network, windows
from genre.search.contrastive import Source
from genre.search.degradations import BEYOND, CONDITIONS, SAMPLE_RATE
from genre.search.engines import Engine, Landmarks, Windows
from genre.search.identify_eval import NOTHING, Recording, Row, Trial
from genre.search.landmark_index import Index, Song
from genre.search.settings import ENGINES, IndexSettings, SearchSettings
from genre.search.store import Window
from stages import fingerprint

SEED = 2016


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identify", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="songs to index, 20 s or longer")
    parser.add_argument("--engine", choices=ENGINES, default="landmarks")
    parser.add_argument("--snippets", type=int, default=100, help="of each length and condition")
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 10.0, 15.0])
    parser.add_argument("--conditions", nargs="+", default=[c.name for c in CONDITIONS if c.name not in BEYOND])
    parser.add_argument("--min-score", type=float, default=SearchSettings().min_score, help="threshold")
    parser.add_argument("--steps", type=int, help="of training the network (default: fingerprint.max_steps)")
    parser.add_argument("--network", type=Path, help="keep the network in this folder, or take it from there")
    parser.add_argument("--out", type=Path, help="write identify.csv, metrics.json and identify.png into this folder")
    parser.add_argument("--fit", action="store_true", help="fit evidence to score on half of the songs, check the rest")
    options = parser.parse_args(argv)
    make = _landmarks if options.engine == "landmarks" else _network
    try:
        songs = _recordings(options.folder)
        with make(songs, options) as engine:
            trials = dict(
                identify_eval.measure(
                    songs,
                    engine,
                    conditions=[condition for condition in CONDITIONS if condition.name in options.conditions],
                    seconds=options.seconds,
                    n_snippets=options.snippets,
                    seed=SEED,
                )
            )
    except GenreError as error:
        print(error, file=sys.stderr)
        return 1
    table = identify_eval.rows(trials, options.min_score)
    _print_table(table)
    if options.fit:
        _print_fit([trial for found in trials.values() for trial in found])
    if options.out:
        identify_eval.write(options.out, table)
    return 0


def _recordings(folder: Path) -> list[Recording]:
    """Return the songs; the even ones are those that a network is trained on."""
    found = []
    for i, path in enumerate(tqdm(dataset.audio_files(folder), desc="decode", disable=not sys.stderr.isatty())):
        n_samples = sum(len(block) for block in ffmpeg.stream_pcm(path, sample_rate=SAMPLE_RATE))
        found.append(Recording(files.sha256(path), path, n_samples, trained_on=i % 2 == 0))
    return list({song.sha256: song for song in found}.values())


@contextlib.contextmanager
def _landmarks(songs: Sequence[Recording], _: argparse.Namespace) -> Iterator[Engine]:
    began = time.perf_counter()
    items = [
        (_song(song), landmark_index.fingerprint(landmarks.load(song.path)))
        for song in tqdm(songs, desc="index", disable=not sys.stderr.isatty())
    ]
    index = Index.empty().with_songs(items)
    took, hours = time.perf_counter() - began, index.total_frames * landmarks.FRAME_S / 3600
    print(f"{len(songs)} songs, {hours:.2f} h, {len(index.keys)} landmarks, indexed in {took:.1f} s")
    yield Landmarks(index)


@contextlib.contextmanager
def _network(songs: Sequence[Recording], options: argparse.Namespace) -> Iterator[Engine]:
    if not (options.network and cards.model_files(network.MODEL, options.network).card.is_file()):
        chosen = params.load().fingerprint
        if options.steps:
            chosen = chosen.model_copy(update={"max_steps": options.steps})
        sources = [Source(song.path, song.sha256, song.n_samples / SAMPLE_RATE) for song in songs if song.trained_on]
        began = time.perf_counter()
        onnx, its_card, losses = fingerprint.train(sources, chosen, options.folder.name)
        took = time.perf_counter() - began
        print(f"{len(sources)} songs, {chosen.max_steps} steps, loss {losses[-1]:.3f}, trained in {took:.0f} s")
        if options.network:
            network.write(onnx, its_card, options.network)
        its_network = network.Network(onnx, its_card)
    else:
        its_network = network.Network.load(options.network)
    os.environ.pop("MILVUS_URI", None)  # nothing here belongs into a server's collections
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        settings = IndexSettings(uri=str(Path(folder, "songs.db")))
        with windows.open_store(settings, its_network) as store:
            store.create()
            began = time.perf_counter()
            n_vectors = 0
            for song in tqdm(songs, desc="index", disable=not sys.stderr.isatty()):
                vectors = its_network.embed(network.load(song.path))
                of_song = _song(song)
                n_vectors += store.write(
                    (Window(song.sha256, i, of_song.song, of_song.genre, its_network.seconds(i)), vector)
                    for i, vector in enumerate(vectors)
                )
            print(f"{len(songs)} songs, {n_vectors} vectors, indexed in {time.perf_counter() - began:.1f} s")
            yield Windows(its_network, store)


def _song(song: Recording) -> Song:
    return Song(song.sha256, song.path.stem, song.path.parent.name)


def _print_table(rows: Sequence[Row]) -> None:
    names = ["top-1 %", "unseen %", "first %", "wrong %", "false acc. %", "offset s", "ms", "ms p95"]
    print(f"{'condition':<14}{'s':>4}{'n':>6}" + "".join(f"{name:>13}" for name in names))
    for row in rows:
        condition, seconds, n, *values = asdict(row).values()
        shown = ("" if value is None else f"{value:g}" for value in values)
        print(f"{condition:<14}{seconds:>4g}{n:>6}" + "".join(f"{value:>13}" for value in shown))


def _print_fit(trials: Sequence[Trial]) -> None:
    """Fit the logistic curve on the songs of even number, and print how it does on the others."""
    from sklearn.linear_model import LogisticRegression

    def points(half: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        of_half = [trial for trial in trials if trial.song % 2 == half]
        evidence = np.array([*(t.evidence for t in of_half), *(t.others for t in of_half)])
        known = np.repeat([1, 0], len(of_half))
        return evidence[evidence > NOTHING, None], known[evidence > NOTHING]

    evidence, known = points(0)
    fitted = LogisticRegression(C=1e6).fit(evidence, known)
    slope, centre = fitted.coef_[0, 0], -fitted.intercept_[0] / fitted.coef_[0, 0]
    print(f"\nlikeliest curve on half of the songs: CENTRE, SPREAD = {centre:.2f}, {1 / slope:.3f}")
    checked, truth = points(1)
    print("on the other half, by evidence: accepted of the right songs, and of the wrong ones")
    for limit in np.quantile(evidence[known == 0], [0.98, 0.99, 0.995, 0.998]):
        right, wrong = (np.mean(checked[truth == kind] >= limit) for kind in (1, 0))
        print(f"  {limit:6.2f}: {100 * right:6.2f} % {100 * wrong:6.2f} %")


if __name__ == "__main__":
    sys.exit(main())
