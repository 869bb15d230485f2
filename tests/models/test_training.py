"""Training on made-up genres: validation songs are held out, and the same seed gives the same network."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest

from genre.models import training
from tests.models.conftest import SONGS, feature_set, train_params

pytest.importorskip("keras")


def fit(model: str = "mfcc", **changes: Any) -> training.Trained:
    return training.fit(feature_set(), train_params(**changes), model=model)


@pytest.mark.slow
def test_a_network_learns_genres_that_differ() -> None:
    network, data = fit(epochs=40, members=4, learning_rate=0.01, mixup=0.0, dropout=0.0, filters=8), feature_set()
    probabilities = network.model.predict({"mfcc_coefficients": data.inputs["mfcc_coefficients"]}, verbose=0)
    assert np.mean(probabilities.argmax(axis=1) == data.labels) > 0.9
    assert network.validation_accuracy and network.validation_accuracy > 0.8


@pytest.mark.slow
def test_each_song_is_held_out_by_one_member(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = [song[:-1] + str(int(song[-1]) in (0, 3)) for song in SONGS]  # not the blocks of neighbouring names
    monkeypatch.setattr(training, "augmented", spy := Mock(wraps=training.augmented))
    trained = training.fit(replace(feature_set(), groups=groups), train_params(members=2, epochs=2), model="merged")
    held_out = np.split(trained.validation.rows, 2)
    assert [np.flatnonzero(spy.call_args.args[2] == i).tolist() for i in (0, 1)] == [rows.tolist() for rows in held_out]
    assert sorted(np.concatenate(held_out).tolist()) == list(range(len(groups)))
    assert not {groups[row] for row in held_out[0]} & {groups[row] for row in held_out[1]}
    assert [{"loss", "val_loss"} <= scores.keys() for scores in trained.history] == [False, True]


def test_a_member_trains_on_all_chunks_but_those_of_its_fold() -> None:
    folds, targets = np.arange(12) % 3, np.repeat(np.eye(2, dtype=np.float32)[np.arange(12) % 2][:, None], 3, axis=1)
    frames = {"row": np.eye(12, dtype=np.float32)[:, None]}  # as columns: which chunks are mixed
    params = train_params(members=3, crop=1.0, level_shift=0.0, column_shift=0.0)
    batches = training.augmented(frames, targets, folds, {"row": np.zeros(12, np.float32)}, params)
    mixed, weights = zip(*((x["row"][:, 0], w) for x, _, w in itertools.islice(batches, 9)), strict=True)
    shares = np.concatenate(mixed)
    np.testing.assert_allclose(1 - np.concatenate(weights), shares @ np.eye(3)[folds], atol=1e-6)
    assert shares.any(axis=0).all() and np.count_nonzero(shares, axis=1).max() == 2


@pytest.mark.slow
def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, second, other = (fit(seed=seed).model.get_weights() for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


@pytest.mark.slow
def test_max_steps_and_patience_end_a_training_before_its_epochs_do_also_of_lstm2016() -> None:
    limits = {"epochs": 50, "max_steps": 2 * math.ceil(len(SONGS) / 8)}
    history = fit("spectral_contrast", architecture="lstm2016", **limits).history
    assert (len(history), math.isfinite(history[-1]["loss"])) == (2, True)
    assert len(fit(epochs=12, members=2, learning_rate=1.0, patience=1).history) < 12


def test_rare_genres_fill_batches_as_much_as_common_ones() -> None:
    targets = np.eye(2, dtype=np.float32)[[0] * 90 + [1] * 10][:, None]
    frames = {"fused": np.arange(100, dtype=np.float32).reshape(100, 1, 1)}
    params = train_params(batch_size=20, crop=1.0, level_shift=0.0, column_shift=0.0, mixup=0.0)
    batches = training.augmented(frames, targets, np.zeros(100, int), {"fused": np.zeros(1, np.float32)}, params)
    drawn, shares, _ = zip(*(next(batches) for _ in range(9)), strict=True)
    assert np.mean(shares, axis=(0, 1, 2)).tolist() == [0.5, 0.5]
    assert {float(x) for batch in drawn for x in batch["fused"].ravel()} == set(range(100))
