"""The peers that the Conv1D models are compared with: an embedding of each chunk, and a classifier.

Each classifier is trained with its library and exported to ONNX. The ONNX file maps `vector` [shape=(chunks, values)]
to uncalibrated `probabilities` [shape=(chunks, classes)].
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from genre.features.arrays import VectorSet
from genre.models import calibration, onnx
from genre.models.calibration import Calibration, Probabilities, Rows, Validation, calibrate, validation_folds
from genre.models.embeddings import Vectors
from genre.models.vote import middle_rows
from genre.params import MusicnnParams

VALIDATION_FOLDS = 8
GAINS_DB = (6.0, -6.0)  # of the copies of the training chunks

NEIGHBOURS = 5
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


class Classifier(NamedTuple):
    """A kind of classifier."""

    train: Callable[[Vectors, Rows, int], bytes]  # vectors, labels from 0 to classes - 1, seed to ONNX
    packages: tuple[str, ...]  # packages whose versions change the numbers
    validated: bool = True  # whether it is also trained on validation folds, for calibration


class Baseline(NamedTuple):
    """An embedding and a classifier, by their names."""

    embedding: str | None  # a key of `embeddings.EMBEDDINGS`; None for that of params.yaml's section musicnn
    classifier: str  # a key of `CLASSIFIERS`


class TrainedBaseline(NamedTuple):
    """A trained classifier and its validation predictions."""

    onnx: bytes  # `vector` to uncalibrated `probabilities` of all genres
    calibration: Calibration  # of the probabilities
    validation: Validation  # calibrated out-of-fold predictions; empty if the classifier is not validated


def embedding_name(name: str, params: MusicnnParams) -> str:
    """Return the name of a baseline's embedding, a key of `embeddings.EMBEDDINGS`."""
    return BASELINES[name].embedding or params.embedding


def train(
    name: str, vectors: Vectors, data: VectorSet, *, copies: Vectors | None = None, seed: int = 0
) -> TrainedBaseline:
    """Train a baseline, a key of `BASELINES`; the same arguments give the same bytes.

    Its calibration is fitted on out-of-fold predictions: the groups are split into folds, and each fold is predicted by
    a classifier that is trained on the others. A genre without chunks has a probability of 0.

    `vectors` [shape=(chunks, values)] are embeddings of the chunks of `data`, which have at least two genres; features
    are not used. `copies` [shape=(levels * songs, values)] are those of `middle_rows` at other levels, for training
    only; without them, many songs are given another genre if they are made louder or quieter.
    """
    all_rows, n_genres = np.arange(len(vectors)), len(data.genres)
    of_levels = vectors[:0] if copies is None else copies
    inputs = np.concatenate([vectors, of_levels])
    row_of = np.concatenate([all_rows, np.resize(middle_rows(data.songs), len(of_levels))])  # np.resize repeats

    def fit(rows: Rows) -> bytes:
        used = np.isin(row_of, rows)
        return classifier(name, inputs[used], data.labels[row_of[used]], n_genres, seed)

    is_validated = CLASSIFIERS[BASELINES[name].classifier].validated
    held_out = validation_folds(data.labels, data.songs, VALIDATION_FOLDS if is_validated else 1, data.groups)
    folds = [rows for rows in held_out if len(rows)]
    predictions = [predict(fit(np.setdiff1d(all_rows, rows)), vectors[rows]) for rows in folds]
    rows = np.concatenate([all_rows[:0], *folds])
    probabilities = np.concatenate([np.empty((0, n_genres), np.float32), *predictions])
    fitted = calibration.fit(probabilities, data.labels[rows], [data.songs[row] for row in rows])
    return TrainedBaseline(fit(all_rows), fitted, Validation(rows, calibrate(probabilities, fitted)))


def classifier(name: str, vectors: Vectors, labels: Rows, n_genres: int, seed: int = 0) -> bytes:
    """Return the trained classifier of a baseline, without calibration, as the bytes of an ONNX file.

    Arguments are as for `train`, but `labels` may lack genres, which get a probability of 0.
    """
    genres, classes = np.unique(labels, return_inverse=True)
    graph = CLASSIFIERS[BASELINES[name].classifier].train(vectors, classes.astype(np.int64), seed)
    return graph if len(genres) == n_genres else onnx.with_outputs(graph, genres, n_genres)


def predict(graph: bytes, vectors: Vectors) -> Probabilities:
    """Return the uncalibrated probabilities [shape=(chunks, genres)] of a classifier, the bytes of an ONNX file."""
    return onnx.run(onnx.session(graph), {onnx.VECTOR: vectors})


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


def train_knn(vectors: Vectors, labels: Rows, seed: int) -> bytes:  # noqa: ARG001 (deterministic)
    """Return the vote of the nearest training chunks by cosine distance, weighted by its inverse.

    Its probabilities are the shares of 5 neighbours' votes and one vote shared by all classes.
    """
    from sklearn.preprocessing import StandardScaler, normalize

    scaler = StandardScaler().fit(vectors)
    n_classes = int(labels.max()) + 1
    constants = {
        "mean": scaler.mean_.astype(np.float32),
        "scale": scaler.scale_.astype(np.float32),
        "training": normalize(scaler.transform(vectors)).T.astype(np.float32),
        "classes": np.eye(n_classes, dtype=np.float32)[labels],
        "k": np.array([min(NEIGHBOURS, len(vectors))]),
        "neighbours": np.float32(NEIGHBOURS),
        "prior": np.float32(PRIOR_VOTES / n_classes),
        "total": np.float32(NEIGHBOURS + PRIOR_VOTES),
    }
    return onnx.from_text("knn.onnxtxt", constants, VALUES=vectors.shape[1], CLASSES=n_classes)


def xgboost(seed: int) -> Any:
    """Return untrained gradient boosted trees."""
    from xgboost import XGBClassifier

    return XGBClassifier(**TREES, random_state=seed)


def train_dense(vectors: Vectors, labels: Rows, seed: int) -> bytes:
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
BASELINES: dict[str, Baseline] = {
    "stats_svm": Baseline("statistics", "svm"),
    "knn": Baseline("statistics", "knn"),
    "librosa_dense": Baseline("librosa", "dense"),
    "musicnn_svm": Baseline(None, "svm"),
    "musicnn_logistic": Baseline(None, "logistic"),
    "musicnn_xgboost": Baseline(None, "xgboost"),
}
