"""The ensemble: an average, calibrated and chosen on songs that its models had not seen."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from genre.errors import ModelError
from genre.features.settings import Settings
from genre.models import ensemble, unknown
from genre.models.ensemble import Validation, combine

GENRES = ["a", "b"]
SETTINGS = Settings(22_050, 30.0, 10.0).to_dict()
LABELS = np.array([0, 1] * 10)
SONGS = [str(n) for n in range(20)]


def _validation(right: float, confidence: float, seed: int = 0) -> Validation:
    """Return what a model that is right for a share of the songs says of them."""
    wrong = np.random.default_rng(seed).permutation(20) >= right * 20
    guesses = np.where(wrong, 1 - LABELS, LABELS)
    probabilities = np.full((20, 2), 1 - confidence, np.float32)
    probabilities[np.arange(20), guesses] = confidence
    return Validation(np.arange(20), probabilities)


def _fit(**validations: Validation) -> ensemble.EnsembleCard:
    return ensemble.fit(validations, LABELS, SONGS, genres=GENRES, settings=SETTINGS)


@given(st.floats(0.2, 5.0), st.integers(0, 100))
def test_what_it_says_are_probabilities_and_a_temperature_never_changes_the_order(
    temperature: float, seed: int
) -> None:
    members = [np.random.default_rng(seed + i).dirichlet(np.ones(3), 4).astype(np.float32) for i in range(2)]
    combined = combine(members, temperature)
    assert combined.sum(axis=1) == pytest.approx(1.0, abs=1e-5)
    assert combined.argmax(axis=1).tolist() == np.mean(members, axis=0, dtype=np.float64).argmax(axis=1).tolist()


def test_too_much_confidence_is_flattened_and_too_little_sharpened() -> None:
    assert _fit(merged=_validation(0.7, 0.99)).temperature > 1.5
    assert _fit(merged=_validation(0.95, 0.6)).temperature < 0.7


def test_query_answers_with_the_ensemble_only_where_it_is_better() -> None:
    better = _fit(merged=_validation(0.6, 0.7), knn=_validation(1.0, 0.99))
    assert better.default == "ensemble"
    worse = _fit(merged=_validation(1.0, 0.99), knn=_validation(0.5, 0.99))
    assert worse.default == "merged"
    assert worse.scores["merged"]["song_accuracy"] == 1.0


def test_only_songs_that_all_models_left_out_count() -> None:
    half = _validation(1.0, 0.9)
    card = _fit(merged=Validation(half.rows[:10], half.probabilities[:10]), knn=half)
    assert card.scores["knn"]["n_songs"] == 10
    with pytest.raises(ModelError, match="no validation song in common"):
        _fit(
            merged=Validation(half.rows[:10], half.probabilities[:10]),
            knn=Validation(half.rows[10:], half.probabilities[10:]),
        )


def test_a_card_is_read_back_and_the_default_follows_it(tmp_path: Path) -> None:
    assert ensemble.default_model(tmp_path) == "merged"
    card = _fit(merged=_validation(0.6, 0.7), knn=_validation(1.0, 0.99))
    ensemble.write(card, tmp_path)
    assert ensemble.read(tmp_path) == card
    assert ensemble.default_model(tmp_path) == "ensemble"


@pytest.mark.parametrize("change", [{"temperature": 0}, {"models": []}, {"models": ["ensemble"]}, {"extra": 1}])
def test_a_damaged_card_is_refused(tmp_path: Path, change: dict[str, object]) -> None:
    ensemble.write(_fit(merged=_validation(0.6, 0.7)), tmp_path)
    path = ensemble.card_path(tmp_path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ModelError, match="is damaged"):
        ensemble.read(tmp_path)


def _many() -> tuple[Validation, np.ndarray, list[str]]:
    labels = np.arange(100) % 5
    logits = np.random.default_rng(0).normal(0, 1, (100, 5))
    logits[np.arange(100), labels] += 3
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    return Validation(np.arange(100), probabilities.astype(np.float32)), labels, [str(n) for n in range(100)]


def test_every_model_is_unknown_below_the_threshold_of_the_rate_that_was_asked_for(tmp_path: Path) -> None:
    validation, labels, songs = _many()
    of_network = ensemble.fit_unknown([validation], labels, songs)
    assert ensemble.unknown_threshold(of_network, tmp_path) is None  # without an ensemble nobody has asked
    for far in (None, 0.05, 0.2):
        found = ensemble.fit({"merged": validation}, labels, songs, genres=GENRES, settings=SETTINGS, unknown_far=far)
        ensemble.write(found, tmp_path)
        least = ensemble.unknown_threshold(of_network, tmp_path)
        assert (least is None) == (far is None)
        if far is not None:
            assert least == pytest.approx(unknown.threshold(of_network, far))
            assert ensemble.unknown_threshold(ensemble.read(tmp_path).unknown, tmp_path) is not None


def test_a_model_without_validation_songs_has_no_threshold() -> None:
    nothing = Validation(np.empty(0, np.int64), np.empty((0, 5), np.float32))
    assert ensemble.fit_unknown([nothing], np.arange(5), list("abcde")) is None


def test_validation_predictions_are_read_back(tmp_path: Path) -> None:
    made = _validation(0.8, 0.9)
    ensemble.write_validation(tmp_path / "v.csv", made, ["with, comma", "# hash"])
    found = ensemble.read_validation(tmp_path / "v.csv")
    assert np.array_equal(found.rows, made.rows)
    assert np.array_equal(found.probabilities, made.probabilities)


def test_missing_validation_predictions_say_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="dvc repro"):
        ensemble.read_validation(tmp_path / "v.csv")
