"""Fit the ensemble, the calibrated average of several models, choose the default model of query, and fit the rejection.

python -m stages.ensemble

Both use the validation songs that no model of the ensemble was trained on.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genre import params
from genre.audio import manifest
from genre.cache import Cache
from genre.cli import run_command
from genre.errors import ModelError
from genre.evaluation import metrics
from genre.features import arrays
from genre.features.arrays import VectorSet
from genre.models import calibration, cards, embeddings, rejection
from genre.models.calibration import Validation
from genre.models.cards import ENSEMBLE, WITHOUT_ENSEMBLE, ModelCard
from genre.paths import Paths

SCORES = ("song_accuracy", "log_loss", "n_songs")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: training/*/validation.csv, chunks/, pickled_vectors/ -> the ensemble's card, rejection.npz."""
    argparse.ArgumentParser(prog="python -m stages.ensemble", description=__doc__.splitlines()[0]).parse_args(argv)
    settings, paths = params.load(), Paths()
    models = settings.ensemble.models
    if missing := [name for name in models if not paths.validation(name).is_file()]:
        names = ", ".join(sorted(path.parent.name for path in paths.root.glob("training/*/validation.csv")))
        raise ModelError(f"ensemble.models: {missing[0]} is not trained: choose from {names}")
    training = arrays.read(paths.vectors, "train")
    validations = {name: calibration.read_validation(paths.validation(name)) for name in models}
    rows, predictions = calibration.common_predictions(list(validations.values()))
    labels, songs = training.labels[rows], [training.songs[row] for row in rows]
    mean = np.asarray(np.mean(predictions, axis=0), np.float32)
    temperature = calibration.fit_temperature(mean, labels)
    candidates = dict(zip(models, predictions, strict=True)) | {ENSEMBLE: calibration.calibrate(mean, temperature)}
    if not len(rows):  # few songs, or train.validation_fraction is 0: nothing can be compared
        print("ensemble: the models have no common validation song: temperature 1, no scores")
        candidates = {}
    all_scores = {name: metrics.scores(metrics.by_song(p, labels, songs)) for name, p in candidates.items()}
    scores = {name: {key: of_model[key] for key in SCORES} for name, of_model in all_scores.items()}
    default = _better(scores)
    of_ensemble = Validation(rows, calibration.calibrate(mean, temperature))
    cards.write(
        ModelCard(
            model=ENSEMBLE,
            kind=ENSEMBLE,
            genres=training.genres,
            models=list(models),
            default=default,
            settings=arrays.read_settings(paths.vectors),
            temperature=temperature,
            rejection=_fit_rejection(training, of_ensemble, settings, paths),
            dataset=cards.describe_dataset(settings.dataset.name, training.songs, paths),
            scores=scores,
        ),
        paths,
    )
    for name, score in scores.items():
        accuracy, n_songs, log_loss = score["song_accuracy"], score["n_songs"], score["log_loss"]
        print(f"ensemble: {name}: {accuracy:.1%} of {n_songs:.0f} validation songs, log loss {log_loss:.3f}")
    print(f"ensemble: default model of query: {default}")
    return 0


def _fit_rejection(
    training: VectorSet, of_ensemble: Validation, settings: params.Params, paths: Paths
) -> dict[str, Any] | None:
    """Write the detectors of unknown songs; return the description for the card. None with few songs."""
    cache = Cache(paths.cache, settings.cache.max_bytes)
    embedders = [embeddings.load(rejection.STATISTICS, paths)]
    vectors = {rejection.STATISTICS: embedders[0].of_features(training.inputs)}
    if paths.musicnn(settings.musicnn.network).is_file():
        embedders.append(embeddings.load(settings.musicnn.embedding, paths, cache=cache))
        chunk_files = manifest.chunk_files(paths.chunks, "train", training.songs)
        vectors[embedders[1].name] = embedders[1].of_files(chunk_files, workers=settings.parallel.workers)
        cache.trim()
    trained = sorted(path.parent.name for path in paths.root.glob("training/*/validation.csv"))
    validations = {name: calibration.read_validation(paths.validation(name)) for name in trained}
    fitted = rejection.fit(vectors, training.labels, training.songs, validations | {ENSEMBLE: of_ensemble})
    description = rejection.write(fitted, embedders, paths)
    if description is None:
        print(f"ensemble: no rejection of unknown songs: {rejection.MIN_SONGS} training songs are needed")
    else:
        limit = f"{description['songs']} training songs support no query.reject below {description['lowest_rate']:.3f}"
        print(f"ensemble: rejection of unknown songs by {', '.join(vectors)} and confidence; {limit}")
    return description


def _better(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Return the ensemble, or `merged` if it predicts the validation songs at least as well.

    Without validation songs, in `scores` of no model, it is the ensemble.
    """
    if WITHOUT_ENSEMBLE not in scores:
        return ENSEMBLE
    ranks = {name: (scores[name]["song_accuracy"], -scores[name]["log_loss"]) for name in (WITHOUT_ENSEMBLE, ENSEMBLE)}
    return max(ranks, key=ranks.__getitem__)  # the first of equal ones


if __name__ == "__main__":
    run_command(main)
