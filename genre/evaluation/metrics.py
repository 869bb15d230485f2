"""Scores of genre predictions over the songs of a test set.

A model predicts chunks. The prediction of a song is the vote of its chunks (`genre.models.vote`). Scores are computed
over songs unless their name says otherwise, because the chunks of one song are not independent samples.

Conventions
-----------
Genres are class indices from 0 to n_genres - 1. Probabilities are arrays of shape (n_chunks, n_genres) whose rows sum
to 1, labels are integer arrays of shape (n_chunks,), and songs are sequences with the song name of each chunk.
`scores`, `per_genre` and `confusion_matrix` take the tables of songs that `by_song` returns, one of each repeat.

Examples
--------
>>> import numpy as np
>>> probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.7, 0.3]], np.float32)
>>> predictions = by_song(probabilities, np.array([0, 0, 1]), ["song a", "song a", "song b"])
>>> predictions["predicted"].tolist()
[0, 0]
>>> scores(predictions)["song_accuracy"]
0.5
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genre.errors import ModelError
from genre.models.vote import vote_by_song

if TYPE_CHECKING:
    import pandas as pd

Z_95 = 1.959964  # 97.5 % quantile of the normal distribution
CALIBRATION_BINS = 10
N_BOOTSTRAP = 1000  # draws of the songs
MIN_WIDTH = 1e-9  # of an interval whose draws differ by more than rounding
MIN_PROBABILITY = 1e-12  # lower bound in the log loss
COLUMNS = ("actual", "predicted", "confidence", "chunks", "correct_chunks")  # of `by_song`, before the genres


class Result(NamedTuple):
    """The scores and predictions of one model."""

    model: str
    scores: dict[str, float]  # as `scores` returns them; of a comparison, also those of `comparison.rank`
    predictions: list[pd.DataFrame]  # for each repeat, as `by_song` returns them

    @property
    def song_accuracies(self) -> npt.NDArray[np.float64]:
        """Return the fraction of repeats in which the genre of each song was predicted, sorted by song [shape=(n,)]."""
        import pandas as pd

        table = pd.concat(self.predictions)
        return np.asarray((table["actual"] == table["predicted"]).groupby("song").mean(), np.float64)


def by_song(
    probabilities: npt.NDArray[np.floating[Any]], labels: npt.NDArray[np.int64], songs: Sequence[str]
) -> pd.DataFrame:
    """Return a table with the prediction of each song, in the order of first appearance.

    The index is song, the columns are actual and predicted (class indices of the true genre and of the vote),
    confidence (mean probability of the predicted genre over the chunks), chunks and correct_chunks (their numbers), and
    for each genre, by its class index, the mean probability over the chunks. Raises ModelError for probabilities
    that are not finite.
    """
    import pandas as pd

    if not np.isfinite(probabilities).all():
        raise ModelError("the probabilities contain NaN or infinity")
    actual = dict(zip(songs, labels.tolist(), strict=True))
    votes = vote_by_song(probabilities, songs)
    rows = [
        (actual[song], vote.genre, vote.confidence, len(vote.vector), vote.counts[actual[song]], *vote.means)
        for song, vote in votes.items()
    ]
    index = pd.Index(list(votes), name="song", dtype=object)
    return pd.DataFrame(rows, index, [*COLUMNS, *range(probabilities.shape[1])])


def scores(*repeats: pd.DataFrame) -> dict[str, float]:
    """Return the scores of one model on a test set, with 95 % intervals; of repeats on the same songs, the means.

    The interval of the song accuracy is Wilson's, see `accuracy_interval`. Those of the other scores are percentiles of
    a bootstrap over songs. Where the draws do not differ, because all songs are right, Wilson's is used as well.

    Returns
    -------
    dict of str to float
        song_accuracy : fraction of songs whose predicted genre is the true one
        chunk_accuracy : fraction of chunks whose most probable genre is the true one
        macro_precision, macro_recall, macro_f1 : means over the genres that have test songs
        roc_auc, macro_average_precision : mean one-against-rest area under the ROC curve and mean average precision of
            the songs' mean probabilities, over the genres that have test songs; the area is 0 if there is only one
        log_loss : mean negative natural logarithm of the mean probability of the true genre
        ece : expected calibration error of the confidence, see `calibration_error`
        <score>_low, <score>_high : interval of each of these
        n_songs, n_chunks : number of songs and of chunks
    """
    n_songs = len(repeats[0])
    rng = np.random.default_rng(0)
    resampled = rng.multinomial(n_songs, np.full(n_songs, 1 / n_songs), size=N_BOOTSTRAP)
    weights = np.concatenate([np.ones((1, n_songs)), resampled])  # the first row: the songs themselves
    draws = [_draws(predictions.sort_index(), weights) for predictions in repeats]
    result: dict[str, float] = {}
    for name in draws[0]:
        values = np.mean([of_repeat[name] for of_repeat in draws], axis=0)
        value = float(np.nan_to_num(values[0]))
        low, high = np.nanquantile(np.append(values[1:], value), (0.025, 0.975))
        if name == "song_accuracy" or high - low < MIN_WIDTH:
            low, high = accuracy_interval(min(1.0, value), n_songs)
        result |= {name: value, f"{name}_low": float(min(low, value)), f"{name}_high": float(max(high, value))}
    return result | {"n_songs": n_songs, "n_chunks": int(repeats[0]["chunks"].sum())}


def per_genre(repeats: Sequence[pd.DataFrame], n_genres: int) -> list[dict[str, float]]:
    """Return precision, recall with its 95 % interval (`accuracy_interval`), F1 and test songs of each genre.

    The songs of several repeats are the same and are counted once.
    """
    from sklearn import metrics

    columns = metrics.precision_recall_fscore_support(*_labels(*repeats), labels=range(n_genres), zero_division=0)
    rows = []
    for precision, recall, f1, n in zip(*map(np.ndarray.tolist, columns), strict=True):
        low, high = accuracy_interval(recall, n // len(repeats)) if n else (0.0, 1.0)
        interval = {"recall_low": low, "recall_high": high}
        rows.append({"precision": precision, "recall": recall, **interval, "f1": f1, "songs": n // len(repeats)})
    return rows


def confusion_matrix(repeats: Sequence[pd.DataFrame], n_genres: int) -> npt.NDArray[np.int64]:
    """Return the number of songs [shape=(n_genres, n_genres)] by true genre (rows) and predicted genre (columns)."""
    from sklearn import metrics

    return np.asarray(metrics.confusion_matrix(*_labels(*repeats), labels=range(n_genres)), np.int64)


def log_losses(predictions: pd.DataFrame) -> npt.NDArray[np.float64]:
    """Return the negative natural logarithm of the mean probability of each song's true genre [shape=(n_songs,)]."""
    means = predictions.drop(columns=[*COLUMNS]).to_numpy().clip(MIN_PROBABILITY, 1.0)
    of_true = means[np.arange(len(means)), predictions["actual"].to_numpy()]
    return np.asarray(-np.log(of_true / means.sum(axis=1)), np.float64)


