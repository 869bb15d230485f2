"""Training on made-up genres: songs stay on one side, the same seed gives the same model, and something is learnt."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from genre.errors import ModelError, VectorError
from genre.models import training

keras = pytest.importorskip("keras")

N_GENRES, N_SONGS, N_CHUNKS = 3, 4, 2  # songs of a genre, chunks of a song
QUICK: dict[str, Any] = {"members": 1, "epochs": 1, "batch_size": 8, "filters": 4, "validation_fraction": 0.25}


def made_up(n_frames: int = 64) -> tuple[dict[str, npt.NDArray[np.float32]], npt.NDArray[np.int64], list[str]]:
    """Features, labels and songs of genres that differ in c1 and in the highest band of the contrast."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(N_GENRES), N_SONGS * N_CHUNKS)
    songs = [f"g{genre}/s{i // N_CHUNKS % N_SONGS}" for i, genre in enumerate(labels)]
    mfcc = rng.normal(0, 1, (len(labels), n_frames, 20))
    mfcc[:, :, 1] += 3 * labels[:, None]
    peaks = 10 ** rng.normal(0, 0.3, (len(labels), 2 * n_frames, 7))
    peaks[:, :, 6] *= 10.0 ** labels[:, None]
    inputs = {"mfcc_coefficients": mfcc, "spectral-contrast_peaks": peaks, "spectral-contrast_valleys": peaks / 100}
    return {feature: array.astype(np.float32) for feature, array in inputs.items()}, labels, songs


def fit(**options: Any) -> training.Trained:
    inputs, labels, songs = made_up()
    return training.fit(inputs, labels, songs, n_genres=N_GENRES, **{"model": "mfcc", **QUICK, **options})


