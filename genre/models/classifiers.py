"""Classifiers of embeddings, each trained with its library and exported to ONNX.

The ONNX file maps `vector` [shape=(chunks, values)] to uncalibrated `probabilities` [shape=(chunks, classes)].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre.errors import ModelError
from genre.models import onnx

Vectors = npt.NDArray[np.float32]  # [shape=(chunks, values)]
Labels = npt.NDArray[np.int64]  # [shape=(chunks,)], 0 to classes - 1; every class at least once

NEIGHBOURS = 5
MIN_DISTANCE = 1e-7  # of a neighbour: a copy of the chunk outweighs all others
PRIOR_VOTES = 1.0  # votes shared evenly by all classes, so that none has a probability of 0
TREES = {
    "n_estimators": 200,
    "max_depth": 3,
    "learning_rate": 0.1,
    "subsample": 0.8,
    "colsample_bynode": 0.1,
    "tree_method": "hist",
    "n_jobs": 1,  # the same trees on every machine
}
HIDDEN = (300, 200)  # units
EPOCHS = 64
BATCH_SIZE = 32


@dataclass(frozen=True, slots=True)
class Classifier:
    """A kind of classifier."""

    train: Callable[[Vectors, Labels, int], bytes]  # vectors, labels and seed to the bytes of an ONNX file
    packages: tuple[str, ...]  # packages whose versions change the numbers
    validated: bool = True  # whether it is also trained on validation folds, for calibration


def exported(estimator: Callable[[int], Any], export: Callable[[Any, int], bytes]) -> Callable[..., bytes]:
    """Return the `train` of a `Classifier`, given the untrained estimator for a seed and its export to ONNX."""
    return lambda vectors, labels, seed: export(estimator(seed).fit(vectors, labels), vectors.shape[1])


def svm(_seed: int) -> Any:
    """Return an untrained support vector machine with a Gaussian kernel, C = 1, on standardised values.

    Its probabilities in ONNX are the softmax of scikit-learn's one-vs-rest decision values.
    """
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    return make_pipeline(StandardScaler(), SVC(C=1.0))


def logistic(_seed: int) -> Any:
    """Return untrained L2-regularised logistic regression on standardised values: accurate with few songs per genre."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))


def train_knn(vectors: Vectors, labels: Labels, seed: int) -> bytes:  # noqa: ARG001 (deterministic)
    """Return the vote of the nearest training chunks by cosine distance, weighted by its inverse.

    Its probabilities are the shares of 5 neighbours' votes and one vote shared by all classes.
    """
    from onnx import numpy_helper, parser
    from sklearn.preprocessing import StandardScaler, normalize

    scaler = StandardScaler().fit(vectors)
    n_classes = int(labels.max()) + 1
    constants = {
        "mean": scaler.mean_.astype(np.float32),
        "scale": scaler.scale_.astype(np.float32),
        "training": normalize(scaler.transform(vectors)).T.astype(np.float32),
        "classes": np.eye(n_classes, dtype=np.float32)[labels],
        "k": np.array([min(NEIGHBOURS, len(vectors))]),
        "one": np.float32(1.0),
        "least": np.float32(MIN_DISTANCE),
        "neighbours": np.float32(NEIGHBOURS),
        "prior": np.float32(PRIOR_VOTES / n_classes),
        "total": np.float32(NEIGHBOURS + PRIOR_VOTES),
        "last": np.array([2]),
        "middle": np.array([1]),
    }
    text = Path(__file__).with_name("knn.onnxtxt").read_text(encoding="utf-8")
    model = parser.parse_model(text.replace("VALUES", str(vectors.shape[1])).replace("CLASSES", str(n_classes)))
    model.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in constants.items())
    return bytes(model.SerializeToString(deterministic=True))


def xgboost(seed: int) -> Any:
    """Return untrained gradient boosted trees."""
    try:
        from xgboost import XGBClassifier
    except ImportError:
        raise ModelError("the package xgboost is not installed: run `make setup`") from None
    return XGBClassifier(**TREES, random_state=seed)


def train_dense(vectors: Vectors, labels: Labels, seed: int) -> bytes:
    """Return a dense network, 300 and 200 ReLU, trained for 64 epochs, with standardisation in its graph."""
    from genre.models import keras_backend

    keras_backend.prepare()
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    standardise = layers.BatchNormalization(
        center=False, scale=False, epsilon=1e-12, trainable=False, name="standardise"
    )
    vector = keras.Input((vectors.shape[1],), name=onnx.VECTOR)
    hidden = standardise(vector)
    for i, units in enumerate(HIDDEN):
        hidden = layers.Dense(units, activation="relu", name=f"hidden_{i}")(hidden)
    output = layers.Dense(int(labels.max()) + 1, activation="softmax", name="genre")(hidden)
    means, variances = vectors.mean(axis=0, dtype=np.float64), vectors.var(axis=0, dtype=np.float64)
    standardise.set_weights([means, np.where(variances > 0, variances, 1.0)])
    network = keras.Model({onnx.VECTOR: vector}, output, name="dense")
    network.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
    network.fit({onnx.VECTOR: vectors}, labels, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
    return onnx.from_keras(network)


CLASSIFIERS: dict[str, Classifier] = {
    "svm": Classifier(exported(svm, onnx.from_svm), ("scikit-learn", "skl2onnx")),
    "logistic": Classifier(exported(logistic, onnx.from_svm), ("scikit-learn", "skl2onnx")),
    "knn": Classifier(train_knn, ("scikit-learn",)),
    "xgboost": Classifier(exported(xgboost, onnx.from_xgboost), ("xgboost", "xgboost-cpu", "onnxmltools")),
    "dense": Classifier(train_dense, ("keras", "tensorflow", "tensorflow-cpu", "tf2onnx"), validated=False),
}
