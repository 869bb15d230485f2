"""Comparison of models on identical folds: no song in training and test, intervals over songs, paired tests."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import ParamsError
from genre.evaluation import metrics
from genre.evaluation.metrics import SongPrediction
from genre.models.calibration import Validation, calibrate, common_predictions, fit_temperature

Rows = npt.NDArray[np.int64]
Probabilities = npt.NDArray[np.float32]

N_BOOTSTRAP = 2000


@dataclass(frozen=True, slots=True)
class Fold:
    """The training and test chunks of one fold, as row numbers; no song has chunks in both."""

    repeat: int
    number: int
    train: Rows
    test: Rows


@dataclass(frozen=True, slots=True)
class Outcome:
    """The predictions and costs of one model on one fold."""

    probabilities: Probabilities  # shape (n_test_chunks, n_genres)
    train_s: float
    predict_s: float  # for all test chunks
    n_bytes: int  # of the model
    validation: Validation  # predictions of held-out training chunks; rows count within fold.train

    def to_bytes(self) -> bytes:
        """Return the outcome in NumPy's npz format."""
        stream = io.BytesIO()
        np.savez(
            stream,
            probabilities=self.probabilities,
            costs=np.array([self.train_s, self.predict_s, self.n_bytes]),
            rows=self.validation.rows,
            validation=self.validation.probabilities,
        )
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Outcome:
        """Return the outcome that `to_bytes` wrote."""
        arrays = files.read_npz(data)
        train_s, predict_s, n_bytes = arrays["costs"].tolist()
        validation = Validation(arrays["rows"], arrays["validation"])
        return cls(arrays["probabilities"], train_s, predict_s, int(n_bytes), validation)


@dataclass(frozen=True, slots=True)
class Summary:
    """Scores of one model: computed over all songs of a repeat, averaged over the repeats (see `metrics.scores`)."""

    song_accuracy: float
    song_accuracy_low: float  # 95 % interval, see `metrics.accuracy_interval`
    song_accuracy_high: float
    song_accuracy_sd: float  # standard deviation over the repeats
    chunk_accuracy: float
    macro_average_precision: float  # of the songs' mean probabilities, mean over the genres
    roc_auc: float
    log_loss: float
    ece: float
    train_s: float  # seconds of training in one fold, mean
    predict_s_per_song: float  # seconds, embedding included, decoding and features not
    size_mb: float  # megabytes (10^6 bytes) of the model, mean over the folds
    n_songs: int
    n_repeats: int
    p_against_best: float = 1.0  # paired test against the model with the highest song accuracy


@dataclass(frozen=True, slots=True)
class Result:
    """One model of a comparison."""

    model: str
    summary: Summary
    predictions: list[list[SongPrediction]]  # for each repeat, one per song
    song_accuracies: dict[str, float]  # for each song, the fraction of repeats in which its genre was predicted


