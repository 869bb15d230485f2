"""Trains the fingerprint network, without labels: two renditions of one window shall be near, all else far apart.

Every song is spoiled several times at random (`hear`): played at another speed, in a room, under noise or other
music, through a band, an equaliser and what a codec does. A batch holds pairs of windows of the same music, a little
apart in time, out of two renditions; the loss (NT-Xent; Chen et al., "A simple framework for contrastive learning of
visual representations", ICML 2020) asks of each window which of all the others is its partner.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genre.errors import SearchError
from genre.parallel import all_or_error, run
from genre.search import degradations, network
from genre.search.degradations import Generator, Signal
from genre.search.network import FRAMES_PER_S, HOP, N_MELS, SAMPLE_RATE

if TYPE_CHECKING:
    import keras

PIECE_S = 30.0  # of a song that is learned from: as much memory as a song may take
N_OTHERS = 3  # songs that are heard over a song
N_BACKGROUND = 200  # songs that the background is measured on
N_PLAIN = 2  # renditions of a song that are not spoiled, as songs are indexed
PLAIN_SHARE = 0.75  # of the pairs have one of them as a partner
STEPS_PER_EPOCH = 50  # after each, the loss is reported
CHANNELS = (128, 128, 192, 192, 256)  # of the convolutions; all but the first halve the frames
MARGIN_S = 0.3  # at either end of a song that no window begins in

MAX_SPEED_CHANGE = 0.03
ROOM_S = (0.15, 0.6)
SNR_DB = (-3.0, 15.0)
BAND_HZ = ((100.0, 400.0), (2500.0, 3900.0))  # of its lower and of its upper edge
EQUALISER = 0.35  # standard deviation of its points, in powers of ten of the power
CUT = (2.5, 5.0)  # powers of ten below a column's loudest band: what a codec leaves out


@dataclass(frozen=True, slots=True)
class Source:
    """A song to learn from."""

    path: Path
    sha256: str
    seconds: float

    def piece(self, rng: Generator) -> Signal:
        """Return a random piece of at most `PIECE_S`."""
        return network.load(self.path, start=rng.uniform(0.0, max(0.0, self.seconds - PIECE_S)), duration=PIECE_S)


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained network."""

    model: keras.Model  # columns (batch, window_frames, N_MELS) to vectors (batch, dimension) of unit length
    losses: tuple[float, ...]  # after every `STEPS_PER_EPOCH` batches
    background: float  # similarity that one in ten pairs of windows of different songs exceeds


@dataclass(frozen=True, slots=True)
class Rendition:
    """The columns of a spoiled song, and where they lie in the song."""

    columns: npt.NDArray[np.float16]  # shape (frames, N_MELS)
    speed: float
    start_s: float

    def window(self, at_s: float, n_frames: int) -> npt.NDArray[np.float16]:
        """Return the columns of the window that begins at this second of the song [shape=(n_frames, N_MELS)]."""
        first = round((at_s / self.speed - self.start_s) * FRAMES_PER_S)
        first = min(max(first, 0), len(self.columns) - n_frames)
        return self.columns[first : first + n_frames]

    def last_s(self, n_frames: int) -> float:
        """Return the second of the song that the last window begins at."""
        return ((len(self.columns) - n_frames) / FRAMES_PER_S + self.start_s) * self.speed


def hear(sources: Sequence[Source], n_renditions: int, seed: int, workers: int | None) -> list[list[Rendition]]:
    """Return the renditions of every song: `N_PLAIN` that only differ in the places of the frames, and spoiled ones.

    Raises
    ------
    AudioError
        If a song cannot be decoded.
    """
    work = _Work(tuple(sources), n_renditions, seed)
    return all_or_error(run(work, range(len(sources)), description="renditions", workers=workers))


