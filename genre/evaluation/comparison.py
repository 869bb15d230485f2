"""Comparison of models on identical folds: no song in training and test, intervals over songs, paired tests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from genre.errors import ParamsError
from genre.evaluation import metrics
from genre.features.arrays import VectorSet
from genre.models import calibration
from genre.models.calibration import Probabilities, Rows, Validation, calibrate, common_predictions

N_BOOTSTRAP = 2000


class Fold(NamedTuple):
    """The training and test chunks of one fold, as row numbers; no song has chunks in both."""

    repeat: int
    number: int
    train: Rows
    test: Rows
    songs_per_genre: int | None = None  # most training songs of a genre; None: all
    by_song: bool = False  # although songs have groups


class Outcome(NamedTuple):
    """The predictions and costs of one model on one fold."""

    probabilities: Probabilities  # shape (n_test_chunks, n_genres); then, if any, those of `recording.changed_inputs`
    costs: npt.NDArray[np.float64]  # seconds of training, seconds to predict a chunk, bytes [shape=(3,)]
    rows: Rows  # held-out training chunks, within fold.train
    held_out: Probabilities  # predictions of these chunks


Outcomes = Mapping[str, Sequence[Outcome]]  # by model, one for each fold


def folds(labels: Rows, groups: Sequence[str], *, n_folds: int, n_repeats: int, seed: int) -> list[Fold]:
    """Return folds by group and stratified by genre; each chunk is tested once in every repeat.

    Raises ParamsError if a genre has fewer groups than there are folds.

    `labels` and `groups` are those of the chunks; a group is one song or several. `seed` is that of the first repeat,
    and each further repeat adds 1.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    group_labels = np.array(sorted(set(zip(groups, labels.tolist(), strict=True))), dtype=object)[:, 1].astype(np.int64)
    fewest = int(np.unique(group_labels, return_counts=True)[1].min())
    if fewest < n_folds:
        what = f"a genre has only {fewest} songs or groups of songs"
        raise ParamsError(f"compare.folds is {n_folds}, but {what}: use at most {fewest}")
    divided = []
    for repeat in range(n_repeats):
        splitter = StratifiedGroupKFold(n_folds, shuffle=True, random_state=seed + repeat)
        parts = splitter.split(labels, labels, list(groups))
        divided += [Fold(repeat, number, train, test) for number, (train, test) in enumerate(parts)]
    return divided


def with_few_songs(folds: Sequence[Fold], counts: Sequence[int], data: VectorSet, *, seed: int) -> list[Fold]:
    """Return folds with the same test chunks and fewer training songs of each genre; nested, and only real subsets."""
    import pandas as pd

    few = []
    for fold in folds:
        table = pd.DataFrame({"song": [data.songs[row] for row in fold.train], "genre": data.labels[fold.train]})
        rng = np.random.default_rng([seed, fold.repeat, fold.number])
        drawn = table.drop_duplicates().sample(frac=1, random_state=rng).set_index("song")
        ranks = table["song"].map(drawn.groupby("genre").cumcount()).to_numpy()
        kept = {count: fold.train[ranks < count] for count in counts if count <= ranks.max()}
        few += [fold._replace(train=rows, songs_per_genre=count) for count, rows in kept.items()]
    return few


def curve(outcomes: Outcomes, folds: Sequence[Fold], data: VectorSet) -> list[dict[str, str | float]]:
    """Return one row per model and kind of fold: mean training songs of a genre, whether folds by song, scores."""
    table: list[dict[str, str | float]] = []
    kinds = [(fold.by_song, fold.songs_per_genre or len(data.songs)) for fold in folds]
    for kind in sorted(set(kinds)):
        positions = [i for i, of_fold in enumerate(kinds) if of_fold == kind]
        of_size = [folds[i] for i in positions]
        n_train = np.mean([len({data.songs[row] for row in fold.train}) for fold in of_size])
        for model, of_model in outcomes.items():
            scores = _result(model, [of_model[i] for i in positions], of_size, data).scores
            n_songs = float(n_train / len(np.unique(data.labels)))
            table.append({"model": model, "songs_per_genre": n_songs, "by_song": kind[0], **scores})
    return table


