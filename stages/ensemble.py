"""Fit the ensemble (the calibrated mean of several models) and the detectors of unknown songs; choose the default.

python -m stages.ensemble
dvc repro ensemble      with the stages before it, if they changed

All use predictions for training songs by models that were trained without them (out-of-fold predictions).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from genre import params
from genre.audio import manifest
from genre.cache import Cache
from genre.cli import argument_parser, run_command
from genre.errors import ModelError
from genre.evaluation import metrics
from genre.features import arrays
from genre.models import calibration, cards, networks, rejection
from genre.paths import Paths

SCORES = ("song_accuracy", "log_loss", "n_songs")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: training/*/validation.csv, chunks/, pickled_vectors/ -> the ensemble's card, rejection.npz."""
    argument_parser(__doc__).parse_args(argv)
    settings, paths = params.load(), Paths()
    models = settings.ensemble.models
    names = dict.fromkeys([*networks.MODELS, *settings.baselines.models, *models])
    vectors, available = arrays.digest(paths.vectors), cards.available(paths)
    trained = [n for n in names if n in available and cards.read(n, paths).dataset.get("vectors") == vectors]
    validations = {name: calibration.read_validation(paths.validation(name)) for name in trained}
    if missing := [name for name in models if name not in validations]:
        fault = f"{missing[0]} is not trained on {paths.vectors}/: run `dvc repro`"
        raise ModelError(f"ensemble.models: {fault}, or choose from {', '.join(trained) or 'none'}")
    training = arrays.read(paths.vectors, "train")
    others = [name for name in settings.baselines.models if name in validations and len(validations[name].rows)]
    candidates = list(dict.fromkeys([*models, *others]))
    rows, predictions = calibration.common_predictions([validations[name] for name in candidates])
    probabilities = dict(zip(candidates, predictions, strict=True))
    labels, songs = training.labels[rows], [training.songs[row] for row in rows]
    mean = np.asarray(np.mean([probabilities[name] for name in models], axis=0), np.float32)
    fitted = calibration.fit(mean, labels, songs)
    of_ensemble = calibration.Validation(rows, calibration.calibrate(mean, fitted))
    probabilities[cards.ENSEMBLE] = of_ensemble.probabilities
    if not len(rows):  # each genre has one song, or a network one member: nothing can be compared
        print("ensemble: the models have no common out-of-fold song: temperature 1, no scores")
        probabilities = {}
    by_song = {name: metrics.by_song(p, labels, songs) for name, p in probabilities.items()}
    scores = {name: {k: v for k, v in metrics.scores(p).items() if k in SCORES} for name, p in by_song.items()}
    losses = {name: metrics.log_losses(predicted) for name, predicted in by_song.items()}
    gains = {name: gain(losses[cards.ENSEMBLE] - loss) for name, loss in losses.items() if name != cards.ENSEMBLE}
    default = default_model(gains)
    card = cards.ModelCard(
        model=cards.ENSEMBLE,
        kind=cards.ENSEMBLE,
        genres=training.genres,
        models=list(models),
        default=default,
        settings=arrays.read_settings(paths.vectors),
        calibration=fitted,
        rejection=_fit_rejection(training, validations | {cards.ENSEMBLE: of_ensemble}, settings, paths),
        dataset=cards.describe_dataset(settings.dataset.name, training.songs, paths),
        scores=scores,
    )
    cards.write(card, paths)
    for name, score in scores.items():
        margin = " ({:+.3f} +- {:.3f} better than the ensemble)".format(*gains[name]) if name in gains else ""
        print(
            f"ensemble: {name}: {score['song_accuracy']:.1%} of {score['n_songs']:.0f} out-of-fold songs,"
            f" log loss {score['log_loss']:.3f}{margin}"
        )
    print(f"ensemble: default model of query: {default}")
    return 0


def _fit_rejection(
    training: arrays.VectorSet, validations: Mapping[str, calibration.Validation], settings: params.Params, paths: Paths
) -> dict[str, Any] | None:
    """Write the detectors of unknown songs; return the description for the card. None with few songs."""
    cache = Cache(paths.cache, settings.cache.max_bytes)
    embedders = rejection.embedders(settings.musicnn, paths, cache)
    chunk_files = manifest.chunk_files(paths.chunks, "train", training.songs)
    workers = settings.parallel.workers
    vectors = {e.name: e.of_chunks(training.inputs, chunk_files, workers) for e in embedders}
    cache.trim()
    fitted = rejection.fit(vectors, training.labels, training.songs, validations, training.groups)
    description = rejection.write(fitted, embedders, paths)
    if description is None:
        print(f"ensemble: no rejection of unknown songs: {rejection.MIN_SONGS} training songs are needed")
    else:
        limit = f"query.reject is at least {description['lowest_rate']:.3f} with {description['songs']} songs"
        print(f"ensemble: rejection of unknown songs by {', '.join(vectors)} and confidence; {limit}")
    return description


def gain(differences: npt.NDArray[np.float64]) -> tuple[float, float]:
    """Return mean and standard error of the songs' differences in log loss; the error of one song is infinite."""
    n = len(differences)
    return float(differences.mean()), float(differences.std(ddof=1) / np.sqrt(n)) if n > 1 else np.inf


def default_model(gains: Mapping[str, tuple[float, float]]) -> str:
    """Return the model with the greatest gain of more than a standard error; without one, the ensemble.

    `gains` has mean and standard error of the ensemble's log loss minus that of each model, as `gain`.
    """
    better = {name: gain for name, (gain, error) in gains.items() if gain > error}
    return max(better, key=better.__getitem__, default=cards.ENSEMBLE)


if __name__ == "__main__":
    run_command(main)