def fit(
    songs: Sequence[Sequence[Rendition]],
    *,
    window_frames: int,
    hop_frames: int,
    dimension: int = 128,
    max_steps: int = 1000,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    temperature: float = 0.05,
    seed: int = 0,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> Trained:
    """Train a network; the same arguments on the same machine give the same weights.

    Parameters
    ----------
    songs
        Renditions of each song, as `hear` returns them.
    window_frames, hop_frames
        Of a window, and between the windows of an indexed song: half of it is what a snippet's window may be off.
    dimension
        Of the vectors.
    max_steps
        Batches.
    batch_size
        Pairs of windows in a batch.
    learning_rate
        Of AdamW at the start; falls to 0 along a cosine.
    temperature
        Of the loss: the lower, the more the nearest wrong windows count.
    seed
        Of weights and batches.
    callbacks
        Told `on_epoch_end`, every `STEPS_PER_EPOCH` batches.

    Raises
    ------
    SearchError
        If there are fewer than two songs, or one is too short.
    """
    import keras

    shortest = min((len(rendition.columns) for of_song in songs for rendition in of_song), default=0)
    if len(songs) < 2 or shortest < window_frames + 2 * MARGIN_S * FRAMES_PER_S:
        raise SearchError(
            f"the fingerprint network needs two songs of {window_frames / FRAMES_PER_S + 1:g} s or more to learn from"
        )
    keras.utils.set_random_seed(seed)
    model = _build(window_frames, dimension)
    rate = keras.optimizers.schedules.CosineDecay(learning_rate, max_steps)
    model.compile(optimizer=keras.optimizers.AdamW(rate, weight_decay=1e-2), loss=_nt_xent(temperature))
    history = model.fit(
        _batches(songs, window_frames, hop_frames, batch_size, np.random.default_rng(seed)),
        steps_per_epoch=min(STEPS_PER_EPOCH, max_steps),
        epochs=-(-max_steps // STEPS_PER_EPOCH),
        callbacks=list(callbacks),
        shuffle=False,
        verbose=0,
    )
    losses = tuple(float(loss) for loss in history.history["loss"])
    return Trained(model, losses, _background(model, songs, window_frames))


@dataclass(frozen=True, slots=True)
class _Work:
    """What is done with a song, wherever it is done."""

    sources: tuple[Source, ...]
    n_renditions: int
    seed: int

    def __call__(self, number: int) -> list[Rendition]:
        """Return the renditions of the song of this number."""
        rng = np.random.default_rng((self.seed, number))
        rest = [i for i in range(len(self.sources)) if i != number]
        others = rng.choice(rest, min(N_OTHERS, len(rest)), replace=False) if rest else ()
        song, *noises = (self.sources[int(i)].piece(rng) for i in (number, *others))
        plain = [_rendition(song, 1.0, rng) for _ in range(N_PLAIN)]
        return plain + [_spoiled(song, noises, rng) for _ in range(self.n_renditions)]


def _spoiled(song: Signal, others: Sequence[Signal], rng: Generator) -> Rendition:
    speed = round(1 + rng.uniform(-MAX_SPEED_CHANGE, MAX_SPEED_CHANGE), 3) if rng.random() < 0.5 else 1.0
    signal = degradations.played(song, speed)
    if rng.random() < 0.3:
        signal = degradations.in_room(signal, rng.uniform(*ROOM_S), SAMPLE_RATE, rng)
    signal = _with_noise(signal, others, rng)
    if rng.random() < 0.25:
        signal = degradations.band_pass(signal, rng.uniform(*BAND_HZ[0]), rng.uniform(*BAND_HZ[1]), SAMPLE_RATE)
    made = _rendition(signal * np.float32(10 ** rng.uniform(-1, 0)), speed, rng)
    columns = made.columns.astype(np.float32)
    if rng.random() < 0.5:
        points = rng.normal(0, EQUALISER, 6)
        columns += np.interp(np.linspace(0, 5, N_MELS), np.arange(6), points).astype(np.float32)
    if rng.random() < 0.3:
        columns = np.maximum(columns, columns.max(axis=1, keepdims=True) - np.float32(rng.uniform(*CUT)))
    return Rendition(columns.astype(np.float16), speed, made.start_s)


def _with_noise(signal: Signal, others: Sequence[Signal], rng: Generator) -> Signal:
    kind = rng.random()
    if kind < 0.4 and others:
        other = others[int(rng.integers(len(others)))]
        noise = np.resize(other[int(rng.integers(len(other) // 2 + 1)) :], len(signal))
    elif kind < 0.75:
        noise = degradations.pink_noise(len(signal), rng)
    else:
        return signal
    return degradations.mix(signal, noise, rng.uniform(*SNR_DB))


def _rendition(signal: Signal, speed: float, rng: Generator) -> Rendition:
    """Return the columns of a signal from a random sample of its first frame on."""
    shift = int(rng.integers(HOP))
    return Rendition(network.columns(signal[shift:]).astype(np.float16), speed, shift / SAMPLE_RATE)


def _build(window_frames: int, dimension: int) -> keras.Model:
    import keras
    from keras import layers

    # every layer has a name, so that the same training makes the same file in any process
    columns = keras.Input((window_frames, N_MELS), name="columns")
    hidden = layers.LayerNormalization(axis=[1, 2], center=False, scale=False, name="level")(columns)  # and contrast
    for i, channels in enumerate(CHANNELS):
        convolution = layers.Conv1D(
            channels, 3, strides=2 if i else 1, padding="same", use_bias=False, name=f"convolution_{i}"
        )
        hidden = layers.BatchNormalization(name=f"normalisation_{i}")(convolution(hidden))
        hidden = layers.Activation("elu", name=f"activation_{i}")(hidden)
    flat = layers.Flatten(name="flat")(hidden)
    vector = layers.UnitNormalization(name="vector")(layers.Dense(dimension, name="projection")(flat))
    return keras.Model({"columns": columns}, vector, name=network.MODEL)


def _nt_xent(temperature: float) -> Any:
    """Return the loss of vectors whose first half are the partners of the second, in the same order."""
    from keras import losses, ops

    def loss(_: Any, vectors: Any) -> Any:
        n = ops.shape(vectors)[0]
        similarity = ops.matmul(vectors, ops.transpose(vectors)) / temperature - 1e9 * ops.eye(n)
        partners = ops.mod(ops.arange(n) + n // 2, n)
        return losses.sparse_categorical_crossentropy(partners, similarity, from_logits=True)

    return loss


def _batches(
    songs: Sequence[Sequence[Rendition]], window_frames: int, hop_frames: int, batch_size: int, rng: Generator
) -> Iterator[tuple[dict[str, npt.NDArray[np.float32]], npt.NDArray[np.float32]]]:
    """Yield batches of pairs without end, with targets that do not matter."""
    unused = np.zeros(2 * batch_size, np.float32)
    while True:
        pairs = []
        for _ in range(batch_size):
            of_song = songs[int(rng.integers(len(songs)))]
            plain = rng.random() < PLAIN_SHARE
            one = of_song[int(rng.integers(N_PLAIN) if plain else rng.integers(N_PLAIN, len(of_song)))]
            other = of_song[int(rng.integers(N_PLAIN, len(of_song)))]
            last_s = min(one.last_s(window_frames), other.last_s(window_frames))
            at_s = rng.uniform(MARGIN_S, last_s - MARGIN_S)
            off_s = rng.uniform(-1, 1) * hop_frames / FRAMES_PER_S / 2
            pairs.append((one.window(at_s, window_frames), other.window(at_s + off_s, window_frames)))
        windows = np.stack([*(one for one, _ in pairs), *(other for _, other in pairs)])
        yield {"columns": windows.astype(np.float32)}, unused


def _background(model: keras.Model, songs: Sequence[Sequence[Rendition]], window_frames: int) -> float:
    """Return the similarity that a tenth of the pairs of windows of different songs exceeds."""
    windows, owners = [], []
    for i, of_song in enumerate(songs[:: max(1, len(songs) // N_BACKGROUND)]):
        n_windows = len(of_song[0].columns) // window_frames
        windows += list(of_song[0].columns[: n_windows * window_frames].reshape(n_windows, window_frames, N_MELS))
        owners += [i] * n_windows
    columns = np.stack(windows).astype(np.float32)
    vectors = model.predict({"columns": columns}, batch_size=network.BATCH, verbose=0)
    different = np.not_equal.outer(owners, owners)
    return float(np.quantile((vectors @ vectors.T)[different], 0.9))