def folds(labels: Rows, songs: Sequence[str], *, n_folds: int, n_repeats: int, seed: int) -> list[Fold]:
    """Return folds grouped by song and stratified by genre; each chunk is tested once in every repeat.

    Raises ParamsError if a genre has fewer songs than there are folds.

    `labels` and `songs` are those of the chunks, as in `metrics`; `seed` is that of the first repeat, and each further
    repeat adds 1.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    song_labels = np.array(sorted(set(zip(songs, labels.tolist(), strict=True))), dtype=object)[:, 1].astype(np.int64)
    fewest = int(np.unique(song_labels, return_counts=True)[1].min())
    if fewest < n_folds:
        raise ParamsError(f"compare.folds is {n_folds}, but a genre has only {fewest} songs: use at most {fewest}")
    return [
        Fold(repeat, number, np.asarray(train, np.int64), np.asarray(test, np.int64))
        for repeat in range(n_repeats)
        for number, (train, test) in enumerate(
            StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed + repeat).split(labels, labels, list(songs))
        )
    ]


def ensemble(outcomes: Mapping[str, Sequence[Outcome]], folds: Sequence[Fold], labels: Rows) -> list[Outcome]:
    """Return the outcome of the ensemble of several models on each fold.

    The temperature is fitted in each fold on the training chunks that every model held out; it is 1 without any.
    `outcomes` has one per fold for each model, and `labels` the class index of each chunk of the data set.
    """
    combined = []
    for fold, *members in zip(folds, *outcomes.values(), strict=True):
        rows, predictions = common_predictions([member.validation for member in members])
        temperature = fit_temperature(_mean(predictions), labels[fold.train][rows])
        combined.append(
            Outcome(
                calibrate(_mean([member.probabilities for member in members]), temperature),
                sum(member.train_s for member in members),
                sum(member.predict_s for member in members),
                sum(member.n_bytes for member in members),
                Validation(rows, calibrate(_mean(predictions), temperature)),
            )
        )
    return combined


def rank(
    outcomes: Mapping[str, Sequence[Outcome]], folds: Sequence[Fold], labels: Rows, songs: Sequence[str]
) -> list[Result]:
    """Return the scores and predictions of all models, the most accurate first, each tested against the first."""
    results = [_result(model, of_model, folds, labels, songs) for model, of_model in outcomes.items()]
    results.sort(key=lambda result: -result.summary.song_accuracy)
    p_values = [paired_p_value(result.song_accuracies, results[0].song_accuracies) for result in results]
    return [
        replace(result, summary=replace(result.summary, p_against_best=p_value))
        for result, p_value in zip(results, p_values, strict=True)
    ]


def paired_p_value(accuracies: Mapping[str, float], best: Mapping[str, float], seed: int = 0) -> float:
    """Return the two-sided p-value of a paired bootstrap over songs; the null hypothesis is equal accuracy.

    `accuracies` and `best` are `Result.song_accuracies` of two models, for the same songs.
    """
    differences = np.array([best[song] - accuracies[song] for song in sorted(best)])
    observed = differences.mean()
    if not differences.any():
        return 1.0
    draws = np.random.default_rng(seed).integers(0, len(differences), size=(N_BOOTSTRAP, len(differences)))
    centred = differences[draws].mean(axis=1) - observed
    return float((1 + np.count_nonzero(np.abs(centred) >= abs(observed) - 1e-12)) / (1 + N_BOOTSTRAP))


def _mean(probabilities: Sequence[Probabilities]) -> Probabilities:
    return np.asarray(np.mean(probabilities, axis=0), np.float32)


def _result(
    model: str, outcomes: Sequence[Outcome], folds: Sequence[Fold], labels: Rows, songs: Sequence[str]
) -> Result:
    predictions = []
    for repeat in sorted({fold.repeat for fold in folds}):
        parts = [(fold, outcome) for fold, outcome in zip(folds, outcomes, strict=True) if fold.repeat == repeat]
        rows = np.concatenate([fold.test for fold, _ in parts])
        probabilities = np.concatenate([outcome.probabilities for _, outcome in parts])
        predictions.append(metrics.by_song(probabilities, labels[rows], [songs[row] for row in rows]))
    accuracies = _song_accuracies(predictions)
    low, high = metrics.accuracy_interval(float(np.mean(list(accuracies.values()))), len(accuracies))
    scores = [
        metrics.scores(repeat) | {"macro_average_precision": _average_precision(repeat)} for repeat in predictions
    ]
    averaged = ("song_accuracy", "chunk_accuracy", "macro_average_precision", "roc_auc", "log_loss", "ece")
    summary = Summary(
        **{key: float(np.mean([score[key] for score in scores])) for key in averaged},
        song_accuracy_low=low,
        song_accuracy_high=high,
        song_accuracy_sd=float(np.std([score["song_accuracy"] for score in scores])),
        train_s=float(np.mean([outcome.train_s for outcome in outcomes])),
        predict_s_per_song=sum(outcome.predict_s for outcome in outcomes) / sum(map(len, predictions)),
        size_mb=float(np.mean([outcome.n_bytes for outcome in outcomes])) / 1e6,
        n_songs=len(accuracies),
        n_repeats=len(predictions),
    )
    return Result(model, summary, predictions, accuracies)


def _song_accuracies(predictions: Sequence[Sequence[SongPrediction]]) -> dict[str, float]:
    correct: dict[str, list[bool]] = {}
    for prediction in (prediction for repeat in predictions for prediction in repeat):
        correct.setdefault(prediction.song, []).append(prediction.actual == prediction.predicted)
    return {song: float(np.mean(values)) for song, values in correct.items()}


def _average_precision(predictions: Sequence[SongPrediction]) -> float:
    """Return the mean over genres of the average precision of the songs' mean probabilities."""
    from sklearn.metrics import average_precision_score

    actual = np.array([p.actual for p in predictions])
    means = np.stack([p.probabilities for p in predictions])
    return float(np.mean([average_precision_score(actual == genre, means[:, genre]) for genre in np.unique(actual)]))