class Listener(keras.callbacks.Callback):  # type: ignore[misc,name-defined]
    """Notes what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.told: list[Any] = []

    def on_train_begin(self, logs: Any = None) -> None:
        self.told.append("begin")

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.told.append((epoch, logs["member"], "val_accuracy" in logs))

    def on_train_end(self, logs: Any = None) -> None:
        self.told.append("end")


@pytest.fixture(scope="module")
def listener() -> Listener:
    return Listener()


@pytest.fixture(scope="module")
def trained_on() -> list[set[str]]:
    return []


@pytest.fixture(scope="module")
def trained(listener: Listener, trained_on: list[set[str]]) -> training.Trained:
    """A merged model of two members; `trained_on` is filled with the songs of each."""
    batches = training._batches
    songs = made_up()[2]

    def spy(prepared: Any, targets: Any, rows: Any, *rest: Any) -> Any:
        trained_on.append({songs[row] for row in rows})
        return batches(prepared, targets, rows, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "_batches", spy)
        return fit(model="merged", members=2, epochs=2, callbacks=[listener])


def test_genres_that_differ_are_learnt() -> None:
    learnt = fit(epochs=40, learning_rate=0.01, mixup=0.0, dropout=0.0, filters=8)
    inputs, labels, _ = made_up()
    probabilities = learnt.model.predict({"mfcc_coefficients": inputs["mfcc_coefficients"]}, verbose=0)
    assert np.mean(probabilities.argmax(axis=1) == labels) > 0.9
    assert learnt.validation_accuracy > 0.8


def test_lstm2016_trains_with_the_same_call() -> None:
    old = fit(model="spectral_contrast", architecture="lstm2016")
    assert math.isfinite(old.history[-1]["loss"])


def test_validation_songs_are_of_every_genre_and_differ_between_members(trained: training.Trained) -> None:
    first, second = trained.validation_songs
    assert not first & second
    assert {song.split("/")[0] for song in first} == {"g0", "g1", "g2"}


def test_no_chunk_of_a_validation_song_is_trained_on(trained: training.Trained, trained_on: list[set[str]]) -> None:
    for used, left_out in zip(trained_on, trained.validation_songs, strict=True):
        assert used.isdisjoint(left_out)
        assert used | left_out == set(made_up()[2])


def test_callbacks_see_the_members_as_one_training(trained: training.Trained, listener: Listener) -> None:
    assert listener.told == ["begin", (0, 0, True), (1, 0, True), (2, 1, True), (3, 1, True), "end"]
    assert [(row["member"], row["epoch"]) for row in trained.history] == [(0, 0), (0, 1), (1, 0), (1, 1)]


def test_a_level_shift_moves_the_prepared_columns_as_a_louder_recording_does(trained: training.Trained) -> None:
    inputs, _, _ = made_up()
    frontend = trained.model.get_layer("frontend")
    louder = {feature: array * np.float32(2) for feature, array in inputs.items()}
    louder["mfcc_coefficients"] = inputs["mfcc_coefficients"].copy()
    louder["mfcc_coefficients"][..., 0] += np.float32(math.sqrt(40) * math.log10(2))  # c0 sums 40 logarithms
    moved = frontend.predict(louder, verbose=0)["fused"] - frontend.predict(inputs, verbose=0)["fused"]
    direction = training._level_direction(frontend, inputs)["fused"]
    np.testing.assert_allclose(np.median(moved, axis=(0, 1)), direction * math.log10(2), atol=1e-3)


def test_without_validation_songs_the_temperature_is_1() -> None:
    everything = fit(validation_fraction=0.0)
    assert everything.temperature == 1.0
    assert math.isnan(everything.validation_accuracy)
    assert everything.validation_songs == (frozenset(),)


def test_the_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    first, second, other = (fit(seed=seed).model.get_weights() for seed in (7, 7, 8))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(first, other, strict=True))


def test_max_steps_ends_the_training_before_the_epochs_do() -> None:
    steps = math.ceil(N_GENRES * (N_SONGS - 1) * N_CHUNKS / QUICK["batch_size"])
    assert [row["epoch"] for row in fit(epochs=50, max_steps=2 * steps).history] == [0, 1]


def test_patience_ends_a_training_that_gets_no_better() -> None:
    inputs, labels, songs = made_up()
    options = QUICK | {"epochs": 12, "members": 1, "learning_rate": 1.0, "validation_fraction": 0.3, "patience": 1}
    assert len(training.fit(inputs, labels, songs, model="mfcc", n_genres=N_GENRES, **options).history) < 12


def test_a_genre_of_one_song_keeps_it_for_training() -> None:
    labels = np.array([0, 0, 0, 1])
    (rows,) = training._validation_rows(labels, ["a", "b", "c", "d"], 0.25, 1, np.random.default_rng(0))
    assert len(rows) == 1
    assert labels[rows].tolist() == [0]


def test_every_chunk_of_a_validation_song_is_left_out() -> None:
    songs = ["a", "b", "a", "b", "a"]
    for rows in training._validation_rows(np.zeros(5, int), songs, 0.5, 2, np.random.default_rng(0)):
        left_out = {songs[row] for row in rows}
        assert len(left_out) == 1
        assert rows.tolist() == [i for i, song in enumerate(songs) if song in left_out]


def test_rare_genres_fill_batches_as_much_as_common_ones() -> None:
    genres = np.array([0] * 90 + [1] * 10)
    order = training._balanced(np.arange(100), genres, np.random.default_rng(0))
    drawn = [next(order) for _ in range(180)]
    assert np.mean(genres[drawn]) == 0.5
    assert set(drawn) == set(range(100))


def test_the_temperature_of_a_model_that_is_too_sure_makes_it_as_sure_as_it_is_right() -> None:
    truth = np.arange(100) % 2
    answer = np.where(np.arange(100) < 70, truth, 1 - truth)
    sure = np.where(np.eye(2)[answer] == 1, 0.9, 0.1).astype(np.float32)
    temperature = training._temperature(sure, truth)
    assert temperature == pytest.approx(math.log(0.9 / 0.1) / math.log(0.7 / 0.3), rel=0.01)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"songs": ["a"]}, "1 songs"),
        ({"labels": np.full(N_GENRES * N_SONGS * N_CHUNKS, N_GENRES)}, "0 to 2"),
        ({"inputs": {"mfcc_coefficients": np.zeros((2, 64, 20), np.float32)}}, "mfcc_coefficients"),
    ],
)
def test_rows_that_do_not_fit_together_are_refused(change: dict[str, Any], named: str) -> None:
    inputs, labels, songs = made_up()
    rows: dict[str, Any] = {"inputs": inputs, "labels": labels, "songs": songs, **change}
    with pytest.raises(VectorError, match=named):
        training.fit(**rows, model="mfcc", n_genres=N_GENRES, **QUICK)


def test_a_missing_feature_is_named() -> None:
    inputs, labels, songs = made_up()
    del inputs["spectral-contrast_valleys"]
    with pytest.raises(ModelError, match="spectral-contrast_valleys"):
        training.fit(inputs, labels, songs, model="merged", n_genres=N_GENRES, **QUICK)
