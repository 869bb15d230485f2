"""Thresholds for "unknown": they hold their rate on songs of a genre left out, and say what they cost."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from genre.models import unknown

N_GENRES = 5
N_SONGS = 200


def _answers(seed: int = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[str]]:
    """Return what a model says of songs of two chunks each: mostly right, the rest spread at random."""
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(N_SONGS) % N_GENRES, 2)
    logits = rng.normal(0, 1, (2 * N_SONGS, N_GENRES))
    logits[np.arange(len(labels)), labels] += 4
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return probabilities.astype(np.float32), labels, [f"song {n // 2}" for n in range(2 * N_SONGS)]


def _fit() -> dict[str, object]:
    probabilities, labels, songs = _answers()
    fitted = unknown.fit(probabilities, unknown.strike(probabilities, labels), labels, songs)
    assert fitted is not None
    return fitted


def test_a_genre_that_is_struck_out_has_no_probability_and_the_rest_keep_their_shares() -> None:
    probabilities, labels, _ = _answers()
    struck = unknown.strike(probabilities, labels)
    assert struck[0, labels[0]] == 0
    assert struck.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    others = [genre for genre in range(N_GENRES) if genre != labels[0]]
    assert struck[0, others] == pytest.approx(probabilities[0, others] / probabilities[0, others].sum(), rel=1e-4)


@pytest.mark.parametrize("far", [0.05, 0.2, 0.5])
def test_songs_of_other_genres_get_a_name_at_the_rate_asked_for(far: float) -> None:
    least = unknown.threshold(_fit(), far)
    assert least is not None
    rng = np.random.default_rng(1)  # a model of four genres about songs of a fifth
    logits = rng.normal(0, 1, (4_000, 2, N_GENRES - 1))
    strangers = np.exp(logits) / np.exp(logits).sum(axis=2, keepdims=True)
    votes = strangers.mean(axis=1).max(axis=1)
    assert np.mean(votes >= least) == pytest.approx(far, abs=0.08)


def test_a_lower_rate_costs_more_right_answers() -> None:
    rates = _fit()["rates"]
    assert isinstance(rates, list)
    assert [rate["far"] for rate in rates] == list(unknown.RATES)
    for key in ("threshold", "lost"):
        values = [rate[key] for rate in rates]
        assert values == sorted(values, reverse=True)
    assert rates[0]["lost"] > rates[-1]["lost"]


def test_few_songs_hold_no_low_rate() -> None:
    probabilities, labels, songs = _answers()
    few = slice(0, 40)  # 20 songs
    fitted = unknown.fit(probabilities[few], unknown.strike(probabilities, labels)[few], labels[few], songs[few])
    assert fitted is not None
    assert fitted["songs"] == 20
    assert unknown.threshold(fitted, 0.02) is None
    assert unknown.threshold(fitted, 0.05) is not None


def test_few_genres_hold_no_rate() -> None:
    probabilities, labels, songs = _answers()
    of_two = np.flatnonzero(labels < 2)
    found = probabilities[of_two, :2]
    names = [songs[row] for row in of_two]
    assert unknown.fit(found, unknown.strike(found, labels[of_two]), labels[of_two], names) is None


def test_between_two_rates_the_stricter_one_counts_and_without_a_rate_everything_gets_a_name() -> None:
    fitted = _fit()
    assert unknown.threshold(fitted, 0.15) == unknown.threshold(fitted, 0.1)
    assert unknown.threshold(fitted, None) is None
    assert unknown.threshold(None, 0.05) is None