def ensemble(outcomes: Outcomes, folds: Sequence[Fold], data: VectorSet) -> list[Outcome]:
    """Return the outcome of the ensemble of several models on each fold.

    It is calibrated in each fold on the training chunks that every model held out.
    """
    combined = []
    for fold, *members in zip(folds, *outcomes.values(), strict=True):
        rows, predictions = common_predictions([Validation(member.rows, member.held_out) for member in members])
        known, held_out = fold.train[rows], _mean(predictions)
        fitted = calibration.fit(held_out, data.labels[known], [data.songs[row] for row in known])
        tested = calibrate(_mean([member.probabilities for member in members]), fitted)
        costs = np.sum([member.costs for member in members], axis=0)
        combined.append(Outcome(tested, costs, rows, calibrate(held_out, fitted)))
    return combined


def rank(outcomes: Outcomes, folds: Sequence[Fold], data: VectorSet) -> list[metrics.Result]:
    """Return the scores and predictions of all models, the most accurate first, each tested against the first.

    Besides those of `metrics.scores`: song_accuracy_sd (standard deviation over the repeats), n_repeats, train_s and
    size_mb (of a fold, mean; 10^6 bytes), predict_s_per_song (embedding included, decoding and features not), and
    p_against_best (`paired_p_value` against the first, corrected by `metrics.holm`; 1 of the first).
    """
    results = [_result(model, of_model, folds, data) for model, of_model in outcomes.items()]
    results.sort(key=lambda result: -result.scores["song_accuracy"])
    accuracies = [result.song_accuracies for result in results]
    p_values = metrics.holm([paired_p_value(of_model, accuracies[0]) for of_model in accuracies[1:]])
    for result, p_value in zip(results, [1.0, *p_values], strict=True):
        result.scores["p_against_best"] = p_value
    return results


def paired_p_value(accuracies: npt.NDArray[np.float64], best: npt.NDArray[np.float64], seed: int = 0) -> float:
    """Return the two-sided p-value of a paired bootstrap over songs; the null hypothesis is equal accuracy.

    `accuracies` and `best` are `Result.song_accuracies` of two models, for the same songs.
    """
    differences = best - accuracies
    observed = differences.mean()
    draws = np.random.default_rng(seed).integers(0, len(differences), size=(N_BOOTSTRAP, len(differences)))
    centred = differences[draws].mean(axis=1) - observed
    return float((1 + np.count_nonzero(np.abs(centred) >= abs(observed) - 1e-12)) / (1 + N_BOOTSTRAP))


def _mean(probabilities: Sequence[Probabilities]) -> Probabilities:
    return np.asarray(np.mean(probabilities, axis=0), np.float32)


def _result(model: str, outcomes: Sequence[Outcome], folds: Sequence[Fold], data: VectorSet) -> metrics.Result:
    predictions = []
    for repeat in sorted({fold.repeat for fold in folds}):
        parts = [(fold, outcome) for fold, outcome in zip(folds, outcomes, strict=True) if fold.repeat == repeat]
        rows = np.concatenate([fold.test for fold, _ in parts])
        probabilities = np.concatenate([outcome.probabilities[: len(fold.test)] for fold, outcome in parts])
        predictions.append(metrics.by_song(probabilities, data.labels[rows], [data.songs[row] for row in rows]))
    deviation = float(np.std([np.mean(table["actual"] == table["predicted"]) for table in predictions]))
    train_s, chunk_s, n_bytes = np.mean([outcome.costs for outcome in outcomes], axis=0).tolist()
    song_s = chunk_s * sum(len(fold.test) for fold in folds) / sum(map(len, predictions))
    costs = {"train_s": train_s, "predict_s_per_song": song_s, "size_mb": n_bytes / 1e6}
    of_repeats = {"song_accuracy_sd": deviation, "n_repeats": len(predictions)}
    return metrics.Result(model, metrics.scores(*predictions) | of_repeats | costs, predictions)
