"""How well songs of other genres are recognised as unknown.

    python -m benchmarks.unknown [--known classical jazz rock] [--models stats_svm musicnn_svm] [--folds 5]

Run it in a project's folder after split, extract, vectorize and convert. The classifier is the calibrated mean of the
models, by default those of ensemble.models. Each genre is left out in turn, and every fifth song of the others is held
out, in one or more folds; with --known, every third song of these genres is held out, and all songs of other genres are
out of set. For signals see benchmarks/signals.py.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from genre import files, models, params
from genre.cache import Cache
from genre.evaluation import comparison
from genre.evaluation.comparison import Fold, Outcome
from genre.models import embeddings, rejection
from genre.models.calibration import Validation
from genre.models.vote import vote_by_song
from genre.paths import Paths
from stages.compare import Setup, train_and_predict

SOURCES = sorted(Path(models.__file__).parent.glob("*.py"))


def train(model: str, fold: Fold, data: Any, settings: Any, cache: Cache) -> Outcome:
    """Return the predictions of a model for the test rows of a fold, kept in the cache."""
    config = model, settings.train.model_dump(), settings.compare.seed, [files.sha256(path) for path in SOURCES]
    key = files.digest("benchmark", config, [data.songs[row] for row in fold.train], fold.test.tolist())
    kept = cache.recall(key) or cache.keep(key, train_and_predict((model, fold), settings=settings, paths=Paths()))
    outcome = Outcome(**files.read_npz(kept))
    return outcome._replace(probabilities=outcome.probabilities[: len(fold.test)])


def outcomes(fold: Fold, outcome: Outcome, vectors: dict[str, Any], data: Any, rate: float) -> list[Any]:
    """Return score, reason, predicted genre and name of each test song of a fold."""
    train, test = ({e: v[rows] for e, v in vectors.items()} for rows in (fold.train, fold.test))
    songs = [data.songs[row] for row in fold.test]
    of_train = data.labels[fold.train], [data.songs[row] for row in fold.train]
    fitted = rejection.fit(train, *of_train, {"mean": Validation(outcome.rows, outcome.held_out)})
    rejecter = rejection.Rejection(fitted, [embeddings.Embedder(e, Paths()) for e in train], "mean", rate)
    distances = rejecter.distances(embeddings.Batch(test))
    results = []
    for song, vote in vote_by_song(outcome.probabilities, songs).items():
        own = distances[np.array(songs) == song], vote.confidence
        results.append((rejecter.z_scores(*own).mean(), rejecter.reason(*own), data.genres[vote.genre], song))
    return results


def main() -> None:
    """Print the figures."""
    paths, settings = Paths(), params.load()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unknown", description=__doc__.splitlines()[0])
    parser.add_argument("--known", nargs="+", metavar="GENRE", help="genres to train on; default: all but one, in turn")
    parser.add_argument("--models", nargs="+", default=settings.ensemble.models, help="default: ensemble.models")
    parser.add_argument("--folds", type=int, default=1, choices=range(1, 6), help="of five; default: %(default)s")
    options = parser.parse_args()
    known, rate, cache = options.known, settings.query.reject or 0.02, Cache(paths.cache, settings.cache.max_bytes)
    project = Setup(settings, paths)
    data = project.data
    used = [rejection.STATISTICS, settings.musicnn.embedding]
    vectors = {name: project.embed(name)[0] for name in used}
    genres, songs = np.array([data.genres[label] for label in data.labels]), np.array(data.songs)
    ranks = {song: n for genre in set(genres) for n, song in enumerate(sorted(set(songs[genres == genre])))}
    fold = np.array([ranks[song] for song in songs]) % (3 if known else 5)
    results = []
    for trained in [known] if known else [np.setdiff1d(genres, [genre]) for genre in np.unique(genres)]:
        for i in [2] if known else range(5 - options.folds, 5):
            of_train = np.isin(genres, trained) & (fold != i)
            held_out = ~of_train & (~np.isin(genres, trained) | (fold == i))
            rows = Fold(0, i, np.flatnonzero(of_train), np.flatnonzero(held_out), songs_per_genre=len(songs))
            parts = {name: [train(name, rows, data, settings, cache)] for name in options.models}
            outcome = comparison.ensemble(parts, [rows], data)[0]
            results += [(row[3].split("/")[0] in trained, *row) for row in outcomes(rows, outcome, vectors, data, rate)]
    known_song, scores, reasons, genre, names = map(np.array, zip(*results, strict=True))
    right = [f"{g}/" == name[: len(g) + 1] for g, name in zip(genre, names, strict=True)]
    accepted = np.mean(scores[~known_song] <= np.quantile(scores[right], 0.95))
    print(f"{np.mean(np.array(right)[known_song]):.1%} of {known_song.sum()} held-out songs have the right genre")
    print(f"AUROC {roc_auc_score(~known_song, scores):.3f}")
    print(f"{accepted:.1%} of the songs of other genres have a genre where 95 % of the right answers are kept")
    for kind, mask in (("held-out songs", known_song), ("songs of other genres", ~known_song)):
        unknown = np.mean(reasons[mask] != None)  # noqa: E711 (of each element)
        print(f"query.reject {rate:g}: {unknown:.1%} of {mask.sum()} {kind} are unknown")


if __name__ == "__main__":
    main()
