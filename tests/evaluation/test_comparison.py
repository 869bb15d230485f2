"""A comparison uses identical folds by song, and its tests separate chance from difference."""

from __future__ import annotations

import numpy as np
import pytest

from genre.errors import ParamsError
from genre.evaluation import comparison
from genre.evaluation.comparison import Fold, Outcome
from genre.evaluation.metrics import Result
from genre.models.calibration import Calibration, Validation, calibrate

N_SONGS = 40
SONGS = [f"song {n // 2}" for n in range(2 * N_SONGS)]  # two chunks each
LABELS = np.array([(n // 2) % 4 for n in range(2 * N_SONGS)])


def _folds() -> list[Fold]:
    return comparison.folds(LABELS, SONGS, n_folds=5, n_repeats=2, seed=0)


def _outcomes(accuracy: float, seed: int = 0) -> list[Outcome]:
    """Return outcomes with the given song accuracy."""
    rng = np.random.default_rng(seed)
    right = dict(zip(sorted(set(SONGS)), rng.random(N_SONGS) < accuracy, strict=True))
    outcomes = []
    for fold in _folds():
        guesses = [LABELS[row] if right[SONGS[row]] else (LABELS[row] + 1) % 4 for row in fold.test]
        probabilities = np.full((len(fold.test), 4), 0.1, np.float32)
        probabilities[np.arange(len(guesses)), guesses] = 0.7
        outcomes.append(Outcome(probabilities, 1.0, 0.5, 100, Validation(fold.test[:0], probabilities[:0])))
    return outcomes


def _rank(**outcomes: list[Outcome]) -> list[Result]:
    return comparison.rank(outcomes, _folds(), LABELS, SONGS)


def test_each_repeat_tests_every_chunk_once_without_its_song_in_training() -> None:
    for repeat in (0, 1):
        of_repeat = [fold for fold in _folds() if fold.repeat == repeat]
        assert sorted(np.concatenate([fold.test for fold in of_repeat]).tolist()) == list(range(len(SONGS)))
        for fold in of_repeat:
            assert not {SONGS[row] for row in fold.train} & {SONGS[row] for row in fold.test}
            assert sorted([*fold.train, *fold.test]) == list(range(len(SONGS)))
    assert _folds()[0].test.tolist() == _folds()[0].test.tolist() != _folds()[5].test.tolist()


def test_a_genre_with_fewer_songs_than_folds_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"compare\.folds is 11, but a genre has only 10 songs"):
        comparison.folds(LABELS, SONGS, n_folds=11, n_repeats=1, seed=0)


def test_the_summary_counts_songs_and_its_interval_contains_the_accuracy() -> None:
    (result,) = _rank(model=_outcomes(0.7))
    scores = result.scores
    assert scores["song_accuracy"] == pytest.approx(np.mean(list(result.song_accuracies.values())))
    assert scores["song_accuracy_low"] < scores["song_accuracy"] < scores["song_accuracy_high"]
    assert (scores["n_songs"], scores["n_repeats"]) == (N_SONGS, 2)
    assert scores["predict_s_per_song"] == pytest.approx(10 * 0.5 / (2 * N_SONGS))


def test_models_are_ranked_and_tested_against_the_best() -> None:
    results = _rank(worse=_outcomes(0.4, seed=1), best=_outcomes(0.95))
    assert [result.model for result in results] == ["best", "worse"]
    assert results[0].scores["p_against_best"] == 1.0
    assert results[1].scores["p_against_best"] < 0.01


def test_a_difference_of_one_song_is_not_significant() -> None:
    best = _rank(model=_outcomes(0.95))[0].song_accuracies
    assert comparison.paired_p_value({**best, "song 0": 1.0 - best["song 0"]}, best) > 0.1


def test_the_ensemble_averages_its_members_and_adds_their_costs() -> None:
    members = {"a": _outcomes(1.0), "b": _outcomes(0.5)}
    combined = comparison.ensemble(members, _folds(), LABELS, SONGS)
    expected = np.mean([outcomes[0].probabilities for outcomes in members.values()], axis=0)
    np.testing.assert_allclose(combined[0].probabilities, calibrate(expected, Calibration()), rtol=1e-5)
    assert (combined[0].train_s, combined[0].predict_s, combined[0].n_bytes) == (2.0, 1.0, 200)
