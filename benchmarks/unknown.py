"""How well songs of other genres are recognised as unknown.

    python -m benchmarks.unknown [--known classical jazz rock]

Run it in a project's folder after split, extract, vectorize and convert. The classifier is the mean of stats_svm and
musicnn_svm. Each genre is left out in turn, and five folds hold out songs of the others; with --known, every third
song of these genres is held out, and all other songs are out of set. For signals see benchmarks/signals.py.
"""

from __future__ import annotations

import argparse
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

from genre import params
from genre.audio import manifest
from genre.cache import Cache
from genre.models import baselines, embeddings, rejection
from genre.models.calibration import Validation, calibrate, common_predictions
from genre.models.vote import vote_by_song
from genre.paths import Paths


def outcomes(train: Any, others: Any, rate: float) -> list[Any]:
    """Return score, reason, predicted genre and name of each song of `others`; both are vectors, genres and songs."""
    genres, classes = np.unique(train[1], return_inverse=True)
    named = zip(("stats_svm", "musicnn_svm"), train[0].values(), strict=True)
    models = [baselines.train(name, v, classes, train[2], n_genres=len(genres)) for name, v in named]
    rows, parts = common_predictions([model.validation for model in models])
    fitted = rejection.fit(train[0], classes, train[2], {"mean": Validation(rows, np.mean(parts, axis=0))})
    rejecter = rejection.Rejection(fitted, [embeddings.Embedder(e, Paths()) for e in train[0]], "mean", rate)
    pairs, distances = zip(models, others[0].values(), strict=True), rejecter.distances(others[0])
    outputs = np.mean([calibrate(baselines.predict(m.onnx, v), m.calibration) for m, v in pairs], axis=0)
    results = []
    for song, vote in vote_by_song(outputs, others[2]).items():
        own = distances[np.array(others[2]) == song], vote.confidence
        results.append((rejecter.z_scores(*own).mean(), rejecter.reason(*own), genres[vote.genre], song))
    return results


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.unknown", description=__doc__.splitlines()[0])
    parser.add_argument("--known", nargs="+", metavar="GENRE", help="genres to train on; default: all but one, in turn")
    known, paths, settings = parser.parse_args().known, Paths(), params.load()
    rate, cache = settings.query.reject or 0.02, Cache(paths.cache, settings.cache.max_bytes)
    used = [embeddings.load(e, paths, cache=cache) for e in (rejection.STATISTICS, settings.musicnn.embedding)]
    rows = manifest.read(paths.chunks)
    vectors = {e.name: e.of_files([paths.chunks / row.chunk for row in rows]) for e in used}
    genres, songs = np.array([row.genre for row in rows]), np.array([f"{row.genre}/{row.song}" for row in rows])
    ranks = {song: n for genre in set(genres) for n, song in enumerate(sorted(set(songs[genres == genre])))}
    fold = np.array([ranks[song] for song in songs]) % (3 if known else 5)
    results = []
    for trained in [known] if known else [np.setdiff1d(genres, [genre]) for genre in np.unique(genres)]:
        for i in [2] if known else range(5):
            train = np.isin(genres, trained) & (fold != i)
            held_out = ~train & (~np.isin(genres, trained) | (fold == i))
            sets = [({e: v[m] for e, v in vectors.items()}, genres[m], list(songs[m])) for m in (train, held_out)]
            results += [(row[3].split("/")[0] in trained, *row) for row in outcomes(sets[0], sets[1], rate)]
    known_song, scores, reasons, genre, names = map(np.array, zip(*results, strict=True))
    right = [f"{g}/" == name[: len(g) + 1] for g, name in zip(genre, names, strict=True)]
    accepted = np.mean(scores[~known_song] <= np.quantile(scores[right], 0.95))
    print(f"AUROC {roc_auc_score(~known_song, scores):.3f}")
    print(f"{accepted:.1%} of the songs of other genres have a genre where 95 % of the right answers are kept")
    for kind, mask in (("held-out songs", known_song), ("songs of other genres", ~known_song)):
        unknown = np.mean(reasons[mask] != None)  # noqa: E711 (of each element)
        print(f"query.reject {rate:g}: {unknown:.1%} of {mask.sum()} {kind} are unknown")


if __name__ == "__main__":
    main()
