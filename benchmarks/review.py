"""Accuracy after a simulated review of wrong labels: answers to the queue of review, and to random songs.

    python -m benchmarks.review [--wrong 0.2] [--answers 30] [--draws 5]

Run it in a project's folder after split, extract, vectorize, convert and index. In each of five folds, a share of the
training songs gets a wrong genre at random; the reviewer answers with the right one. The models of the audit are then
trained again and predict the test songs of the fold, whose genres are right and which are never asked about.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import numpy.typing as npt

from genre import params
from genre.audit import findings, labels, review
from genre.audit.songs import AuditedSongs
from genre.cli import fraction, integer, run_command
from genre.evaluation import comparison, metrics
from genre.evaluation.comparison import Fold
from genre.models import baselines
from genre.paths import Paths

Integers = npt.NDArray[np.int64]


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.review", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--wrong", type=fraction, default=0.2, help="share of the training songs (default: %(default)s)"
    )
    parser.add_argument("--answers", type=integer(1, 10_000), default=30, metavar="N", help="default: %(default)s")
    parser.add_argument("--draws", type=integer(1, 1000), default=5, help="of the wrong labels (default: %(default)s)")
    options = parser.parse_args(argv)
    project = AuditedSongs(params.load(), Paths())
    data, n, totals = project.data, options.answers, np.zeros((2, 5))
    right = data.labels[np.unique(project.song_of, return_index=True)[1]]
    names = ["no answers", f"{n} of the queue", f"{n} at random", f"{2 * n} at random", "all"]
    for seed in range(options.draws):
        rng, correct = np.random.default_rng(seed), np.zeros((2, len(names)))
        folds = comparison.folds(data.labels, data.groups, n_folds=5, n_repeats=1, seed=seed)
        for fold in folds:
            songs = np.unique(project.song_of[fold.train])
            wrong = rng.choice(songs, round(options.wrong * len(songs)), replace=False)
            given = right.copy()
            given[wrong] = (right[wrong] + rng.integers(1, len(data.genres), len(wrong))) % len(data.genres)
            order, random = _queue(project, given, fold.train), rng.permutation(songs)
            for i, answers in enumerate([songs[:0], order[:n], random[:n], random[: 2 * n], songs]):
                corrected = given.copy()
                corrected[answers] = right[answers]
                correct[:, i] += _n_correct(project, corrected, fold), len(np.intersect1d(answers, wrong))
        print(f"draw {seed}: " + ", ".join(f"{name} {n:.0f}" for name, n in zip(names, correct[0], strict=True)))
        totals += correct
    for name, n_correct, n_found in zip(names, *totals, strict=True):
        accuracy, found = n_correct / options.draws / len(right), n_found / totals[1, -1]
        print(f"{name}: {accuracy:.1%} of {len(right)} held-out songs right, {found:.0%} of the errors found")
    return 0


def _queue(project: AuditedSongs, given: Integers, rows: Integers) -> Integers:
    """Return the training songs in the order in which they are asked about."""
    names, songs = list(project.songs), list(dict.fromkeys(project.song_of[rows].tolist()))
    of_rows = given[project.song_of[rows]]
    data = replace(
        project.data,
        inputs={},
        labels=of_rows,
        songs=[project.data.songs[row] for row in rows],
        groups=[project.data.groups[row] for row in rows],
    )
    part: Any = SimpleNamespace(
        settings=project.settings,
        data=data,
        songs={names[song]: project.songs[names[song]] for song in songs},
        song_of=np.searchsorted(np.array(songs), project.song_of[rows]),
        embeddings={name: vectors[rows] for name, vectors in project.embeddings.items()},
        similarities=project.similarities[np.ix_(songs, songs)],
    )
    n_folds = min(5, np.bincount(given[songs]).min())
    folds = comparison.folds(of_rows, data.groups, n_folds=n_folds, n_repeats=1, seed=project.settings.compare.seed)
    predictions = labels.predict(part, folds)
    found = findings.ranked([*labels.suspects(predictions, part), *labels.outliers(part)])
    genres = {names[song]: data.genres[given[song]] for song in songs}
    table = predictions[list(range(len(data.genres)))].set_axis(data.genres, axis=1)
    return np.array([names.index(question.song) for question in review.queue(found, table, genres)])


def _n_correct(project: AuditedSongs, labels_of_songs: Integers, fold: Fold) -> int:
    """Return the number of test songs whose genre the models predict, trained with these labels."""
    data = project.data
    outputs = np.zeros((len(fold.test), len(data.genres)), np.float32)
    for model in labels.MODELS:
        vectors = project.embeddings[baselines.embedding_name(model, project.settings.musicnn)]
        of_rows = labels_of_songs[project.song_of[fold.train]]
        graph = baselines.classifier(model, vectors[fold.train], of_rows, len(data.genres))
        outputs += baselines.predict(graph, vectors[fold.test]) / len(labels.MODELS)
    predictions = metrics.by_song(outputs, data.labels[fold.test], [data.songs[row] for row in fold.test])
    return int((predictions["actual"] == predictions["predicted"]).sum())


if __name__ == "__main__":
    run_command(main)
