"""Training of a network on the features of chunks: augmentation, bagging and calibration.

Designed for 10 to 100 songs per genre: each batch holds random crops of chunks at random levels, mixed in pairs (Zhang
et al. 2018, mixup), with all genres in equal numbers. Several networks, the members, are each trained without one fold
of the songs and averaged (bagging). The calibration is fitted on the members' predictions for their own folds, and
applied to the average.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from genre.features.transforms import MFCC
from genre.models import calibration, networks
from genre.models.calibration import Calibration, Validation, calibrate, validation_folds

if TYPE_CHECKING:
    import keras

    from genre.features.arrays import VectorSet
    from genre.params import TrainParams

Arrays = Mapping[str, npt.NDArray[np.float32]]
Rows = npt.NDArray[np.int64]  # row numbers or labels, one per chunk
Seed = tuple[int, ...]  # of NumPy's generator
Batch = tuple[Arrays, npt.NDArray[np.float32]]  # frames by part, and shares of the genres

VALIDATION_BATCH = 256  # chunks


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network and its validation predictions."""

    model: keras.Model  # raw features of whole chunks to uncalibrated probabilities
    calibration: Calibration  # of the probabilities
    validation: Validation  # calibrated predictions of each member for the chunks that it was not trained on
    validation_accuracy: float | None  # of the members on their own validation chunks; None with one member
    history: list[dict[str, float]]  # loss and accuracy, one row per epoch and member


def fit(data: VectorSet, params: TrainParams, *, model: str, on_epoch: Callable[[], object] = lambda: None) -> Trained:
    """Train a network; the same arguments on the same machine give the same weights.

    Parameters
    ----------
    data : VectorSet
        Raw features, labels and songs of the training chunks, as `arrays.read` returns them.
    model : str
        A key of `networks.MODELS`.
    on_epoch : callable
        Called after each epoch of each member.
    """
    import keras

    inputs = {feature: data.inputs[feature] for feature in networks.MODELS[model]}
    keras.utils.clear_session()  # names of layers count from 1
    keras.utils.set_random_seed(params.seed)
    shapes = {feature: (array.shape[1], array.shape[2]) for feature, array in inputs.items()}
    network = networks.build(model, shapes, len(data.genres), params)
    networks.standardise(network, inputs)
    frontend = network.get_layer("frontend")
    frames = frontend.predict(inputs, verbose=0)
    level = level_direction(frontend, inputs)
    targets = np.eye(len(data.genres), dtype=np.float32)[data.labels]
    held_out = validation_folds(data.labels, data.songs, params.members, data.groups)
    history, predictions = [], []
    for i, rows in enumerate(held_out):
        member = network.get_layer(f"member_{i}")
        training = np.setdiff1d(np.arange(len(targets)), rows)
        batches = augmented(frames, targets, training, level, params, (params.seed, i))
        validation = ({part: values[rows] for part, values in frames.items()}, targets[rows])
        for epoch, scores in enumerate(_train(member, batches, validation, len(training), params)):
            history.append({"member": i, "epoch": epoch, **scores})
            on_epoch()
        predictions.append(member.predict(validation[0], verbose=0) if len(rows) else targets[rows])
    rows, probabilities = np.concatenate(held_out), np.concatenate(predictions)
    labels = data.labels[rows]
    fitted = calibration.fit(probabilities, labels, [data.songs[row] for row in rows])
    return Trained(
        model=network,
        calibration=fitted,
        validation=Validation(rows, calibrate(probabilities, fitted)),
        validation_accuracy=float(np.mean(probabilities.argmax(axis=1) == labels)) if len(labels) else None,
        history=history,
    )


