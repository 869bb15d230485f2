"""How well confidences and prediction sets hold, with few songs and on folds.

    python -m benchmarks.confidence [--models stats_svm musicnn_svm musicnn_logistic]

Run it in a project's folder after split, extract, vectorize and convert. It trains the models, by default those of
ensemble.models, and chooses a default among them and their mean as stages.ensemble does.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

import numpy as np

from benchmarks.unknown import train
from genre import params
from genre.cache import Cache
from genre.evaluation import comparison, metrics
from genre.evaluation.comparison import Fold
from genre.models import calibration
from genre.models.calibration import Calibration, Validation
from genre.models.vote import vote_by_song
from genre.paths import Paths
from stages.compare import Setup
from stages.ensemble import default_model, gain

DRAWS = ((4, 20), (10, 20))  # number of genres and of draws
N_SONGS, COVERAGE = 5, 0.9
MEAN, DEFAULT = "ensemble", "default"


def predictions(models: list[str], fold: Fold, data: Any, settings: Any, cache: Cache) -> dict[str, Any]:
    """Return by model the probabilities of the test rows and the calibration; also of their mean and the default."""
    outcomes = {name: train(name, fold, data, settings, cache) for name in models}
    outcomes[MEAN] = comparison.ensemble({m: [o] for m, o in outcomes.items()}, [fold], data)[0]
    validations = [Validation(outcome.rows, outcome.held_out) for outcome in outcomes.values()]
    rows, held_out = calibration.common_predictions(validations)
    labels, songs = data.labels[fold.train[rows]], [data.songs[row] for row in fold.train[rows]]
    of_songs = functools.partial(calibration.true_probabilities, labels=labels, songs=songs)
    losses = {m: -np.log(of_songs(p)) for m, p in zip(outcomes, held_out, strict=True)}
    best = default_model({m: gain(losses[MEAN] - losses[m]) for m in models})
    fits = {m: Calibration(scores=np.sort(1 - of_songs(p)).tolist()) for m, p in zip(outcomes, held_out, strict=True)}
    table = {m: (outcome.probabilities, fits[m]) for m, outcome in outcomes.items()}
    return table | {DEFAULT: table[best]}


def songs_of(parts: list[Any], labels: Any, songs: Any) -> Any:
    """Return confidence, whether the genre and the set are right, size of the set and log loss of each song."""
    table = []
    for test, (outputs, fitted) in parts:
        genres, actual = np.unique(labels[test]), {songs[row]: int(labels[row]) for row in test}
        for song, vote in vote_by_song(outputs, [songs[row] for row in test]).items():
            means = outputs[np.array([songs[row] for row in test]) == song].mean(axis=0, dtype=np.float64)
            members = fitted.genre_set(means, vote.genre, COVERAGE) or genres.tolist()
            right = vote.genre == actual[song]
            table.append((vote.confidence, right, actual[song] in members, len(members), -np.log(means[actual[song]])))
    return np.array(table, float)


def main() -> None:
    """Print the figures."""
    paths, settings = Paths(), params.load()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.confidence", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=settings.ensemble.models, help="default: ensemble.models")
    models = parser.parse_args().models
    cache, data = Cache(paths.cache, settings.cache.max_bytes), Setup(settings, paths).data
    labels, songs = data.labels, data.songs
    folds: dict[str, list[Fold]] = {}
    for n_genres, n_draws in DRAWS:
        draws = folds[f"{n_genres} genres x {N_SONGS} training songs, {n_draws} draws"] = []
        for draw in range(n_draws):
            rng = np.random.default_rng(draw)
            drawn = np.sort(rng.permutation(len(data.genres))[:n_genres])
            of_genre = [rng.permutation(np.unique([songs[row] for row in np.flatnonzero(labels == g)])) for g in drawn]
            training = {song for names in of_genre for song in names[:N_SONGS]}
            rows = np.flatnonzero(np.isin(labels, drawn))
            known = np.array([songs[row] in training for row in rows])
            draws.append(Fold(0, draw, rows[known], rows[~known], songs_per_genre=N_SONGS))
    of_all = comparison.folds(labels, songs, n_folds=5, n_repeats=3, seed=settings.compare.seed)
    folds[f"{len(of_all)} folds"] = of_all
    for title, of_title in folds.items():
        print(title, flush=True)
        results: dict[str, list[Any]] = {}
        for fold in of_title:
            for model, outcome in predictions(models, fold, data, settings, cache).items():
                results.setdefault(model, []).append((fold.test, outcome))
        for model, parts in results.items():
            show(model, [songs_of([part], labels, songs) for part in parts])


def show(model: str, tables: list[Any]) -> None:
    """Print one row: each table is of one draw or fold."""
    pooled = np.concatenate(tables)

    def ece(table: Any) -> float:
        return float(metrics.calibration_error(table[:, 0], table[:, 1] > 0, np.ones((1, len(table))))[0])

    covered = [table[:, 2].mean() for table in tables]
    wrong = pooled[pooled[:, 1] == 0, 0]
    print(
        f"  {model:16} accuracy {pooled[:, 1].mean():.1%}, log loss {pooled[:, 4].mean():.3f},"
        f" ECE {np.mean([ece(table) for table in tables]):.3f} (pooled {ece(pooled):.3f}),"
        f" {np.count_nonzero(wrong >= 0.995)} wrong at 99.5 % or more (highest {wrong.max(initial=0):.1%}),"
        f" sets: coverage {np.mean(covered):.1%} +- {np.std(covered, ddof=1) / len(covered) ** 0.5:.1%},"
        f" mean size {pooled[:, 3].mean():.2f}"
    )


if __name__ == "__main__":
    main()
