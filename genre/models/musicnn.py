"""MusiCNN, a network pretrained to tag music, as an embedding of chunks.

The network and its weights are those of the PyPI package `musicnn` 0.1.0 (ISC licence; J. Pons and X. Serra, "musicnn:
pre-trained convolutional neural networks for music audio tagging", ISMIR 2019 late-breaking). `convert` writes them to
an ONNX file; the package's code is never run.
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
from genre.models import onnx

if TYPE_CHECKING:
    import keras

Weights = Mapping[str, list[npt.NDArray[np.float32]]]  # by layer of the package

SAMPLE_RATE = 16_000  # Hz
FFT = 512  # samples
HOP = 256  # samples
N_MELS = 96
PATCH_FRAMES = 187  # 3 s: what the network was trained on
CHECKPOINTS = {  # SHA-256 of the weights in the package
    "MTT_musicnn": "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",  # MagnaTagATune
    "MSD_musicnn": "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6",  # Million Song Dataset
}
VECTORS = {"max_pool": slice(0, 753), "penultimate": slice(753, 953), "both": slice(0, 953)}
VERSION = 3  # raised with every change of the numbers

N_DENSE = 200  # units
STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")  # of a batch normalisation
EPSILON = 1e-3  # of the batch normalisation
DEAD = 1e-6  # relative norm below which a filter is dead: most front-end filters of MSD_musicnn are


class MusiCNN:
    """A converted network."""

    def __init__(self, path: Path) -> None:
        """Load the ONNX file that `convert` wrote.

        Raises ModelError if the file is missing or damaged.
        """
        self._name = str(path)
        self._session = onnx.session(path)

    def embed(self, samples: npt.NDArray[np.int16], sample_rate: int) -> npt.NDArray[np.float32]:
        """Return the embedding [shape=(953,)] of a mono chunk [shape=(n,)]: the mean over its patches of 3 s.

        `sample_rate` is in Hz; `VECTORS` names the parts of the embedding.
        """
        # One patch at a time: the activations of several do not fit into the processor's cache (twice as slow).
        inputs = ({"patches": patch[np.newaxis]} for patch in patches(samples, sample_rate))
        parts = [onnx.run(self._session, patch, self._name) for patch in inputs]
        if any(part.shape != (1, VECTORS["both"].stop) for part in parts):
            raise ModelError(f"{self._name} has another number of outputs: {onnx.REMEDY}")
        vector: npt.NDArray[np.float32] = np.concatenate(parts).mean(axis=0, dtype=np.float64).astype(np.float32)
        return vector


def convert(checkpoint: str, path: Path) -> None:
    """Write the network of a checkpoint of the installed package to an ONNX file.

    Raises ModelError if the package is not installed or holds other weights.
    """
    files.write_bytes(path, onnx.from_keras(_network(_weights(checkpoint))))


def patches(samples: npt.NDArray[np.int16], sample_rate: int) -> npt.NDArray[np.float32]:
    """Return the log mel spectrogram of a chunk in patches of 3 s [shape=(patches, 187, 96)]: log10(10000 power + 1).

    The package's own front end computes the logarithm in float16, which overflows on loud music; this one uses float32.
    An incomplete last patch is dropped; a chunk shorter than one patch is repeated.
    """
    import soxr

    signal = np.asarray(soxr.resample(samples.astype(np.float64) / 32768, sample_rate, SAMPLE_RATE, "HQ"), np.float64)
    frames = _log_mel(signal)
    n_patches = max(1, len(frames) // PATCH_FRAMES)
    return np.resize(frames, (n_patches, PATCH_FRAMES, N_MELS))  # np.resize cuts, or repeats


@lru_cache(maxsize=1)
def mel_filters() -> npt.NDArray[np.float64]:
    """Return the mel filter bank of the front end [shape=(257, 96)], equal to librosa's: triangles of unit area.

    The mel scale is that of M. Slaney's Auditory Toolbox (1998): linear below 1 kHz, logarithmic above.
    """
    mels = np.linspace(0.0, 15 + 27 * math.log(SAMPLE_RATE / 2 / 1000, 6.4), N_MELS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))  # Hz
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    frequency = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)[:, np.newaxis]
    triangles = np.minimum((frequency - low) / (centre - low), (high - frequency) / (high - centre))
    weights: npt.NDArray[np.float64] = np.maximum(triangles, 0.0) * 2 / (high - low)
    return weights


def _log_mel(signal: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the spectrogram [shape=(frames, 96)] of a signal at 16 kHz with a full scale of 1.0 [shape=(n,)].

    Frame i is centred on sample i * HOP, as in librosa.
    """
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)
    framed = np.lib.stride_tricks.sliding_window_view(np.pad(signal, FFT // 2), FFT)[::HOP]
    power = np.abs(np.fft.rfft(framed * window, axis=1)) ** 2
    return np.log10(10_000 * (power @ mel_filters()) + 1).astype(np.float32)


def _weights(checkpoint: str) -> Weights:
    """Return the package's variables by layer."""
    spec = importlib.util.find_spec("musicnn")  # without importing it: its code needs TensorFlow 1
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("the package musicnn is not installed: run `pip install --no-deps musicnn==0.1.0`")
    folder = Path(spec.submodule_search_locations[0], checkpoint)
    data = folder / ".data-00000-of-00001"
    if not data.is_file() or files.sha256(data) != CHECKPOINTS[checkpoint]:
        raise ModelError(f"{data} is not the file of musicnn 0.1.0: run `pip install --no-deps musicnn==0.1.0`")
    from genre.models import keras_backend

    keras_backend.prepare()
    import tensorflow as tf

    affine: tuple[str, ...] = ("kernel", "bias")
    parts = {"dense": affine, **{_name("conv2d", number): affine for number in range(8)}}
    parts |= {_name("batch_normalization", number): STATISTICS for number in range(11)}
    weights = {}
    for layer, variables in parts.items():
        # The prefix is a folder (files have no name before their dot), which tf.train.load_checkpoint does not take.
        names = [f"{layer}/{variable}" for variable in variables]
        formats = {"shape_and_slices": [""] * len(names), "dtypes": [tf.float32] * len(names)}
        restored = tf.raw_ops.RestoreV2(prefix=f"{folder}/", tensor_names=names, **formats)
        weights[layer] = [value.numpy() for value in restored]
    return weights


def _name(kind: str, number: int) -> str:
    return f"{kind}_{number}" if number else kind


def _network(weights: Weights) -> keras.Model:
    """Return the network from patches (batch, 187, 96) to `max_pool` and `penultimate` side by side (batch, 953).

    Layers are numbered as in the package's `models.py`.
    """
    import keras
    from keras import layers, ops

    patch = keras.Input((PATCH_FRAMES, N_MELS), name="patches")
    image = _normalised(ops.expand_dims(patch, -1), weights, 0)
    padded = layers.ZeroPadding2D((3, 0))(image)
    timbral = [_max_over_frequency(padded, weights, number, "valid") for number in (0, 1)]
    temporal = [_max_over_frequency(image, weights, number, "same") for number in (2, 3, 4)]
    hidden = layers.Concatenate()([*timbral, *temporal])
    sequences = [hidden]
    for number, residual in ((5, False), (6, True), (7, True)):
        # The package convolves an image over its whole height: the same as a one-dimensional convolution.
        kernel, bias = weights[_name("conv2d", number)]
        kernel = kernel.reshape(kernel.shape[0], -1, kernel.shape[-1])
        output = _applied(layers.Conv1D(64, 7, padding="same", activation="relu"), hidden, [kernel, bias])
        output = _normalised(output, weights, number + 1)
        hidden = layers.Add()([output, hidden]) if residual else output
        sequences.append(hidden)
    sequence = layers.Concatenate()(sequences)
    max_pool = ops.max(sequence, axis=1)
    pooled = layers.Flatten()(ops.stack([max_pool, ops.mean(sequence, axis=1)], axis=-1))
    output = _applied(layers.Dense(N_DENSE, activation="relu"), _normalised(pooled, weights, 9), weights["dense"])
    penultimate = _normalised(output, weights, 10)
    return keras.Model({"patches": patch}, layers.Concatenate()([max_pool, penultimate]), name="musicnn")


def _applied(layer: Any, tensor: Any, weights: list[npt.NDArray[np.float32]]) -> Any:
    """Return the output of a layer with fixed weights."""
    output = layer(tensor)
    layer.set_weights(weights)
    return output


def _normalised(tensor: Any, weights: Weights, number: int, filters: npt.NDArray[np.int64] | None = None) -> Any:
    """Return a tensor after a batch normalisation of the package; `filters` are its channels, None for all."""
    from keras import layers

    statistics = weights[_name("batch_normalization", number)]
    chosen = statistics if filters is None else [values[filters] for values in statistics]
    return _applied(layers.BatchNormalization(epsilon=EPSILON), tensor, chosen)


def _max_over_frequency(image: Any, weights: Weights, number: int, padding: str) -> Any:
    """Return the maximum over frequency of a convolution and its batch normalisation; dead filters are not computed.

    Convolution n is followed by batch normalisation n + 1.
    """
    from keras import layers, ops

    kernel, bias = weights[_name("conv2d", number)]
    norms = np.linalg.norm(kernel.reshape(-1, len(bias)).astype(np.float64), axis=0)
    live = np.flatnonzero(norms > DEAD * norms.max())
    convolution = layers.Conv2D(len(live), kernel.shape[:2], padding=padding, activation="relu")
    output = _normalised(_applied(convolution, image, [kernel[..., live], bias[live]]), weights, number + 1, live)
    gamma, beta, mean, variance = weights[_name("batch_normalization", number + 1)]
    constants = gamma * (np.maximum(bias, 0.0) - mean) / np.sqrt(variance + EPSILON) + beta  # outputs of dead filters
    constants[live] = 0.0
    scatter = [np.eye(len(bias), dtype=np.float32)[np.newaxis, live], constants]  # puts the live filters among them
    return _applied(layers.Conv1D(len(bias), 1), ops.max(output, axis=2), scatter)