def augmented(
    frames: Arrays, targets: npt.NDArray[np.float32], training: Rows, level: Arrays, params: TrainParams, seed: Seed
) -> Iterator[Batch]:
    """Yield batches of the `training` rows without end: cropped, changed in level and columns, mixed in pairs.

    `level` has by part the change of each column for ten times the amplitude, as `level_direction`.
    """
    changes, rng = params.augmentation, np.random.default_rng(seed)
    order = _balanced(training, targets.argmax(axis=1), rng)
    while True:
        rows = np.fromiter(itertools.islice(order, params.batch_size), np.int64)
        starts = rng.random(len(rows))
        shift = rng.normal(0, changes.level_shift, (len(rows), 1, 1)).astype(np.float32)
        share, partner = _pairs(len(rows), changes.mixup, rng)
        batch = {}
        for part, values in frames.items():
            crops = _crops(values, rows, starts, changes.crop)
            columns = rng.normal(0, changes.column_shift, (len(rows), 1, values.shape[2])).astype(np.float32)
            batch[part] = _mixed(crops + shift * level[part] + columns, share, partner)
        yield batch, _mixed(targets[rows], share, partner)


def _train(
    member: keras.Model, batches: Iterator[Batch], validation: Batch, n_chunks: int, params: TrainParams
) -> Iterator[dict[str, float]]:
    """Train a member and yield its scores after each epoch.

    This is `keras.Model.fit` without its data pipelines, which take half of the time.
    """
    import keras

    steps = -(-n_chunks // params.batch_size)
    n_epochs = max(1, min(params.epochs, params.max_steps // steps))
    rate = keras.optimizers.schedules.CosineDecay(params.optimizer.learning_rate, n_epochs * steps)
    member.compile(
        optimizer=keras.optimizers.AdamW(rate, weight_decay=params.optimizer.weight_decay),
        loss=keras.losses.CategoricalCrossentropy(label_smoothing=params.label_smoothing),
        metrics=["accuracy"],
    )
    stop = params.patience is not None and len(validation[1]) > 0
    early = [keras.callbacks.EarlyStopping(patience=params.patience, restore_best_weights=True)] if stop else []
    callbacks = keras.callbacks.CallbackList(early, model=member)
    member.stop_training = False
    callbacks.on_train_begin()
    for epoch in range(n_epochs):
        member.reset_metrics()
        for x, y in itertools.islice(batches, steps):
            logs = member.train_on_batch(x, y, return_dict=True)
        scores = {name: float(value) for name, value in logs.items()} | _validated(member, *validation)
        yield scores
        callbacks.on_epoch_end(epoch, scores)
        if member.stop_training:
            break
    callbacks.on_train_end()


def _validated(member: keras.Model, inputs: Arrays, targets: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return loss and accuracy of validation chunks, named val_...; empty without chunks."""
    member.reset_metrics()
    logs: Mapping[str, float] = {}
    for start in range(0, len(targets), VALIDATION_BATCH):
        rows = slice(start, start + VALIDATION_BATCH)
        x = {part: frames[rows] for part, frames in inputs.items()}
        logs = member.test_on_batch(x, targets[rows], return_dict=True)
    return {f"val_{name}": float(value) for name, value in logs.items()}


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


def _balanced(training: Rows, genres: Rows, rng: np.random.Generator) -> Iterator[int]:
    """Yield rows without end, one of each genre in turn: all genres have the same weight."""

    def shuffled(rows: Rows) -> Iterator[int]:
        while True:
            yield from rng.permutation(rows).tolist()

    streams = [shuffled(training[genres[training] == genre]) for genre in np.unique(genres[training])]
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


def _pairs(n: int, mixup: float, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], Rows]:
    """Return for each of `n` rows its own share in the mixture (at least half) and its partner."""
    if not mixup:
        return np.ones(n, np.float32), np.arange(n)
    share = rng.beta(mixup, mixup, n)
    return np.maximum(share, 1 - share).astype(np.float32), rng.permutation(n)


def _mixed(values: npt.NDArray[np.float32], share: npt.NDArray[np.float32], partner: Rows) -> npt.NDArray[np.float32]:
    weight = share.reshape(-1, *[1] * (values.ndim - 1))
    return weight * values + (1 - weight) * values[partner]
