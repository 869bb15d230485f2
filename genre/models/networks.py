"""Keras networks from the features of a chunk to genre probabilities.

A network is one graph from the raw features to the probabilities. Its parts have names:

- `frontend`: logarithm of the spectral contrast, columns standardised by constants that `standardise` sets;
- `members`: bagged networks of one shape, side by side in one graph, whose probabilities are averaged.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genre.features.transforms import CONTRAST_FLOOR, CONTRAST_PEAKS, CONTRAST_VALLEYS, MFCC
from genre.params import TrainParams

if TYPE_CHECKING:
    import keras

MODELS: dict[str, tuple[str, ...]] = {
    "mfcc": (MFCC.feature,),
    "spectral_contrast": (CONTRAST_PEAKS.feature, CONTRAST_VALLEYS.feature),
    "merged": (MFCC.feature, CONTRAST_PEAKS.feature, CONTRAST_VALLEYS.feature),
}

CLIP = 5.0  # standard deviations
MIN_VARIANCE = 1e-4  # of a standardised column over time, so that the square root has a finite slope

LAGS = (1, 3, 10)  # frames; 46, 139 and 464 ms at 22,050 Hz
SLOW_FRAMES = 20  # 0.93 s at 22,050 Hz
POOLED_FRAMES = 4  # averaged before the convolution; 0.19 s at 22,050 Hz
WIDTH = 5  # of the convolution, in averages; 0.93 s
HISTOGRAM_EDGES = (-1.5, -0.5, 0.5, 1.5)  # standard deviations
HISTOGRAM_STEEPNESS = 4.0  # slope of the sigmoid, per standard deviation


def build(model: str, shapes: Mapping[str, tuple[int, int]], n_genres: int, params: TrainParams) -> keras.Model:
    """Return an untrained network, a key of `MODELS`, from raw features to probabilities.

    Its inputs by feature are float32 [shape=(batch, frames, columns)], as in the feature's CSV. Its output is float32
    [shape=(batch, n_genres)]; each row sums to 1.

    `shapes` has frames and columns of each feature; features that the model does not use are ignored. Of `params`,
    architecture, members, filters and dropout are used.
    """
    import keras
    from keras import ops

    frontend = _frontend({feature: shapes[feature] for feature in MODELS[model]}, fused=params.architecture == "conv1d")
    raw = {feature: keras.Input(shapes[feature], name=feature) for feature in MODELS[model]}
    prepared = frontend(raw)
    parts = {name: (tensor.shape[1], tensor.shape[2]) for name, tensor in prepared.items()}
    architecture = {"conv1d": _conv1d, "lstm2016": _lstm2016}[params.architecture]
    members = architecture(parts, n_genres, params)
    return keras.Model(raw, ops.mean(members(prepared), axis=1), name=model)


def standardise(model: keras.Model, inputs: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Set the constants of a model's `frontend` to the means and variances of features of many chunks."""
    import keras

    frontend = model.get_layer("frontend")
    for layer in frontend.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            values = keras.Model(frontend.input, layer.input).predict(dict(inputs), verbose=0)
            axes = tuple(range(values.ndim - 1))
            layer.set_weights([values.mean(axes, dtype=np.float64), values.var(axes, dtype=np.float64)])


def _frontend(shapes: Mapping[str, tuple[int, int]], *, fused: bool) -> keras.Model:
    """Return the model from raw features to the standardised columns `mfcc` and `contrast`, or `fused` to all."""
    import keras
    from keras import ops

    raw = {feature: keras.Input(shape, name=feature) for feature, shape in shapes.items()}
    parts = {}
    if MFCC.feature in raw:
        mfcc = raw[MFCC.feature]
        # Digital silence has MFCC of exact zeros, a c0 louder than any music: replace it by the average frame.
        not_silent = ops.any(ops.not_equal(mfcc, 0.0), axis=-1, keepdims=True)
        parts["mfcc"] = _standardised(mfcc) * ops.cast(not_silent, "float32")
    if CONTRAST_PEAKS.feature in raw:
        contrast = (raw[CONTRAST_PEAKS.feature], raw[CONTRAST_VALLEYS.feature])
        high, low = (ops.log(ops.maximum(magnitudes, CONTRAST_FLOOR)) for magnitudes in contrast)
        parts["contrast"] = _standardised(keras.layers.Concatenate()([high, low, high - low]))
    return keras.Model(raw, {"fused": _concatenated(parts)} if fused else parts, name="frontend")


def _standardised(columns: Any) -> Any:
    """Return columns with mean 0 and variance 1, clipped."""
    import keras
    from keras import ops

    # Not keras.layers.Normalization: tf2onnx exports its constants as inputs without values.
    layer = keras.layers.BatchNormalization(center=False, scale=False, epsilon=1e-6, trainable=False)
    return ops.clip(layer(columns), -CLIP, CLIP)


