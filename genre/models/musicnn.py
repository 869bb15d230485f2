"""MusiCNN: what a network trained to tag music hears in a chunk, as one vector.

The network and its weights are those of the PyPI package `musicnn` 0.1.0 (ISC licence; J. Pons and X. Serra, "musicnn:
pre-trained convolutional neural networks for music audio tagging", ISMIR 2019 late-breaking). The package is read,
never run: its weights become an ONNX file under .cache/ once, which goes with the models that need it, and from then on
ONNX Runtime is all that is needed.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import ModelError
from genre.features import mel
from genre.models import runtime

if TYPE_CHECKING:
    import keras

SAMPLE_RATE = 16_000  # Hz
FFT = 512  # samples
HOP = 256  # samples
N_MELS = 96
PATCH_FRAMES = 187  # 3 s: what the network was trained on
CHECKPOINTS = {  # SHA-256 of the weights, the same in every copy of the package
    "MTT_musicnn": "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",  # MagnaTagATune
    "MSD_musicnn": "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6",  # Million Song Dataset
}
VECTORS = {"max_pool": slice(0, 753), "penultimate": slice(753, 953), "both": slice(0, 953)}
CACHE = Path(".cache") / "musicnn"
SHIPPED = Path("model_weights") / "baselines"  # beside the models that need it: a machine that only answers has no more
VERSION = 2  # raised with every change of the numbers
GROUP_ROWS, GROUP_PHASES = 24, 40  # of a product while resampling: too small for BLAS to start threads

PASS_BAND = 0.913  # share of the band that resampling leaves alone
STOP_BAND_DB = 100.0

N_TIMBRAL, N_TEMPORAL, N_DENSE = 2, 3, 200  # convolutions in front over mel bands and over frames, units
EPSILON = 1e-3  # of the batch normalisation
DEAD = 1e-6  # of the norm of the largest filter: training left most filters of MSD_musicnn with less


class MusiCNN:
    """One checkpoint, ready to embed."""

    def __init__(self, checkpoint: str, cache: Path = CACHE) -> None:
        """Load a checkpoint by name (a key of `CHECKPOINTS`), converted before if it never was.

        Raises
        ------
        ModelError
            If the package is needed and not installed, or holds other weights, or the ONNX file is damaged.
        """
        path = converted(checkpoint, cache)
        try:
            self._session = runtime.session(path)
        except ModelError as error:
            raise ModelError(f"{path} cannot be loaded, delete it to have it made again: {error}") from error

    def embed(self, samples: npt.NDArray[np.int16], sample_rate: int) -> npt.NDArray[np.float32]:
        """Return the vector of a chunk: the mean over its patches of 3 s.

        Parameters
        ----------
        samples : npt.NDArray[np.int16] [shape=(n,)]
            Mono.
        sample_rate : int
            Hz.

        Returns
        -------
        npt.NDArray[np.float32] [shape=(953,)]
            `VECTORS` tells which part is what.
        """
        # One at a time: the activations of several patches do not fit into the processor's cache (twice as slow).
        try:
            parts = [runtime.run(self._session, {"patches": p[np.newaxis]}) for p in patches(samples, sample_rate)]
        except ModelError as error:
            raise ModelError(f"MusiCNN's network {error}: delete it to have it made again") from error
        if any(part.shape != (1, VECTORS["both"].stop) for part in parts):
            raise ModelError("MusiCNN's network gives another number of values: delete it to have it made again")
        vector: npt.NDArray[np.float32] = np.concatenate(parts).mean(axis=0, dtype=np.float64).astype(np.float32)
        return vector


def patches(samples: npt.NDArray[np.int16], sample_rate: int) -> npt.NDArray[np.float32]:
    """Return what the network sees of a chunk: its logarithmic mel spectrogram in patches of 3 s, side by side.

    The package's own front end rounds to float16 before the logarithm, which overflows on loud music; this one does
    not. A last patch that is not full is left out; a chunk shorter than one patch is repeated.

    Returns
    -------
    npt.NDArray[np.float32] [shape=(patches, 187, 96)]
        log10(10000 power + 1).
    """
    frames = _log_mel(_resampled(samples, sample_rate))
    n_patches = max(1, len(frames) // PATCH_FRAMES)
    return np.resize(frames, (n_patches, PATCH_FRAMES, N_MELS))  # np.resize cuts, or repeats


def mel_filters() -> npt.NDArray[np.float64]:
    """Return the mel filter bank of the front end [shape=(257, 96)]."""
    return mel.filters(SAMPLE_RATE, FFT, N_MELS)


def converted(checkpoint: str, cache: Path = CACHE) -> Path:
    """Return the ONNX file of a checkpoint, out of `cache` or `SHIPPED`; made from the installed package at first.

    Raises
    ------
    ModelError
        For an unknown checkpoint, or if the package is not installed or holds other weights.
    """
    if checkpoint not in CHECKPOINTS:
        raise ModelError(f"there is no checkpoint {checkpoint} of MusiCNN: use one of {', '.join(CHECKPOINTS)}")
    name = f"{checkpoint}-{CHECKPOINTS[checkpoint]}-{VERSION}.onnx"
    path = cache / name
    if not path.is_file():
        if (SHIPPED / name).is_file():
            return SHIPPED / name
        weights = _weights(checkpoint)
        from genre.models.onnx import to_onnx

        files.write_bytes(path, to_onnx(_network(weights)))
    return path


def _resampled(samples: npt.NDArray[np.int16], sample_rate: int) -> npt.NDArray[np.float64]:
    """Return the signal at 16 kHz, full scale 1.0: what `scipy.signal.resample_poly` makes of it, faster.

    Of every `up` outputs, `down` inputs apart, the same weights are taken: a matrix product.
    """
    signal = samples.astype(np.float64) / 32768
    if sample_rate == SAMPLE_RATE:
        return signal
    divisor = math.gcd(SAMPLE_RATE, sample_rate)
    up, down = SAMPLE_RATE // divisor, sample_rate // divisor
    n_outputs = -(-len(signal) * up // down)
    n_rows = -(-n_outputs // up)
    n_rows += -n_rows % GROUP_ROWS
    before, groups = _phase_groups(up, down)
    after = max(first + len(weights) for first, weights in groups)
    padded = np.zeros(before + (n_rows - 1) * down + max(after, len(signal)))
    padded[before : before + len(signal)] = signal
    outputs = np.empty((n_rows // GROUP_ROWS, GROUP_ROWS, up))
    phase = 0
    for first, weights in groups:
        spans = np.lib.stride_tricks.sliding_window_view(padded[first:], len(weights))[: n_rows * down : down]
        spans = spans.reshape(-1, GROUP_ROWS, len(weights))
        np.matmul(spans, weights, out=outputs[..., phase : phase + weights.shape[1]])
        phase += weights.shape[1]
    return outputs.reshape(-1)[:n_outputs]


@lru_cache(maxsize=4)
def _phase_groups(up: int, down: int) -> tuple[int, list[tuple[int, npt.NDArray[np.float64]]]]:
    """Return what resampling by up / down multiplies.

    Returns
    -------
    before : int
        Zeros that are put before the signal.
    groups : list of tuple of int and npt.NDArray[np.float64] [shape=(inputs, outputs)]
        Of consecutive outputs the first input, counted from the first of these zeros, and the weights.
    """
    low_pass = _low_pass(up, down) * up
    half = len(low_pass) // 2
    before = half // up
    groups = []
    for phase in range(0, up, GROUP_PHASES):
        outputs = np.arange(phase, min(phase + GROUP_PHASES, up))
        first, last = -((half - outputs[0] * down) // up), (outputs[-1] * down + half) // up
        taps = outputs * down + half - np.arange(first, last + 1)[:, np.newaxis] * up
        weights = np.where((taps >= 0) & (taps < len(low_pass)), low_pass[taps.clip(0, len(low_pass) - 1)], 0.0)
        groups.append((int(first) + before, weights))
    return before, groups


def _low_pass(up: int, down: int) -> npt.NDArray[np.float64]:
    """Return a low-pass as steep as soxr's (which librosa takes): what it leaves near 8 kHz shows in the vectors.

    It is the windowed sinc of `scipy.signal.kaiserord` and `firwin`, without the time that importing them takes.
    """
    width = (1 - PASS_BAND) / max(up, down)
    n_taps = math.ceil((STOP_BAND_DB - 7.95) / (2.285 * math.pi * width) + 1) | 1
    cutoff = (1 + PASS_BAND) / 2 / max(up, down)
    taps = np.sinc(cutoff * (np.arange(n_taps) - n_taps // 2)) * np.kaiser(n_taps, 0.1102 * (STOP_BAND_DB - 8.7))
    return np.asarray(taps / taps.sum(), np.float64)


def _log_mel(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the spectrogram [shape=(frames, 96)]; frame i is centred on sample i * HOP, as in librosa."""
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
    framed = np.lib.stride_tricks.sliding_window_view(np.pad(signal, FFT // 2), FFT)[::HOP]
    power = np.abs(np.fft.rfft(framed * window, axis=1)) ** 2
    return np.log10(10_000 * (power @ _cached_filters()) + 1).astype(np.float32)


@lru_cache(maxsize=1)
def _cached_filters() -> npt.NDArray[np.float64]:
    return mel_filters()


def _weights(checkpoint: str) -> dict[str, npt.NDArray[np.float32]]:
    """Return the package's variables by name."""
    spec = importlib.util.find_spec("musicnn")  # without importing it: its code needs TensorFlow 1
    if spec is None or not spec.submodule_search_locations:
        raise ModelError(
            "the weights of MusiCNN are not installed: run `uv pip install --no-deps musicnn==0.1.0`"
            " (without its dependencies, which are of another age)"
        )
    folder = Path(spec.submodule_search_locations[0], checkpoint)
    data = folder / ".data-00000-of-00001"
    if not data.is_file() or files.sha256(data) != CHECKPOINTS[checkpoint]:
        raise ModelError(f"{data} is not the file of musicnn 0.1.0: run `uv pip install --no-deps musicnn==0.1.0`")
    from genre.models import keras_backend

    keras_backend.prepare()
    import tensorflow as tf

    convolutions = [f"conv2d{_suffix(i)}/{part}" for i in range(8) for part in ("kernel", "bias")]
    statistics = ("gamma", "beta", "moving_mean", "moving_variance")
    normalisations = [f"batch_normalization{_suffix(i)}/{part}" for i in range(11) for part in statistics]
    names = [*convolutions, *normalisations, "dense/kernel", "dense/bias"]
    # The prefix is a folder (the files have no name before their dot), which tf.train.load_checkpoint does not take.
    values = tf.raw_ops.RestoreV2(
        prefix=f"{folder}/", tensor_names=names, shape_and_slices=[""] * len(names), dtypes=[tf.float32] * len(names)
    )
    return {name: value.numpy() for name, value in zip(names, values, strict=True)}


def live_filters(kernel: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    """Return the positions of the filters [shape=(..., filters)] that are more than rounding errors."""
    norms = np.sqrt((kernel.reshape(-1, kernel.shape[-1]).astype(np.float64) ** 2).sum(axis=0))
    return np.flatnonzero(norms > DEAD * norms.max())


def _suffix(number: int) -> str:
    return f"_{number}" if number else ""


def _network(weights: Mapping[str, npt.NDArray[np.float32]]) -> keras.Model:
    """Return the network from patches (batch, 187, 96) to `max_pool` and `penultimate` side by side (batch, 953).

    Layers are numbered as in the package's `models.py`.
    """
    import keras
    from keras import layers, ops

    def statistics(number: int) -> list[npt.NDArray[np.float32]]:
        name = f"batch_normalization{_suffix(number)}"
        return [weights[f"{name}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")]

    def normalised(tensor: Any, values: list[npt.NDArray[np.float32]]) -> Any:
        layer = layers.BatchNormalization(epsilon=EPSILON)
        output = layer(tensor)
        layer.set_weights(values)
        return output

    def over_frequency(tensor: Any, number: int, padding: str) -> Any:
        """Convolve an image and take the greatest value over frequency; dead filters are not computed."""
        kernel, bias = (weights[f"conv2d{_suffix(number)}/{part}"] for part in ("kernel", "bias"))
        live = live_filters(kernel)
        layer = layers.Conv2D(len(live), kernel.shape[:2], padding=padding, activation="relu")
        spread = layers.Conv1D(len(bias), 1)  # to their places, among what the dead ones always give
        output = layer(tensor)
        layer.set_weights([kernel[..., live], bias[live]])
        output = spread(ops.max(normalised(output, [values[live] for values in statistics(number + 1)]), axis=2))
        gamma, beta, mean, variance = statistics(number + 1)
        always = gamma * (np.maximum(bias, 0.0) - mean) / np.sqrt(variance + EPSILON) + beta
        always[live] = 0.0
        spread.set_weights([np.eye(len(bias), dtype=np.float32)[np.newaxis, live], always])
        return output

    patch = keras.Input((PATCH_FRAMES, N_MELS), name="patches")
    image = normalised(ops.expand_dims(patch, -1), statistics(0))
    padded = layers.ZeroPadding2D((3, 0))(image)
    found = [over_frequency(padded, number, "valid") for number in range(N_TIMBRAL)]
    found += [over_frequency(image, N_TIMBRAL + number, "same") for number in range(N_TEMPORAL)]
    hidden = layers.Concatenate()(found)
    found = [hidden]
    for number in (5, 6, 7):
        # The package convolves an image over its whole height: the same as a one-dimensional convolution.
        layer = layers.Conv1D(64, 7, padding="same", activation="relu")
        output = layer(hidden)
        kernel = weights[f"conv2d{_suffix(number)}/kernel"]
        layer.set_weights([kernel.reshape(layer.kernel.shape), weights[f"conv2d{_suffix(number)}/bias"]])
        output = normalised(output, statistics(number + 1))
        hidden = output if number == 5 else layers.Add()([output, hidden])
        found.append(hidden)
    sequence = layers.Concatenate()(found)
    max_pool = ops.max(sequence, axis=1)
    pooled = layers.Flatten()(ops.stack([max_pool, ops.mean(sequence, axis=1)], axis=-1))
    dense = layers.Dense(N_DENSE, activation="relu")
    output = dense(normalised(pooled, statistics(9)))
    dense.set_weights([weights["dense/kernel"], weights["dense/bias"]])
    return keras.Model(
        {"patches": patch}, layers.Concatenate()([max_pool, normalised(output, statistics(10))]), name="musicnn"
    )
