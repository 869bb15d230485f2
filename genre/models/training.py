"""Training of a network on the features of chunks: augmentation, bagging and calibration.

Designed for 10 to 100 songs per genre: each batch holds random crops of chunks at random levels, mixed in pairs (Zhang
et al. 2018, mixup), with all genres in equal numbers. Several networks, the members, are each trained without one fold
of the songs and averaged (bagging). They share the batches; a chunk has no weight in the loss of the member that holds
it out. The calibration is fitted on the members' predictions for their own folds, and applied to the average.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import numpy.typing as npt

from genre.features.arrays import VectorSet
from genre.features.transforms import MFCC
from genre.models import calibration, networks
from genre.models.calibration import Calibration, Rows, Validation, calibrate, validation_folds
from genre.params import TrainParams

if TYPE_CHECKING:
    import keras

Arrays = Mapping[str, npt.NDArray[np.float32]]
Targets = npt.NDArray[np.float32]  # shares of the genres [shape=(chunks, members, genres)]
Batch = tuple[Arrays, Targets, npt.NDArray[np.float32]]  # frames by part, targets, weights [shape=(chunks, members)]

VALIDATION_EPOCHS = 10  # epochs from one validation to the next, without early stopping


class Trained(NamedTuple):
    """A trained network and its validation predictions."""

    model: keras.Model  # raw features of whole chunks to uncalibrated probabilities
    calibration: Calibration  # of the probabilities
    validation: Validation  # calibrated predictions of each member for the chunks that it was not trained on
    validation_accuracy: float | None  # of the members on their own validation chunks; None without any
    history: list[dict[str, float]]  # loss and accuracy, one row per epoch; val_... of some epochs


def fit(data: VectorSet, params: TrainParams, *, model: str, on_epoch: Callable[[], object] = lambda: None) -> Trained:
    """Train a network, a key of `networks.MODELS`; the same arguments on the same machine give the same weights.

    `data` are raw features, labels, songs and groups of the training chunks, as `arrays.read` returns them. `on_epoch`
    is called after each epoch.
    """
    import keras

    inputs = {feature: data.inputs[feature] for feature in networks.MODELS[model]}
    keras.utils.clear_session()  # names of layers count from 1
    keras.utils.set_random_seed(params.seed)
    shapes = {feature: (array.shape[1], array.shape[2]) for feature, array in inputs.items()}
    network = networks.build(model, shapes, len(data.genres), params)
    networks.standardise(network, inputs)
    frontend, members = network.get_layer("frontend"), network.get_layer("members")
    frames = frontend.predict(inputs, verbose=0)
    level = level_direction(frontend, inputs)
    held_out = validation_folds(data.labels, data.songs, params.members, data.groups)
    folds = np.full(len(data.labels), -1)
    for i, rows in enumerate(held_out):
        folds[rows] = i
    history = _train(members, frames, data.labels, folds, level, params, on_epoch)
    rows = np.concatenate(held_out)
    probabilities = members.predict(frames, verbose=0)[rows, folds[rows]]
    labels = data.labels[rows]
    fitted = calibration.fit(probabilities, labels, [data.songs[row] for row in rows])
    return Trained(
        model=network,
        calibration=fitted,
        validation=Validation(rows, calibrate(probabilities, fitted)),
        validation_accuracy=float(np.mean(probabilities.argmax(axis=1) == labels)) if len(labels) else None,
        history=history,
    )


def schedule(n_chunks: int, params: TrainParams) -> tuple[int, int]:
    """Return the number of epochs, without early stopping, and the steps of each."""
    steps = -(-n_chunks // params.batch_size)
    return max(1, min(params.epochs, params.max_steps // steps)), steps


def augmented(frames: Arrays, targets: Targets, folds: Rows, level: Arrays, params: TrainParams) -> Iterator[Batch]:
    """Yield batches without end: cropped, changed in level and columns, mixed in pairs of one fold.

    `targets` has the shares of the genres [shape=(chunks, members, genres)], `folds` the member that does not train on
    a chunk or -1, and `level` by part the change of each column for ten times the amplitude, as `level_direction`.
    """
    changes, rng = params.augmentation, np.random.default_rng(params.seed)
    order = _balanced(targets[:, 0].argmax(axis=1), rng)
    while True:
        rows = np.fromiter(itertools.islice(order, params.batch_size), np.int64)
        starts = rng.random(len(rows))
        shift = rng.normal(0, changes.level_shift, (len(rows), 1, 1)).astype(np.float32)
        share, partner = _pairs(folds[rows], changes.mixup, rng)
        batch = {}
        for part, values in frames.items():
            crops = _crops(values, rows, starts, changes.crop)
            columns = rng.normal(0, changes.column_shift, (len(rows), 1, values.shape[2])).astype(np.float32)
            batch[part] = _mixed(crops + shift * level[part] + columns, share, partner)
        yield batch, _mixed(targets[rows], share, partner), _trains(folds[rows], params.members)


def _train(
    members: keras.Model,
    frames: Arrays,
    labels: Rows,
    folds: Rows,
    level: Arrays,
    params: TrainParams,
    on_epoch: Callable[[], object],
) -> list[dict[str, float]]:
    """Train all members and return their scores in each epoch, the means over the batches and the members.

    This is `keras.Model.fit` without its data pipelines, which take a third of the CPU time.
    """
    import keras

    n_genres = members.output_shape[-1]
    targets = np.repeat(np.eye(n_genres, dtype=np.float32)[labels][:, None], params.members, axis=1)
    held_out = 1 - _trains(folds, params.members)
    n_epochs, steps = schedule(len(labels), params)
    rate = keras.optimizers.schedules.CosineDecay(params.optimizer.learning_rate, n_epochs * steps)
    members.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=params.optimizer.weight_decay),
        loss=keras.losses.CategoricalCrossentropy(
            label_smoothing=params.label_smoothing, reduction="mean_with_sample_weight"
        ),
        weighted_metrics=["accuracy"],
    )
    batches = augmented(frames, targets, folds, level, params)
    validated = bool(held_out.any())
    stop = params.patience is not None and validated
    early = [keras.callbacks.EarlyStopping(patience=params.patience, restore_best_weights=True)] if stop else []
    callbacks = keras.callbacks.CallbackList(early, model=members)
    members.stop_training = False
    callbacks.on_train_begin()
    history = []
    for epoch in range(n_epochs):
        of_epoch = itertools.islice(batches, steps)
        all_logs = [members.train_on_batch(x, y, weights, return_dict=True) for x, y, weights in of_epoch]
        scores = {name: float(np.mean([logs[name] for logs in all_logs])) for name in all_logs[0]}
        if validated and (stop or (n_epochs - epoch) % VALIDATION_EPOCHS == 1):
            logs = members.evaluate(frames, targets, sample_weight=held_out, return_dict=True, verbose=0)
            scores |= {f"val_{name}": float(value) for name, value in logs.items()}
        history.append(scores)
        on_epoch()
        callbacks.on_epoch_end(epoch, scores)
        if members.stop_training:
            break
    callbacks.on_train_end()
    return history


def level_direction(frontend: keras.Model, inputs: Arrays) -> dict[str, npt.NDArray[np.float32]]:
    """Return the change of each column of the frontend for ten times the amplitude, by part [shape=(columns,)].

    c0 of the MFCC is sqrt(1/40) times a sum of 40 base-10 logarithms; magnitudes are proportional to the amplitude.
    """
    gain = 0.1  # powers of ten: small, so that few values are clipped
    first = {feature: array[:1] for feature, array in inputs.items()}
    louder = {feature: array * np.float32(10**gain) for feature, array in first.items()}
    if MFCC.feature in first:
        louder[MFCC.feature] = first[MFCC.feature].copy()
        louder[MFCC.feature][..., 0] += math.sqrt(40) * gain
    before, after = frontend.predict(first, verbose=0), frontend.predict(louder, verbose=0)
    return {part: np.median(after[part] - before[part], axis=(0, 1)) / np.float32(gain) for part in before}


def _balanced(genres: Rows, rng: np.random.Generator) -> Iterator[int]:
    """Yield rows without end, one of each genre in turn: all genres have the same weight."""

    def shuffled(rows: Rows) -> Iterator[int]:
        while True:
            yield from rng.permutation(rows).tolist()

    streams = [shuffled(np.flatnonzero(genres == genre)) for genre in np.unique(genres)]
    while True:
        for i in rng.permutation(len(streams)):
            yield next(streams[i])


def _crops(
    frames: npt.NDArray[np.float32], rows: Rows, starts: npt.NDArray[np.float64], crop: float
) -> npt.NDArray[np.float32]:
    """Return a crop of each row [shape=(rows, frames, columns)]; `starts` are 0 for the first and 1 for the last."""
    length = max(1, round(crop * frames.shape[1]))
    first = np.rint(starts * (frames.shape[1] - length)).astype(int)
    return np.stack([frames[row, i : i + length] for row, i in zip(rows, first, strict=True)])


def _pairs(folds: Rows, mixup: float, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], Rows]:
    """Return for each row of a batch its own share in the mixture (at least half) and its partner, of the same fold."""
    if not mixup:
        return np.ones(len(folds), np.float32), np.arange(len(folds))
    share, shuffled = rng.beta(mixup, mixup, len(folds)), rng.permutation(len(folds))
    partner = np.empty(len(folds), np.int64)
    partner[np.argsort(folds, kind="stable")] = shuffled[np.argsort(folds[shuffled], kind="stable")]
    return np.maximum(share, 1 - share).astype(np.float32), partner


def _mixed(values: npt.NDArray[np.float32], share: npt.NDArray[np.float32], partner: Rows) -> npt.NDArray[np.float32]:
    weight = share.reshape(-1, *[1] * (values.ndim - 1))
    return weight * values + (1 - weight) * values[partner]


def _trains(folds: Rows, n_members: int) -> npt.NDArray[np.float32]:
    """Return 1 where a member trains on a row, and 0 where it holds it out [shape=(rows, members)]."""
    trains: npt.NDArray[np.bool_] = folds[:, None] != np.arange(n_members)
    return trains.astype(np.float32)