def accuracy_interval(accuracy: float, n_songs: int) -> tuple[float, float]:
    """Return the 95 % interval of an accuracy over `n_songs` songs (Wilson 1927).

    Its width is not zero if all songs are right or all are wrong. `accuracy` may be a mean over repeats with the same
    songs, which `scipy.stats.binomtest` does not accept; the interval is then wider than necessary.
    """
    share = Z_95**2 / n_songs
    centre = accuracy + share / 2
    half_width = float(np.sqrt(share * (accuracy * (1 - accuracy) + share / 4)))
    return max(0.0, (centre - half_width) / (1 + share)), min(1.0, (centre + half_width) / (1 + share))


def calibration_bins(confidences: npt.NDArray[np.float64]) -> npt.NDArray[np.int64]:
    """Return the index of the calibration bin of each confidence [shape=(n,)]; the bins divide 0 to 1 equally."""
    return np.minimum((confidences * CALIBRATION_BINS).astype(np.int64), CALIBRATION_BINS - 1)


def calibration_error(
    confidences: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """Return the expected calibration error (Guo et al. 2017), from 0 (calibrated) to 1 [shape=(n_draws,)].

    It is the distance between mean confidence and accuracy in each of ten equal bins, weighted by the songs in the bin.
    `confidences` [shape=(n,)] are those of the predicted genres, `correct` [shape=(n,)] says which are true, and
    `weights` [shape=(n_draws, n)] how often a song counts.
    """
    in_bins = calibration_bins(confidences)[:, np.newaxis] == np.arange(CALIBRATION_BINS)
    gaps: npt.NDArray[np.float64] = weights @ ((confidences - correct)[:, np.newaxis] * in_bins)
    return np.asarray(np.abs(gaps).sum(axis=1) / weights.sum(axis=1))


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected for their number (Holm 1979), in the same order."""
    order = np.argsort(p_values)
    corrected = np.maximum.accumulate(np.asarray(p_values)[order] * np.arange(len(order), 0, -1))
    return list(np.minimum(corrected, 1.0)[np.argsort(order)].tolist())


def _draws(predictions: pd.DataFrame, weights: npt.NDArray[np.float64]) -> dict[str, npt.NDArray[np.float64]]:
    """Return each score of `scores` in each draw [shape=(n_draws,)]; `weights` [shape=(n_draws, n_songs)] are counts.

    A genre without songs in a draw is left out of its means; a draw in which none is left has NaN.
    """
    actual, predicted = _labels(predictions)
    genres = np.unique(actual)
    is_true, is_predicted = actual[:, np.newaxis] == genres, predicted[:, np.newaxis] == genres
    n_true, n_predicted, n_right = (weights @ part for part in (is_true, is_predicted, is_true & is_predicted))
    n_songs = weights.sum(axis=1)

    def mean(values: npt.NDArray[np.float64], counted: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
        return np.asarray(np.ma.array(values, mask=~counted).mean(axis=1).filled(np.nan))

    ranked = [_ranking(predictions[genre].to_numpy(), actual == genre, weights) for genre in genres]
    areas, precisions = (np.stack(part, axis=1) for part in zip(*ranked, strict=True))
    return {
        "song_accuracy": weights @ (actual == predicted) / n_songs,
        "chunk_accuracy": weights @ predictions["correct_chunks"] / (weights @ predictions["chunks"]),
        "macro_precision": mean(n_right / np.maximum(n_predicted, 1), n_true > 0),
        "macro_recall": mean(n_right / np.maximum(n_true, 1), n_true > 0),
        "macro_f1": mean(2 * n_right / np.maximum(n_true + n_predicted, 1), n_true > 0),
        "roc_auc": mean(areas, np.isfinite(areas)),
        "macro_average_precision": mean(precisions, np.isfinite(precisions)),
        "log_loss": weights @ log_losses(predictions) / n_songs,
        "ece": calibration_error(predictions["confidence"].to_numpy(), actual == predicted, weights),
    }


def _ranking(
    values: npt.NDArray[np.float64], is_true: npt.NDArray[np.bool_], weights: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return area under the ROC curve and average precision of weighted songs [shape=(n_draws,) each].

    Ties count as scikit-learn counts them; NaN where a draw has no songs of the genre or of others.
    """
    order = np.argsort(-values)
    ends = np.flatnonzero(np.diff(values[order], append=np.inf))  # the last song of each value is a threshold
    true, false = (np.cumsum(weights[:, order] * part[order], axis=1)[:, ends] for part in (is_true, ~is_true))
    n_true, n_false, start = true[:, -1], false[:, -1], ((0, 0), (1, 0))
    with np.errstate(invalid="ignore"):
        area = np.trapezoid(np.pad(true, start), np.pad(false, start), axis=1) / (n_true * n_false)
        precision = true / np.maximum(true + false, 1)
        return area, (np.diff(true, axis=1, prepend=0) * precision).sum(axis=1) / n_true


def _labels(*repeats: pd.DataFrame) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    actual, predicted = (np.concatenate([table[name] for table in repeats]) for name in ("actual", "predicted"))
    return actual, predicted
