"""How well confidences and prediction sets hold, with few songs and on folds.

    python -m benchmarks.confidence

Run it in a project's folder after split, extract, vectorize and convert. It trains stats_svm, musicnn_svm,
musicnn_logistic and the mean of the first two, and chooses a default as stages.ensemble does, without networks, whose
training takes hours here.
"""

from __future__ import annotations

import argparse
import functools
from typing import Any

import numpy as np

from genre import params
from genre.cache import Cache
from genre.evaluation import comparison, metrics
from genre.features import arrays
from genre.models import baselines, calibration
from genre.models.calibration import calibrate, common_predictions
from genre.models.vote import vote_by_song
from genre.paths import Paths
from stages.compare import embed
from stages.ensemble import default_model, gain

MODELS = ("stats_svm", "musicnn_svm", "musicnn_logistic")
AVERAGED, MEAN, DEFAULT = MODELS[:2], "mean of the SVMs", "default"
N_DRAWS, N_SONGS, COVERAGE = 20, 5, 0.9


def predictions(vectors: Any, labels: Any, songs: Any, train: Any, test: Any) -> dict[str, Any]:
    """Return by model the probabilities of the test rows and the calibration; also of their mean and the default."""
    genres, classes = np.unique(labels[train], return_inverse=True)
    names = [songs[row] for row in train]
    models = {m: baselines.train(m, vectors[m][train], classes, names, n_genres=len(genres)) for m in MODELS}
    rows, parts = common_predictions([model.validation for model in models.values()])
    held_out = dict(zip(models, parts, strict=True))
    outputs = {m: calibrate(baselines.predict(t.onnx, vectors[m][test]), t.calibration) for m, t in models.items()}
    fits = {m: model.calibration for m, model in models.items()}
    mean = np.asarray(np.mean([held_out[m] for m in AVERAGED], axis=0), np.float32)
    fits[MEAN] = calibration.fit(mean, classes[rows], [names[row] for row in rows])
    held_out[MEAN] = calibrate(mean, fits[MEAN])
    outputs[MEAN] = calibrate(np.mean([outputs[m] for m in AVERAGED], axis=0), fits[MEAN])
    of_songs = functools.partial(calibration.true_probabilities, labels=classes[rows], songs=[names[r] for r in rows])
    losses = {m: -np.log(of_songs(p)) for m, p in held_out.items()}
    gains = {m: gain(losses[MEAN] - losses[m]) for m in MODELS}
    default = default_model(gains)
    best = default if default in MODELS else MEAN
    return {m: (outputs[m], fits[m]) for m in outputs} | {DEFAULT: (outputs[best], fits[best])}


def songs_of(parts: list[Any], labels: Any, songs: Any) -> Any:
    """Return confidence, whether the genre and the set are right, size of the set and log loss of each song."""
    table = []
    for test, (outputs, fitted) in parts:
        genres = np.unique(labels[test])
        actual = {songs[row]: int(np.searchsorted(genres, labels[row])) for row in test}
        for song, vote in vote_by_song(outputs, [songs[row] for row in test]).items():
            means = outputs[np.array([songs[row] for row in test]) == song].mean(axis=0, dtype=np.float64)
            members = fitted.genre_set(means, vote.genre, COVERAGE) or range(len(genres))
            right = vote.genre == actual[song]
            table.append((vote.confidence, right, actual[song] in members, len(members), -np.log(means[actual[song]])))
    return np.array(table, float)


def main() -> None:
    """Print the figures."""
    argparse.ArgumentParser(prog="python -m benchmarks.confidence", description=__doc__.splitlines()[0]).parse_args()
    paths, settings = Paths(), params.load()
    cache, data = Cache(paths.cache, settings.cache.max_bytes), arrays.read_all(paths.vectors)
    names = {m: baselines.embedding_name(m, settings.musicnn) for m in MODELS}
    by_embedding = {name: embed(name, data, paths, cache)[0] for name in set(names.values())}
    vectors, labels, songs = {m: by_embedding[name] for m, name in names.items()}, data.labels, data.songs
    for n_genres in (4, len(data.genres)):
        results: dict[str, list[Any]] = {}
        for draw in range(N_DRAWS):
            rng = np.random.default_rng(draw)
            drawn = np.sort(rng.permutation(len(data.genres))[:n_genres])
            of_genre = [rng.permutation(np.unique([songs[row] for row in np.flatnonzero(labels == g)])) for g in drawn]
            training = {song for names in of_genre for song in names[:N_SONGS]}
            rows = np.flatnonzero(np.isin(labels, drawn))
            train, test = (rows[[(songs[row] in training) == side for row in rows]] for side in (True, False))
            for model, outcome in predictions(vectors, labels, songs, train, test).items():
                results.setdefault(model, []).append((test, outcome))
        print(f"{n_genres} genres x {N_SONGS} training songs, {N_DRAWS} draws")
        for model, parts in results.items():
            tables = [songs_of([part], labels, songs) for part in parts]
            show(model, tables)
    folds = comparison.folds(labels, songs, n_folds=5, n_repeats=3, seed=settings.compare.seed)
    results = {}
    for fold in folds:
        for model, outcome in predictions(vectors, labels, songs, fold.train, fold.test).items():
            results.setdefault(model, []).append((fold.test, outcome))
    print(f"{len(folds)} folds")
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
