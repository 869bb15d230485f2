"""A fair comparison of models: identical folds by song, intervals over songs, paired tests. Computes only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre.errors import VectorError
from genre.evaluation import metrics
from genre.evaluation.metrics import N_BOOTSTRAP, SongPrediction
from genre.models import ensemble as ensembles
from genre.models.ensemble import Validation

Rows = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Fold:
    """Which chunks train and which test; no song is on both sides."""

    repeat: int
    number: int
    train: Rows
    test: Rows


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one model did on one fold."""

    probabilities: Probabilities  # shape (test chunks, genres)
    train_seconds: float
    predict_seconds: float
    size_bytes: int  # of what predicts
    validation: Validation | None = None  # of training chunks (numbered within the fold) that were left out


def folds(labels: Rows, songs: Sequence[str], *, n_folds: int, n_repeats: int, seed: int) -> list[Fold]:
    """Divide chunks into folds by song, stratified by genre; every chunk is tested once in each repeat.

    Raises
    ------
    VectorError
        If a genre has fewer songs than there are folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    fewest = min(
        len({song for song, label in zip(songs, labels, strict=True) if label == genre}) for genre in np.unique(labels)
    )
    if fewest < n_folds:
        raise VectorError(f"a genre has {fewest} songs only: too few for {n_folds} folds (compare.folds)")
    made = []
    for repeat in range(n_repeats):
        divide = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed + repeat)
        for number, (train, test) in enumerate(divide.split(labels, labels, list(songs))):
            made.append(Fold(repeat, number, np.asarray(train, np.int64), np.asarray(test, np.int64)))
    return made


def predictions(
    outcomes: Sequence[Outcome], tested: Sequence[Fold], labels: Rows, songs: Sequence[str]
) -> list[list[SongPrediction]]:
    """Return what a model says of each song, once for every repeat."""
    made = []
    for rows, probabilities in _of_repeats(outcomes, tested):
        made.append(metrics.by_song(probabilities, labels[rows], [songs[row] for row in rows]))
    return made


def summarise(
    outcomes: Sequence[Outcome], tested: Sequence[Fold], labels: Rows, songs: Sequence[str]
) -> tuple[dict[str, float], dict[str, float]]:
    """Return the scores of a model over all folds and repeats, and for each song how often it was right.

    Scores are computed per repeat, over all songs tested in it, and averaged over the repeats. The interval is the
    95 % bootstrap over songs of the mean accuracy. `ece` is the expected calibration error of the songs' confidence
    over ten equal bins (Guo et al. 2017).
    """
    from sklearn.metrics import average_precision_score

    per_repeat: list[dict[str, float]] = []
    right: dict[str, list[bool]] = {}
    for rows, probabilities in _of_repeats(outcomes, tested):
        names = [songs[row] for row in rows]
        answered = metrics.by_song(probabilities, labels[rows], names)
        scored = metrics.scores(probabilities, labels[rows], names)
        actual = np.array([p.actual for p in answered])
        means = np.stack([p.probabilities for p in answered])
        precisions = [average_precision_score(actual == genre, means[:, genre]) for genre in np.unique(actual)]
        per_repeat.append(
            {
                "song_accuracy": scored["song_accuracy"],
                "chunk_accuracy": scored["chunk_accuracy"],
                "macro_average_precision": float(np.mean(precisions)),
                "roc_auc": scored["roc_auc"],
                "log_loss": scored["log_loss"],
                "ece": scored["ece"],
            }
        )
        for prediction in answered:
            right.setdefault(prediction.song, []).append(prediction.actual == prediction.predicted)
    rates = {song: float(np.mean(hits)) for song, hits in right.items()}
    low, high = metrics.bootstrap_interval(np.array(list(rates.values())))
    n_songs = sum(len({songs[row] for row in fold.test}) for fold in tested)
    averaged = {key: float(np.mean([scored[key] for scored in per_repeat])) for key in per_repeat[0]}
    return averaged | {
        "song_accuracy_low": low,
        "song_accuracy_high": high,
        "song_accuracy_sd": float(np.std([scored["song_accuracy"] for scored in per_repeat])),
        "train_seconds": float(np.mean([outcome.train_seconds for outcome in outcomes])),
        "predict_seconds_per_song": sum(outcome.predict_seconds for outcome in outcomes) / n_songs,
        "size_mb": float(np.mean([outcome.size_bytes for outcome in outcomes])) / 1e6,
        "n_songs": len(rates),
        "n_repeats": len(per_repeat),
    }, rates


def paired_p_value(rates: Mapping[str, float], best: Mapping[str, float], seed: int = 0) -> float:
    """Return the two-sided p-value of a paired bootstrap over songs: of no difference in accuracy."""
    differences = np.array([best[song] - rates[song] for song in sorted(best)])
    observed = differences.mean()
    if not differences.any():
        return 1.0
    rng = np.random.default_rng(seed)
    draws = rng.integers(0, len(differences), size=(N_BOOTSTRAP, len(differences)))
    centred = differences[draws].mean(axis=1) - observed
    return float((1 + np.count_nonzero(np.abs(centred) >= abs(observed) - 1e-12)) / (1 + N_BOOTSTRAP))


def ensemble(
    outcomes: Mapping[str, Sequence[Outcome]], tested: Sequence[Fold], labels: Rows, songs: Sequence[str]
) -> list[Outcome]:
    """Return the outcomes, fold by fold, of the ensemble of several models.

    Its temperature is fitted in each fold on the training songs that all models have left out in it.
    """
    made = []
    for position, fold in enumerate(tested):
        of_fold = {name: found[position] for name, found in outcomes.items()}
        validations = {name: outcome.validation for name, outcome in of_fold.items() if outcome.validation}
        temperature = 1.0
        if len(validations) == len(of_fold):
            in_fold = [songs[row] for row in fold.train]
            temperature = ensembles.fit(validations, labels[fold.train], in_fold, genres=[], settings={}).temperature
        made.append(
            Outcome(
                ensembles.combine([outcome.probabilities for outcome in of_fold.values()], temperature),
                sum(outcome.train_seconds for outcome in of_fold.values()),
                sum(outcome.predict_seconds for outcome in of_fold.values()),
                sum(outcome.size_bytes for outcome in of_fold.values()),
            )
        )
    return made


def _of_repeats(outcomes: Sequence[Outcome], tested: Sequence[Fold]) -> Iterator[tuple[Rows, Probabilities]]:
    """Yield for each repeat all chunks tested in it, and what was said of them."""
    for repeat in sorted({fold.repeat for fold in tested}):
        parts = [(fold, outcome) for fold, outcome in zip(tested, outcomes, strict=True) if fold.repeat == repeat]
        rows = np.concatenate([fold.test for fold, _ in parts])
        yield rows, np.concatenate([outcome.probabilities for _, outcome in parts])
