"""A comparison is fair: same folds, no song on both sides, intervals and tests that tell chance from difference."""

from __future__ import annotations

import numpy as np
import pytest

from genre.errors import VectorError
from genre.evaluation import comparison, metrics
from genre.evaluation.comparison import Fold, Outcome

N_SONGS = 40
SONGS = [f"song {n // 2}" for n in range(2 * N_SONGS)]  # two chunks each
LABELS = np.array([(n // 2) % 4 for n in range(2 * N_SONGS)])


def _folds() -> list[Fold]:
    return comparison.folds(LABELS, SONGS, n_folds=5, n_repeats=2, seed=0)


def _outcomes(accuracy: float, seed: int = 0) -> list[Outcome]:
    """Return outcomes that are right for a share of the songs."""
    rng = np.random.default_rng(seed)
    right = dict(zip(sorted(set(SONGS)), rng.random(N_SONGS) < accuracy, strict=True))
    made = []
    for fold in _folds():
        guesses = [LABELS[row] if right[SONGS[row]] else (LABELS[row] + 1) % 4 for row in fold.test]
        probabilities = np.full((len(fold.test), 4), 0.1, np.float32)
        probabilities[np.arange(len(guesses)), guesses] = 0.7
        made.append(Outcome(probabilities, 1.0, 0.5, 100))
    return made


def test_every_chunk_is_tested_once_a_repeat_and_never_with_its_song_in_training() -> None:
    for repeat in (0, 1):
        of_repeat = [fold for fold in _folds() if fold.repeat == repeat]
        assert sorted(np.concatenate([fold.test for fold in of_repeat]).tolist()) == list(range(len(SONGS)))
        for fold in of_repeat:
            assert not {SONGS[row] for row in fold.train} & {SONGS[row] for row in fold.test}
            assert sorted([*fold.train, *fold.test]) == list(range(len(SONGS)))


def test_repeats_divide_differently_and_a_seed_divides_alike() -> None:
    made = _folds()
    assert made[0].test.tolist() != made[5].test.tolist()
    assert [fold.test.tolist() for fold in made] == [fold.test.tolist() for fold in _folds()]


def test_a_genre_with_fewer_songs_than_folds_is_refused() -> None:
    with pytest.raises(VectorError, match="too few for 11 folds"):
        comparison.folds(LABELS, SONGS, n_folds=11, n_repeats=1, seed=0)


def test_the_summary_counts_songs_and_its_interval_holds_the_accuracy() -> None:
    scored, rates = comparison.summarise(_outcomes(0.7), _folds(), LABELS, SONGS)
    assert scored["song_accuracy"] == pytest.approx(np.mean(list(rates.values())))
    assert scored["song_accuracy_low"] < scored["song_accuracy"] < scored["song_accuracy_high"]
    assert scored["n_songs"] == N_SONGS
    assert scored["predict_seconds_per_song"] == pytest.approx(10 * 0.5 / (2 * N_SONGS))


def test_a_perfect_model_has_perfect_scores() -> None:
    scored, _ = comparison.summarise(_outcomes(1.0), _folds(), LABELS, SONGS)
    assert scored["song_accuracy"] == scored["macro_average_precision"] == scored["roc_auc"] == 1.0
    assert scored["ece"] == pytest.approx(0.3, abs=1e-5)  # right always, at a confidence of 0.7


def test_the_calibration_error_is_the_distance_of_confidence_and_accuracy() -> None:
    confidences = np.array([0.95] * 10 + [0.65] * 10)
    correct = np.array([True] * 10 + [True] * 5 + [False] * 5)
    assert metrics.calibration_error(confidences, correct) == pytest.approx((0.05 + 0.15) / 2)
    assert metrics.calibration_error(np.array([1.0]), np.array([True])) == 0.0


def test_the_paired_test_finds_a_difference_and_finds_none_where_there_is_none() -> None:
    _, best = comparison.summarise(_outcomes(0.95), _folds(), LABELS, SONGS)
    _, worse = comparison.summarise(_outcomes(0.4, seed=1), _folds(), LABELS, SONGS)
    assert comparison.paired_p_value(worse, best) < 0.01
    assert comparison.paired_p_value(best, best) == 1.0
    one_song = {**best, "song 0": 1.0 - best["song 0"]}
    assert comparison.paired_p_value(one_song, best) > 0.1
