"""Keras architectures that turn the features of one chunk of audio into genre probabilities.

A model is one graph from the raw features to the probabilities, so its JSON and weights, or its ONNX file, are
all that a prediction needs. Its parts are found by name:

- `frontend`: logarithm of the spectral contrast, columns standardised by constants that `standardise` sets;
- `member_0`, `member_1`, ...: networks of one shape, trained apart, whose probabilities are averaged;
- `genre`: the average, calibrated by `set_temperature`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genre.errors import ModelError
from genre.features.transforms import CONTRAST_FLOOR, CONTRAST_PEAKS, CONTRAST_VALLEYS, MFCC

if TYPE_CHECKING:
    import keras

MODELS: dict[str, tuple[str, ...]] = {
    "mfcc": (MFCC.feature,),
    "spectral_contrast": (CONTRAST_PEAKS.feature, CONTRAST_VALLEYS.feature),
    "merged": (MFCC.feature, CONTRAST_PEAKS.feature, CONTRAST_VALLEYS.feature),
}
ARCHITECTURES = ("conv1d", "lstm2016")

CLIP = 5.0  # standard deviations; a value further out says no more than one at the limit
MIN_VARIANCE = 1e-4  # of a standardised column over time, so that the square root has a finite slope
MIN_PROBABILITY = 1e-7  # below the logarithm

LAGS = (1, 3, 10)  # frames; changes over 46, 139 and 464 ms
SECOND = 20  # frames; 0.93 s
EDGES = (-1.5, -0.5, 0.5, 1.5)  # standard deviations
STEEPNESS = 4.0  # of a histogram's edge, per standard deviation


def build(
    model: str,
    *,
    architecture: str = "conv1d",
    inputs: Mapping[str, tuple[int, int]],
    n_genres: int,
    members: int = 1,
    filters: int = 32,
    dropout: float = 0.4,
) -> keras.Model:
    """Return an untrained model from raw features to probabilities.

    Parameters
    ----------
    model
        Which features it sees: a key of `MODELS`.
    architecture
        `conv1d`, or `lstm2016` (the convolutions and LSTM of the project's first version).
    inputs
        Frames and columns of each feature; features that the model does not see are ignored.
    n_genres
        Number of outputs.
    members
        Networks to average.
    filters
        Channels of each convolution of `conv1d`.
    dropout
        Share of the pooled statistics that `conv1d` hides in training.

    Returns
    -------
    keras.Model
        Inputs named by feature: float32 (batch, frames, columns) as in the feature's CSV. Output `genre`:
        float32 (batch, n_genres), each row sums to 1.

    Raises
    ------
    ModelError
        For an unknown model or architecture, or a feature that is missing.
    """
    import keras

    shapes = _shapes_of(model, inputs)
    if architecture not in ARCHITECTURES:
        raise ModelError(f"unknown architecture {architecture!r}: use one of {', '.join(ARCHITECTURES)}")
    fused = architecture == "conv1d"
    raw = {feature: keras.Input(shape, name=feature) for feature, shape in shapes.items()}
    prepared = _frontend(shapes, fused=fused)(raw)
    parts = {name: (tensor.shape[1], tensor.shape[2]) for name, tensor in prepared.items()}
    networks = [
        _conv1d(parts, n_genres, filters=filters, dropout=dropout, name=f"member_{i}")
        if fused
        else _lstm2016(parts, n_genres, name=f"member_{i}")
        for i in range(members)
    ]
    votes = [network(prepared) for network in networks]
    average = keras.layers.Average()(votes) if members > 1 else votes[0]
    complete = keras.Model(raw, _calibrated(average, n_genres), name=model)
    set_temperature(complete, 1.0)
    return complete


def standardise(model: keras.Model, inputs: Mapping[str, npt.NDArray[np.float32]]) -> None:
    """Set the constants of the model's `frontend` to the means and variances of `inputs`.

    Parameters
    ----------
    model
        As `build` returns it.
    inputs
        Raw features, float32 (chunks, frames, columns) each.
    """
    import keras

    frontend = model.get_layer("frontend")
    for layer in frontend.layers:
        if isinstance(layer, keras.layers.BatchNormalization):
            values = keras.Model(frontend.input, layer.input).predict(dict(inputs), verbose=0)
            axes = tuple(range(values.ndim - 1))
            layer.set_weights([values.mean(axes, dtype=np.float64), values.var(axes, dtype=np.float64)])


def set_temperature(model: keras.Model, temperature: float) -> None:
    """Divide the model's log-probabilities by `temperature` (Guo et al. 2017, On calibration of neural networks)."""
    layer = model.get_layer("genre")
    layer.set_weights([np.eye(layer.units, dtype=np.float32) / temperature])


def _shapes_of(model: str, inputs: Mapping[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    if model not in MODELS:
        raise ModelError(f"unknown model {model!r}: use one of {', '.join(MODELS)}")
    missing = [feature for feature in MODELS[model] if feature not in inputs]
    if missing:
        raise ModelError(f"model {model!r} needs the feature {missing[0]}, and there are no vectors of it")
    return {feature: inputs[feature] for feature in MODELS[model]}


def _frontend(shapes: Mapping[str, tuple[int, int]], *, fused: bool) -> keras.Model:
    """Raw features to standardised `mfcc` and `contrast`, or to both side by side as `fused`."""
    import keras

    raw = {feature: keras.Input(shape, name=feature) for feature, shape in shapes.items()}
    parts = {}
    if MFCC.feature in raw:
        parts["mfcc"] = _mfcc_columns(raw[MFCC.feature])
    if CONTRAST_PEAKS.feature in raw:
        parts["contrast"] = _contrast_columns(raw[CONTRAST_PEAKS.feature], raw[CONTRAST_VALLEYS.feature])
    return keras.Model(raw, {"fused": _map_threads(parts)} if fused else parts, name="frontend")


def _mfcc_columns(mfcc: Any) -> Any:
    from keras import ops

    # Digital silence is exact zeros, which would be a c0 louder than any music: make it the average frame.
    sounding = ops.any(ops.not_equal(mfcc, 0.0), axis=-1, keepdims=True)
    return _standardised(mfcc) * ops.cast(sounding, "float32")


def _contrast_columns(peaks: Any, valleys: Any) -> Any:
    import keras
    from keras import ops

    high = ops.log(ops.maximum(peaks, CONTRAST_FLOOR))
    low = ops.log(ops.maximum(valleys, CONTRAST_FLOOR))
    return _standardised(keras.layers.Concatenate()([high, low, high - low]))


def _standardised(columns: Any) -> Any:
    """Columns with mean 0 and variance 1, clipped."""
    import keras
    from keras import ops

    # Not keras.layers.Normalization: its constants come out of the ONNX export as inputs that nobody feeds.
    layer = keras.layers.BatchNormalization(center=False, scale=False, epsilon=1e-6, trainable=False)
    return ops.clip(layer(columns), -CLIP, CLIP)


def _map_threads(parts: Mapping[str, Any]) -> Any:
    """All columns at the frame rate of the MFCC."""
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


def _conv1d(
    shapes: Mapping[str, tuple[int, int]], n_genres: int, *, filters: int, dropout: float, name: str
) -> keras.Model:
    """Two convolutions; statistics over time of what goes in and of both; one dense layer.

    The statistics are what makes few songs enough: a linear model on those of the input is already a good one.
    """
    import keras
    from keras import layers

    inputs = {part: keras.Input((None, columns), name=part) for part, (_, columns) in shapes.items()}
    hidden = inputs["fused"]
    pooled = _input_statistics(hidden, shapes["fused"][0])
    for width in (5, 3):
        hidden = layers.Conv1D(filters, width, padding="same", use_bias=False)(hidden)
        hidden = layers.Activation("relu")(layers.BatchNormalization(momentum=0.9)(hidden))
        pooled += _statistics(hidden)
    summary = layers.BatchNormalization(momentum=0.9)(layers.Concatenate()(pooled))
    output = layers.Dense(n_genres, activation="softmax")(layers.Dropout(dropout)(summary))
    return keras.Model(inputs, output, name=name)


def _input_statistics(frames: Any, n_frames: int) -> list[Any]:
    """Mean, deviation, deviation of changes and of second-long averages, and a soft histogram of each column."""
    import keras
    from keras import ops

    lags = [lag for lag in LAGS if lag <= n_frames // 4]  # shorter than any piece that training cuts out
    changes = [_statistics(frames[:, lag:] - frames[:, :-lag])[1] for lag in lags]
    slow = _statistics(keras.layers.AveragePooling1D(SECOND, padding="same")(frames))[1]
    histogram = [ops.mean(ops.sigmoid(STEEPNESS * (frames - edge)), axis=1) for edge in EDGES]
    return [*_statistics(frames), *changes, slow, *histogram]


def _statistics(frames: Any) -> list[Any]:
    """Mean and standard deviation over time."""
    from keras import ops

    variance = ops.var(frames, axis=1)
    return [ops.mean(frames, axis=1), ops.sqrt(variance + MIN_VARIANCE)]


def _lstm2016(shapes: Mapping[str, tuple[int, int]], n_genres: int, *, name: str) -> keras.Model:
    """The networks of 2016: convolution, pooling and LSTM per feature, sigmoid throughout."""
    import keras
    from keras import layers

    inputs = {part: keras.Input((None, columns), name=part) for part, (_, columns) in shapes.items()}
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
    return keras.Model(inputs, layers.Dense(n_genres, activation="softmax")(hidden), name=name)


def _calibrated(probabilities: Any, n_genres: int) -> Any:
    """The output layer: a softmax of the log-probabilities times a constant, which `set_temperature` sets."""
    import keras
    from keras import ops

    logarithms = ops.log(ops.maximum(probabilities, MIN_PROBABILITY))
    return keras.layers.Dense(n_genres, use_bias=False, activation="softmax", trainable=False, name="genre")(logarithms)