def _concatenated(parts: Mapping[str, Any]) -> Any:
    """Return all columns side by side, at the frame rate of the MFCC."""
    import keras

    tensors = dict(parts)
    if "contrast" in tensors:
        tensors["contrast"] = keras.layers.AveragePooling1D(MFCC.step // CONTRAST_PEAKS.step)(tensors["contrast"])
    if len(tensors) == 1:
        return next(iter(tensors.values()))
    n_frames = min(tensor.shape[1] for tensor in tensors.values())
    return keras.layers.Concatenate()(
        [keras.layers.Cropping1D((0, tensor.shape[1] - n_frames))(tensor) for tensor in tensors.values()]
    )


def _conv1d(shapes: Mapping[str, tuple[int, int]], n_genres: int, params: TrainParams) -> keras.Model:
    """Return the members [shape=(batch, members, genres)]: a convolution, statistics over time, one dense layer.

    With few songs, a linear model of the statistics of the input alone is already accurate.
    """
    import keras
    from keras import layers

    inputs = {part: keras.Input((None, columns), name=part) for part, (_, columns) in shapes.items()}
    frames = inputs["fused"]
    pooled = layers.Concatenate()(_input_statistics(frames, shapes["fused"][0]))
    hidden = layers.AveragePooling1D(POOLED_FRAMES, padding="same")(frames)
    hidden = layers.Conv1D(params.members * params.filters, WIDTH, padding="same", use_bias=False)(hidden)
    hidden = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(hidden))
    own = [layers.Reshape((params.members, params.filters))(values) for values in _statistics(hidden)]
    summary = layers.Concatenate()([layers.RepeatVector(params.members)(pooled), *own])
    n_values = summary.shape[-1]
    summary = layers.BatchNormalization(momentum=0.9)(layers.Reshape((params.members * n_values,))(summary))
    summary = layers.Dropout(params.dropout)(layers.Reshape((params.members, n_values))(summary))
    scores = layers.EinsumDense("bmi,mig->bmg", (params.members, n_genres), bias_axes="mg")(summary)
    return keras.Model(inputs, layers.Softmax()(scores), name="members")


def _input_statistics(frames: Any, n_frames: int) -> list[Any]:
    """Return mean, deviation, deviation of changes and of 1-s averages, and a soft histogram of each column."""
    import keras
    from keras import ops

    lags = [lag for lag in LAGS if lag <= n_frames // 4]  # shorter than any crop
    changes = [_statistics(frames[:, lag:] - frames[:, :-lag])[1] for lag in lags]
    slow = _statistics(keras.layers.AveragePooling1D(SLOW_FRAMES, padding="same")(frames))[1]
    histogram = [ops.mean(ops.sigmoid(HISTOGRAM_STEEPNESS * (frames - edge)), axis=1) for edge in HISTOGRAM_EDGES]
    return [*_statistics(frames), *changes, slow, *histogram]


def _statistics(frames: Any) -> list[Any]:
    """Return mean and standard deviation over time."""
    from keras import ops

    variance = ops.var(frames, axis=1)
    return [ops.mean(frames, axis=1), ops.sqrt(variance + MIN_VARIANCE)]


def _lstm2016(shapes: Mapping[str, tuple[int, int]], n_genres: int, params: TrainParams) -> keras.Model:
    """Return members [shape=(batch, members, genres)] like the network of the first version.

    For each feature, convolutions (with pooling for MFCC) and an LSTM.
    """
    import keras
    from keras import layers, ops

    inputs = {part: keras.Input((None, columns), name=part) for part, (_, columns) in shapes.items()}

    def member() -> Any:
        branches = []
        if "mfcc" in inputs:
            hidden = layers.Conv1D(100, 4, activation="sigmoid")(inputs["mfcc"])
            hidden = layers.Conv1D(20, 4, activation="sigmoid")(layers.MaxPooling1D(4)(hidden))
            branches.append(layers.LSTM(300)(layers.MaxPooling1D(4)(hidden)))
        if "contrast" in inputs:
            hidden = layers.Conv1D(100, 3, strides=4, activation="sigmoid")(inputs["contrast"])
            branches.append(layers.LSTM(100)(hidden))
        hidden = branches[0]
        if len(branches) > 1:
            hidden = layers.Dense(1000, activation="sigmoid")(layers.Concatenate()(branches))
        return layers.Dense(n_genres, activation="softmax")(hidden)

    return keras.Model(inputs, ops.stack([member() for _ in range(params.members)], axis=1), name="members")
