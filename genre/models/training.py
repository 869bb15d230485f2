"""Trains a genre model on the features of chunks: augmentation, validation songs, averaging, calibration.

Made for few songs (10 to 100 per genre): every batch holds random pieces of chunks at random levels, mixed in
pairs (Zhang et al. 2018, mixup), drawn evenly from the genres. Several networks are trained, each without
another part of the songs, and averaged; the songs that a network has not seen calibrate the average.
"""

from __future__ import annotations

import functools
import itertools
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genre.errors import VectorError
from genre.features.transforms import MFCC
from genre.models import networks
from genre.models.ensemble import Validation

if TYPE_CHECKING:
    import keras

Arrays = Mapping[str, npt.NDArray[np.float32]]
Rows = npt.NDArray[np.int64]  # row numbers or labels, one per chunk
Batch = tuple[Arrays, npt.NDArray[np.float32]]  # frames by part, and shares of the genres

LOG = logging.getLogger(__name__)
VALIDATION_BATCH = 256  # chunks
TEMPERATURES_LOG = (math.log(0.2), math.log(5.0))  # few validation songs must not make it extreme


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model and what its validation songs say about it."""

    model: keras.Model  # raw features of whole chunks to probabilities
    validation_songs: tuple[frozenset[str], ...]  # of each member; no other member leaves them out
    validation: Validation  # what the members say of the chunks that they left out, calibrated
    validation_accuracy: float  # of the members on their own validation chunks; nan without validation songs
    temperature: float  # 1 without validation songs
    history: tuple[dict[str, float], ...]  # one row per epoch and member


def fit(
    inputs: Arrays,
    labels: npt.NDArray[np.integer[Any]],
    songs: Sequence[str],
    *,
    model: str,
    architecture: str = "conv1d",
    n_genres: int,
    seed: int = 0,
    members: int = 5,
    epochs: int = 160,
    max_steps: int = 2000,
    batch_size: int = 16,
    learning_rate: float = 2e-3,
    weight_decay: float = 1e-2,
    dropout: float = 0.4,
    filters: int = 32,
    crop: float = 0.5,
    level_shift: float = 0.3,
    column_shift: float = 0.3,
    mixup: float = 0.4,
    label_smoothing: float = 0.1,
    validation_fraction: float = 0.1,
    patience: int | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Trained:
    """Train a model; the same arguments on the same machine give the same weights.

    Parameters
    ----------
    inputs
        Raw features by name, float32 (chunks, frames, columns) each.
    labels
        Genre of each chunk, (chunks,), 0 to n_genres - 1.
    songs
        Song of each chunk.
    model, architecture, n_genres, members, filters, dropout
        As in `architectures.build`.
    seed
        Of the weights, the validation songs and the augmentation.
    epochs
        Passes over the chunks for each member.
    max_steps
        Batches for each member at most; on many chunks it ends the training before `epochs` do.
    batch_size
        Chunks in a batch.
    learning_rate, weight_decay
        Of AdamW; the rate falls to 0 along a cosine.
    crop
        Share of a chunk that a batch sees of it.
    level_shift
        Standard deviation of the random change of a chunk's level, in powers of ten of the amplitude.
    column_shift
        Standard deviation of the random change of each column, constant over a piece, as of another room or
        recording, in standard deviations of the column.
    mixup
        Parameter of the beta distribution that pairs are mixed by; 0 switches it off.
    label_smoothing
        Share of the target that is spread over all genres.
    validation_fraction
        Share of each genre's songs that a member does not train on; 0 for none.
    patience
        Epochs without a lower validation loss after which a member stops and goes back to its best weights.
    callbacks
        Told `on_train_begin`, `on_epoch_end` (epochs counted on from member to member), `on_train_end`.

    Returns
    -------
    Trained
        With the model ready for prediction and export.

    Raises
    ------
    VectorError
        When the arrays, labels and songs do not fit together.
    ModelError
        As `architectures.build`.
    """
    import keras

    genres = labels.astype(np.int64)
    seen = _checked(inputs, genres, songs, model, n_genres)
    keras.utils.set_random_seed(seed)
    complete = networks.build(
        model,
        architecture=architecture,
        inputs={feature: (array.shape[1], array.shape[2]) for feature, array in seen.items()},
        n_genres=n_genres,
        members=members,
        filters=filters,
        dropout=dropout,
    )
    networks.standardise(complete, seen)
    frontend = complete.get_layer("frontend")
    prepared = frontend.predict(seen, verbose=0)
    augmentation = _Augmentation(batch_size, crop, level_shift, column_shift, mixup, _level_direction(frontend, seen))
    targets = np.eye(n_genres, dtype=np.float32)[genres]
    held_out = _validation_rows(genres, songs, validation_fraction, members, np.random.default_rng(seed))
    progress = _Progress(callbacks, complete)
    unseen: list[npt.NDArray[np.float32]] = []
    for i, rows in enumerate(held_out):
        member = complete.get_layer(f"member_{i}")
        training = np.setdiff1d(np.arange(len(genres)), rows)
        steps = -(-len(training) // batch_size)
        n_epochs = max(1, min(epochs, max_steps // steps))
        rate = keras.optimizers.schedules.CosineDecay(learning_rate, n_epochs * steps)
        member.compile(
            optimizer=keras.optimizers.AdamW(rate, weight_decay=weight_decay),
            loss=keras.losses.CategoricalCrossentropy(label_smoothing=label_smoothing),
            metrics=["accuracy"],
        )
        validation = (_rows(prepared, rows), targets[rows])
        _train(
            member,
            _batches(prepared, targets, training, augmentation, np.random.default_rng((seed, i))),
            validation,
            steps=steps,
            epochs=n_epochs,
            patience=patience,
            on_epoch_end=functools.partial(progress.add, i),
        )
        unseen.append(member.predict(validation[0], verbose=0) if len(rows) else targets[rows])
    progress.end()
    probabilities, truth = np.concatenate(unseen), genres[np.concatenate(held_out)]
    temperature = _temperature(probabilities, truth)
    networks.set_temperature(complete, temperature)
    calibrated = probabilities.astype(np.float64) ** (1 / temperature)
    calibrated /= calibrated.sum(axis=1, keepdims=True)
    return Trained(
        model=complete,
        validation=Validation(np.concatenate(held_out), calibrated.astype(np.float32)),
        validation_songs=tuple(frozenset(songs[row] for row in rows) for rows in held_out),
        validation_accuracy=float(np.mean(probabilities.argmax(axis=1) == truth)) if len(truth) else math.nan,
        temperature=temperature,
        history=tuple(progress.history),
    )


@dataclass(frozen=True, slots=True)
class _Augmentation:
    batch_size: int
    crop: float
    level_shift: float
    column_shift: float
    mixup: float
    level: Mapping[str, npt.NDArray[np.float32]]  # what ten times the amplitude adds to a part's columns


class _Progress:
    """Passes the epochs of all members on to the callbacks as one training."""

    def __init__(self, callbacks: Sequence[keras.callbacks.Callback], model: keras.Model) -> None:
        import keras

        self.history: list[dict[str, float]] = []
        self._listeners = keras.callbacks.CallbackList(list(callbacks), model=model)
        self._listeners.on_train_begin()

    def add(self, member: int, epoch: int, logs: Mapping[str, float]) -> None:
        row = {"member": float(member), "epoch": float(epoch), **logs}
        self._listeners.on_epoch_end(len(self.history), dict(row))
        self.history.append(row)
        LOG.debug("member %d epoch %d: %s", member, epoch, row)

    def end(self) -> None:
        self._listeners.on_train_end()


def _train(
    member: keras.Model,
    batches: Iterator[Batch],
    validation: Batch,
    *,
    steps: int,
    epochs: int,
    patience: int | None,
    on_epoch_end: Callable[[int, Mapping[str, float]], None],
) -> None:
    """Train a compiled member; what `member.fit` does, without the data pipelines that take it half of the time."""
    import keras

    stop = [keras.callbacks.EarlyStopping(patience=patience, restore_best_weights=True)] if patience else []
    callbacks = keras.callbacks.CallbackList(stop if len(validation[1]) else [], model=member)
    member.stop_training = False
    callbacks.on_train_begin()
    for epoch in range(epochs):
        member.reset_metrics()
        for x, y in itertools.islice(batches, steps):
            logs = member.train_on_batch(x, y, return_dict=True)
        told = {name: float(value) for name, value in logs.items()} | _validated(member, *validation)
        on_epoch_end(epoch, told)
        callbacks.on_epoch_end(epoch, told)
        if member.stop_training:
            break
    callbacks.on_train_end()


def _validated(member: keras.Model, inputs: Arrays, targets: npt.NDArray[np.float32]) -> dict[str, float]:
    """Return loss and accuracy, named val_..., of chunks; nothing where there are none."""
    member.reset_metrics()
    logs: Mapping[str, float] = {}
    for start in range(0, len(targets), VALIDATION_BATCH):
        rows = slice(start, start + VALIDATION_BATCH)
        x = {part: frames[rows] for part, frames in inputs.items()}
        logs = member.test_on_batch(x, targets[rows], return_dict=True)
    return {f"val_{name}": float(value) for name, value in logs.items()}


def _checked(
    inputs: Arrays, labels: Rows, songs: Sequence[str], model: str, n_genres: int
) -> dict[str, npt.NDArray[np.float32]]:
    """The features of the model, after a check that everything has one row per chunk."""
    for feature, array in inputs.items():
        if array.ndim != 3 or len(array) != len(labels):
            raise VectorError(f"{feature}: shape {array.shape}, expected ({len(labels)}, frames, columns)")
    if len(songs) != len(labels):
        raise VectorError(f"{len(songs)} songs for {len(labels)} chunks: run the vectorize stage again")
    if not len(labels) or labels.min() < 0 or labels.max() >= n_genres:
        raise VectorError(f"labels must be 0 to {n_genres - 1}, of at least one chunk")
    return {f: np.asarray(a, np.float32) for f, a in inputs.items() if f in networks.MODELS.get(model, inputs)}


def _validation_rows(
    labels: Rows, songs: Sequence[str], fraction: float, members: int, rng: np.random.Generator
) -> list[Rows]:
    """Chunks that each member leaves out: whole songs, `fraction` of each genre, others for each member.

    A genre always keeps a song for training, so one of a single song has none here.
    """
    genre_of = dict(zip(songs, labels.tolist(), strict=True))
    left_out: list[set[str]] = [set() for _ in range(members)]
    for genre in sorted(set(genre_of.values())):
        of_genre = sorted(song for song, g in genre_of.items() if g == genre)
        shuffled = [of_genre[i] for i in rng.permutation(len(of_genre))]
        count = min(math.ceil(fraction * len(shuffled)), len(shuffled) - 1)
        for member in range(members):
            left_out[member].update(shuffled[(member * count + k) % len(shuffled)] for k in range(count))
    return [np.flatnonzero([song in left for song in songs]) for left in left_out]


def _level_direction(frontend: keras.Model, inputs: Arrays) -> dict[str, npt.NDArray[np.float32]]:
    """What ten times the amplitude adds to each column that the frontend makes.

    c0 of the MFCC is sqrt(1/40) times a sum of 40 base-10 logarithms; magnitudes are proportional to the amplitude.
    """
    gain = 0.1  # powers of ten: small, so that few values reach a limit
    first = {feature: array[:1] for feature, array in inputs.items()}
    louder = {feature: array * np.float32(10**gain) for feature, array in first.items()}
    if MFCC.feature in first:
        louder[MFCC.feature] = first[MFCC.feature].copy()
        louder[MFCC.feature][..., 0] += math.sqrt(40) * gain
    before, after = frontend.predict(first, verbose=0), frontend.predict(louder, verbose=0)
    return {part: np.median(after[part] - before[part], axis=(0, 1)) / np.float32(gain) for part in before}


def _batches(
    prepared: Arrays,
    targets: npt.NDArray[np.float32],
    training: Rows,
    augmentation: _Augmentation,
    rng: np.random.Generator,
) -> Iterator[Batch]:
    """Augmented batches of the `training` chunks without end."""
    order = _balanced(training, targets.argmax(axis=1), rng)
    while True:
        rows = np.fromiter(itertools.islice(order, augmentation.batch_size), np.int64)
        starts = rng.random(len(rows))
        shift = rng.normal(0, augmentation.level_shift, (len(rows), 1, 1)).astype(np.float32)
        share, partner = _pairs(len(rows), augmentation.mixup, rng)
        batch = {}
        for part, frames in prepared.items():
            crops = _crops(frames, rows, starts, augmentation.crop)
            colour = rng.normal(0, augmentation.column_shift, (len(rows), 1, frames.shape[2])).astype(np.float32)
            batch[part] = _mixed(crops + shift * augmentation.level[part] + colour, share, partner)
        yield batch, _mixed(targets[rows], share, partner)


def _balanced(training: Rows, genres: Rows, rng: np.random.Generator) -> Iterator[int]:
    """Rows without end, one of each genre in turn, so that rare genres count as much as common ones."""

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
    """A piece of each row; `starts` are 0 for the first possible and 1 for the last."""
    length = max(1, round(crop * frames.shape[1]))
    first = np.rint(starts * (frames.shape[1] - length)).astype(int)
    return np.stack([frames[row, i : i + length] for row, i in zip(rows, first, strict=True)])


def _pairs(n: int, mixup: float, rng: np.random.Generator) -> tuple[npt.NDArray[np.float32], Rows]:
    """A partner for each of `n` rows, and the share (at least half) that the row keeps of itself."""
    if not mixup:
        return np.ones(n, np.float32), np.arange(n)
    share = rng.beta(mixup, mixup, n)
    return np.maximum(share, 1 - share).astype(np.float32), rng.permutation(n)


def _mixed(values: npt.NDArray[np.float32], share: npt.NDArray[np.float32], partner: Rows) -> npt.NDArray[np.float32]:
    weight = share.reshape(-1, *[1] * (values.ndim - 1))
    return weight * values + (1 - weight) * values[partner]


def _temperature(probabilities: npt.NDArray[np.float32], truth: Rows) -> float:
    """The temperature of the least log loss on unseen chunks; 1 where there are none."""
    from scipy.optimize import minimize_scalar

    if not len(truth):
        return 1.0
    logarithms = np.log(np.maximum(probabilities.astype(np.float64), networks.MIN_PROBABILITY))

    def log_loss(log_temperature: float) -> float:
        scaled = logarithms / math.exp(log_temperature)
        normaliser = np.log(np.exp(scaled).sum(axis=1))
        return float(np.mean(normaliser - scaled[np.arange(len(truth)), truth]))

    best = minimize_scalar(log_loss, bounds=TEMPERATURES_LOG, method="bounded")
    return math.exp(best.x)


def _rows(prepared: Arrays, rows: Rows) -> dict[str, npt.NDArray[np.float32]]:
    return {part: frames[rows] for part, frames in prepared.items()}
