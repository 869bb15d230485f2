"""A comparison uses identical folds by song, and its tests separate chance from difference."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genre.audio import chunks
from genre.audio.manifest import Row
from genre.errors import ParamsError
from genre.evaluation import comparison, recording
from genre.evaluation.metrics import Result
from genre.features.arrays import VectorSet
from genre.models.calibration import Calibration, calibrate
from genre.paths import Paths

RATE = 22_050  # Hz
N_SONGS = 40
SONGS = [f"song {n // 2}" for n in range(2 * N_SONGS)]  # two chunks each
LABELS = np.array([(n // 2) % 4 for n in range(2 * N_SONGS)])
DATA = VectorSet({}, LABELS, SONGS, list("abcd"), SONGS)


def _folds() -> list[comparison.Fold]:
    return comparison.folds(LABELS, SONGS, n_folds=5, n_repeats=2, seed=0)


def _outcomes(accuracy: float, seed: int = 0) -> list[comparison.Outcome]:
    """Return outcomes with the given song accuracy."""
    rng = np.random.default_rng(seed)
    right = dict(zip(sorted(set(SONGS)), rng.random(N_SONGS) < accuracy, strict=True))
    outcomes = []
    for fold in _folds():
        guesses = [LABELS[row] if right[SONGS[row]] else (LABELS[row] + 1) % 4 for row in fold.test]
        probabilities = np.full((len(fold.test), 4), 0.1, np.float32)
        probabilities[np.arange(len(guesses)), guesses] = 0.7
        outcomes.append(comparison.Outcome(probabilities, np.array([1.0, 0.5, 100]), fold.test[:0], probabilities[:0]))
    return outcomes


def _rank(**outcomes: list[comparison.Outcome]) -> list[Result]:
    return comparison.rank(outcomes, _folds(), DATA)


def test_each_repeat_tests_every_chunk_once_without_its_song_in_training() -> None:
    for repeat in (0, 1):
        of_repeat = [fold for fold in _folds() if fold.repeat == repeat]
        assert sorted(np.concatenate([fold.test for fold in of_repeat]).tolist()) == list(range(len(SONGS)))
        for fold in of_repeat:
            assert not {SONGS[row] for row in fold.train} & {SONGS[row] for row in fold.test}
            assert sorted([*fold.train, *fold.test]) == list(range(len(SONGS)))
    assert _folds()[0].test.tolist() == _folds()[0].test.tolist() != _folds()[5].test.tolist()


def test_few_songs_are_the_first_of_more_and_the_test_songs_stay() -> None:
    few = comparison.with_few_songs(_folds(), [2, 5, 8], DATA, seed=0)
    assert [fold.songs_per_genre for fold in few] == [2, 5] * 10  # a genre has 8 training songs
    for fold, two, five in zip(_folds(), few[::2], few[1::2], strict=True):
        assert np.array_equal(fold.test, two.test) and np.array_equal(fold.test, five.test)
        assert set(two.train) < set(five.train) < set(fold.train)
        assert np.bincount(LABELS[two.train]).tolist() == [2 * 2] * 4  # two chunks of each song


def test_a_genre_with_fewer_songs_than_folds_is_refused() -> None:
    with pytest.raises(ParamsError, match=r"compare\.folds is 11, but a genre has only 10 songs"):
        comparison.folds(LABELS, SONGS, n_folds=11, n_repeats=1, seed=0)


def test_models_are_ranked_with_their_costs_and_tested_against_the_best() -> None:
    best, worse = _rank(worse=_outcomes(0.4, seed=1), best=_outcomes(0.95))
    assert (best.model, worse.model) == ("best", "worse")
    assert best.scores["p_against_best"] == 1.0 and worse.scores["p_against_best"] < 0.01
    assert worse.scores["song_accuracy"] == pytest.approx(worse.song_accuracies.mean())
    assert (worse.scores["n_songs"], worse.scores["n_repeats"]) == (N_SONGS, 2)
    assert worse.scores["predict_s_per_song"] == pytest.approx(0.5 * len(SONGS) / N_SONGS)
    songs = best.song_accuracies
    one_more_wrong = np.where(np.arange(N_SONGS) == 0, 1 - songs, songs)
    assert comparison.paired_p_value(one_more_wrong, songs) > 0.1


def test_the_ensemble_averages_its_members_and_adds_their_costs() -> None:
    members = {"a": _outcomes(1.0), "b": _outcomes(0.5)}
    combined = comparison.ensemble(members, _folds(), DATA)
    expected = np.mean([outcomes[0].probabilities for outcomes in members.values()], axis=0)
    np.testing.assert_allclose(combined[0].probabilities, calibrate(expected, Calibration()), rtol=1e-5)
    assert combined[0].costs.tolist() == [2.0, 1.0, 200.0]


@pytest.mark.parametrize("level_db", [0.0, 6.0])
def test_a_genre_that_only_its_level_gives_away_is_recognised(project: Path, level_db: float) -> None:
    songs = [f"{genre}/{n}" for n in range(20) for genre in "xy"]
    rows = [Row(f"train/{s}.wav", s[2:], s[0], "train", 0.0, 1.0, f"dataset/{s}", "0") for s in songs]
    for number, row in enumerate(rows):
        noise = np.random.default_rng(number).normal(0, 1000 * 10 ** (level_db / 20 * (row.genre == "y")), RATE)
        chunks.write(project / "chunks" / row.chunk, noise.astype(np.int16), sample_rate=RATE)
    values = recording.properties(rows, Paths())
    guesses = recording.predict(values, rows, np.arange(20), np.arange(20, 40)).argmax(axis=1)
    assert (np.mean(guesses == np.arange(20) % 2) >= 0.95) == (level_db > 0)


@pytest.mark.parametrize("change", recording.CHANGES)
def test_a_change_of_the_stress_test_is_that_of_its_name(change: str) -> None:
    t = np.arange(2 * RATE) / RATE
    tones = 0.4 * np.sin(2 * np.pi * 60 * t) + 0.2 * np.sin(2 * np.pi * 5000 * t)
    samples = np.rint(32767 * tones).astype(np.int16)
    changed = recording.changed(change, samples, RATE)
    assert (np.abs(changed.astype(int)).max() >= 32767) == (change == "gain +6 dB")  # clipped, not wrapped
    before, after = (np.abs(np.fft.rfft(signal * np.hanning(len(t)))) for signal in (samples, changed))
    treble = 8000 + int(after[8000:12000].argmax())
    assert treble / 2 == pytest.approx(5000 * recording.CHANGES[change][0], abs=2)
    gain_db = {"gain +6 dB": (5, 5), "gain -6 dB": (-6, -6), "bass +6 dB, treble -6 dB": (6, -6)}.get(change, (0, 0))
    ratios = after[100:140].max() / before[100:140].max(), after[treble] / before[10_000]
    assert 20 * np.log10(ratios) == pytest.approx(np.array(gain_db), abs=1.7)


def test_a_loss_is_in_points_of_the_unchanged_songs() -> None:
    guesses = np.zeros((20, len(recording.CHANGES)), np.int64)
    guesses[0, 1] = guesses[:3, 2] = guesses[1, :] = 1  # song 1 is wrong unchanged, too
    rows = recording.stress_rows("merged", np.eye(2, dtype=np.float32)[guesses.ravel()], np.zeros(20, np.int64), 20)
    assert [row["loss_points"] for row in rows[:4]] == [0.0, 5.0, 10.0, 0.0]
