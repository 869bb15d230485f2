"""Classifiers of vectors: one score per genre from each, and a file of each that holds no pickle."""

from __future__ import annotations

import abc
import io
import itertools
import json
import zipfile
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import ModelError
from genre.models import runtime

Vectors = npt.NDArray[np.float32]  # shape (chunks, values)
Labels = npt.NDArray[np.int64]  # shape (chunks,), 0 to the number of classes - 1, each class at least once
Array = npt.NDArray[np.float64]
Scores = npt.NDArray[np.float64]  # shape (chunks, classes); softmax makes probabilities of them

NEIGHBOURS = 5
PRIOR_VOTES = 1.0  # of a neighbour that is of every class alike: no class is ever impossible
TREES = {
    "objective": "multi:softprob",
    "max_depth": 3,
    "learning_rate": 0.1,
    "subsample": 0.8,
    "colsample_bynode": 0.1,
    "tree_method": "hist",
    "nthread": 1,  # the same trees on every machine
}
ROUNDS = 200
HIDDEN = (300, 200)  # units
EPOCHS = 64
BATCH_SIZE = 32
MIN_PROBABILITY = 1e-7  # below the logarithm


class Classifier(abc.ABC):
    """What every classifier offers."""

    suffix: ClassVar[str]  # of its file
    packages: ClassVar[tuple[str, ...]]  # that have a say in the numbers
    calibrated: ClassVar[bool] = True  # whether a temperature is to be fitted to the scores of left-out songs

    @classmethod
    @abc.abstractmethod
    def fit(cls, vectors: Vectors, labels: Labels, *, seed: int) -> Self:
        """Train one; the same arguments give the same classifier."""

    @abc.abstractmethod
    def scores(self, vectors: Vectors) -> Scores:
        """Return logarithms of unnormalised probabilities."""

    @abc.abstractmethod
    def to_bytes(self) -> bytes:
        """Return its file; the same classifier gives the same bytes."""

    @classmethod
    @abc.abstractmethod
    def from_bytes(cls, data: bytes) -> Self:
        """Read its file.

        Raises
        ------
        ModelError
            If it is damaged, or holds anything that a classifier is not made of.
        """


@dataclass(frozen=True, slots=True)
class Svm(Classifier):
    """Support vector machine with a Gaussian kernel, C = 1, on standardised values; it answers with NumPy alone.

    One machine for each pair of classes, as LIBSVM has them; its file holds the arrays.
    """

    suffix = "npz"
    packages = ("scikit-learn",)

    mean: Array  # shape (values,)
    scale: Array  # shape (values,)
    support: Array  # shape (support vectors, values), standardised, those of a class side by side
    n_support: npt.NDArray[np.int64]  # of each class
    coefficients: Array  # shape (classes - 1, support vectors), as LIBSVM's sv_coef
    intercepts: Array  # shape (pairs,)
    gamma: Array  # shape (): of the kernel exp(-gamma * distance ** 2)

    @classmethod
    def fit(cls, vectors: Vectors, labels: Labels, *, seed: int) -> Self:  # noqa: ARG003 (nothing is drawn)
        """See `Classifier.fit`."""
        from sklearn.preprocessing import StandardScaler
        from sklearn.svm import SVC

        scaler = StandardScaler().fit(vectors)
        machine = SVC(C=1.0).fit(scaler.transform(vectors), labels)
        # scikit-learn turns the signs of its public attributes where there are two classes only.
        return cls(
            np.asarray(scaler.mean_, np.float64),
            np.asarray(scaler.scale_, np.float64),
            np.asarray(machine.support_vectors_, np.float64),
            np.asarray(machine.n_support_, np.int64),
            np.asarray(machine._dual_coef_, np.float64),
            np.asarray(machine._intercept_, np.float64),
            np.asarray(machine._gamma, np.float64),
        )

    def scores(self, vectors: Vectors) -> Scores:
        """Return one decision value per class: the votes of all pairs of classes, and how sure they are.

        The same as scikit-learn's `SVC.decision_function` of shape "ovr".
        """
        values = ((vectors - self.mean).astype(np.float32) / self.scale).astype(np.float32).astype(np.float64)
        squares = (values**2).sum(axis=1)[:, np.newaxis] + (self.support**2).sum(axis=1)
        kernel = np.exp(-self.gamma * np.maximum(squares - 2 * values @ self.support.T, 0.0))
        n_classes = len(self.n_support)
        ends = np.cumsum(self.n_support)
        of_class = [slice(end - n, end) for end, n in zip(ends, self.n_support, strict=True)]
        votes, sureness = np.zeros((2, len(vectors), n_classes))
        for (i, j), intercept in zip(itertools.combinations(range(n_classes), 2), self.intercepts, strict=True):
            decision = (  # above 0: class i
                kernel[:, of_class[i]] @ self.coefficients[j - 1, of_class[i]]
                + kernel[:, of_class[j]] @ self.coefficients[i, of_class[j]]
                + intercept
            )
            if n_classes == 2:
                return np.stack([decision, -decision], axis=1)
            votes[:, i] += decision >= 0
            votes[:, j] += decision < 0
            sureness[:, i] += decision
            sureness[:, j] -= decision
        scored: Scores = votes + sureness / (3 * (np.abs(sureness) + 1))  # never as much as half a vote
        return scored

    def to_bytes(self) -> bytes:
        """See `Classifier.to_bytes`."""
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **{part.name: getattr(self, part.name) for part in fields(self)})
        return stream.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """See `Classifier.from_bytes`."""
        try:
            found = cls(**files.read_npz(data))
        except Exception as error:  # a damaged file can raise nearly anything
            raise ModelError("holds no support vector machine") from error
        n_classes, n_support, n_values = len(found.n_support), len(found.support), found.mean.size
        expected = {
            "scale": (n_values,),
            "support": (n_support, n_values),
            "coefficients": (n_classes - 1, n_support),
            "intercepts": (n_classes * (n_classes - 1) // 2,),
            "gamma": (),
        }
        if found.n_support.sum() != n_support or any(getattr(found, k).shape != v for k, v in expected.items()):
            raise ModelError("holds a support vector machine whose arrays do not fit together")
        return found


class Knn(Classifier):
    """The nearest training chunks by the cosine between standardised values, nearer ones with more weight.

    A scikit-learn pipeline, kept as skops.
    """

    suffix = "skops"
    packages = ("scikit-learn", "skops")

    def __init__(self, pipeline: Any) -> None:
        self._pipeline = pipeline

    @classmethod
    def fit(cls, vectors: Vectors, labels: Labels, *, seed: int) -> Self:  # noqa: ARG003 (nothing is drawn)
        """See `Classifier.fit`."""
        from sklearn.neighbors import KNeighborsClassifier
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        neighbours = KNeighborsClassifier(
            min(NEIGHBOURS, len(vectors)), metric="cosine", weights="distance", algorithm="brute", n_jobs=1
        )
        return cls(make_pipeline(StandardScaler(), neighbours).fit(vectors, labels))

    def scores(self, vectors: Vectors) -> Scores:
        """Return the logarithm of the share of the votes that each class has."""
        shares = np.asarray(self._pipeline.predict_proba(vectors), np.float64)
        votes: Scores = NEIGHBOURS * shares + PRIOR_VOTES / shares.shape[1]
        return np.log(votes)

    def to_bytes(self) -> bytes:
        """See `Classifier.to_bytes`."""
        return _skops_bytes(self._pipeline)

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """See `Classifier.from_bytes`."""
        return cls(_from_skops(data))


class Xgboost(Classifier):
    """Gradient boosted trees."""

    suffix = "ubj"
    packages = ("xgboost", "xgboost-cpu")

    def __init__(self, booster: Any) -> None:
        self._booster = booster

    @classmethod
    def fit(cls, vectors: Vectors, labels: Labels, *, seed: int) -> Self:
        """See `Classifier.fit`."""
        xgboost = _xgboost()
        settings = TREES | {"num_class": int(labels.max()) + 1, "seed": seed}
        return cls(xgboost.train(settings, xgboost.DMatrix(vectors, labels, nthread=1), ROUNDS))

    def scores(self, vectors: Vectors) -> Scores:
        """Return the sum of the trees of each class."""
        data = _xgboost().DMatrix(vectors, nthread=1)
        return np.asarray(self._booster.predict(data, output_margin=True), np.float64)

    def to_bytes(self) -> bytes:
        """See `Classifier.to_bytes`."""
        return bytes(self._booster.save_raw("ubj"))

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """See `Classifier.from_bytes`."""
        xgboost = _xgboost()
        try:
            return cls(xgboost.Booster({"nthread": 1}, model_file=bytearray(data)))
        except xgboost.core.XGBoostError as error:
            raise ModelError(f"holds no XGBoost model: {str(error).splitlines()[0]}") from error


class Dense(Classifier):
    """A dense network, 300 and 200 ReLU, 64 epochs, with standardisation in its graph; it answers as ONNX."""

    suffix = "onnx"
    packages = ("keras", "tensorflow", "tensorflow-cpu", "onnx", "tf2onnx")
    calibrated = False  # as it was; and it would take as many trainings more as there are folds

    def __init__(self, onnx: bytes) -> None:
        self._onnx = onnx
        try:
            self._session = runtime.session(onnx)
        except ModelError as error:
            raise ModelError(f"holds no ONNX model: {error}") from error

    @classmethod
    def fit(cls, vectors: Vectors, labels: Labels, *, seed: int) -> Self:
        """See `Classifier.fit`."""
        from genre.models import keras_backend

        keras_backend.prepare()
        import keras
        from keras import layers

        from genre.models.onnx import to_onnx

        keras.utils.set_random_seed(seed)
        standardise = layers.BatchNormalization(
            center=False, scale=False, epsilon=1e-12, trainable=False, name="standardise"
        )
        vector = keras.Input((vectors.shape[1],), name="vector")
        hidden = standardise(vector)
        for i, units in enumerate(HIDDEN):
            hidden = layers.Dense(units, activation="relu", name=f"hidden_{i}")(hidden)
        output = layers.Dense(int(labels.max()) + 1, activation="softmax", name="genre")(hidden)
        means, variances = vectors.mean(axis=0, dtype=np.float64), vectors.var(axis=0, dtype=np.float64)
        standardise.set_weights([means, np.where(variances > 0, variances, 1.0)])
        network = keras.Model({"vector": vector}, output, name="dense")
        network.compile(optimizer="adam", loss="sparse_categorical_crossentropy")
        network.fit({"vector": vectors}, labels, batch_size=BATCH_SIZE, epochs=EPOCHS, verbose=0)
        return cls(to_onnx(network))

    def scores(self, vectors: Vectors) -> Scores:
        """Return the logarithms of the network's probabilities."""
        probabilities = runtime.run(self._session, {"vector": vectors}).astype(np.float64)
        return np.log(np.maximum(probabilities, MIN_PROBABILITY))

    def to_bytes(self) -> bytes:
        """See `Classifier.to_bytes`."""
        return self._onnx

    @classmethod
    def from_bytes(cls, data: bytes) -> Self:
        """See `Classifier.from_bytes`."""
        return cls(data)


CLASSIFIERS: dict[str, type[Classifier]] = {"svm": Svm, "knn": Knn, "xgboost": Xgboost, "dense": Dense}


def _xgboost() -> Any:
    try:
        import xgboost
    except ImportError:
        raise ModelError("the package xgboost is not installed: run `uv pip install xgboost-cpu`") from None
    return xgboost


def _skops() -> Any:
    try:
        import skops.io
    except ImportError:
        raise ModelError("the package skops is not installed: run `uv pip install skops`") from None
    return skops.io


def _skops_bytes(estimator: Any) -> bytes:
    """Return the skops file of an estimator, with the memory addresses and times in it replaced by numbers."""
    numbers: dict[str, str] = {}

    def numbered(node: Any) -> Any:
        if isinstance(node, list):
            return [numbered(part) for part in node]
        if not isinstance(node, dict):
            return node
        renamed = {key: numbered(part) for key, part in node.items()}
        if "__id__" in node:
            renamed["__id__"] = int(numbers.setdefault(str(node["__id__"]), str(len(numbers))))
        if "file" in node and "__loader__" in node:
            address, _, suffix = node["file"].partition(".")
            renamed["file"] = f"{numbers.setdefault(address, str(len(numbers)))}.{suffix}"
        return renamed

    target = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_skops().dumps(estimator))) as source, zipfile.ZipFile(target, "w") as copy:
        schema = json.dumps(numbered(json.loads(source.read("schema.json"))), indent=1)
        copy.writestr(zipfile.ZipInfo("schema.json"), schema)
        members = {numbers[name.partition(".")[0]]: name for name in source.namelist() if name != "schema.json"}
        for number, name in sorted(members.items(), key=lambda item: int(item[0])):
            copy.writestr(zipfile.ZipInfo(f"{number}.{name.partition('.')[2]}"), source.read(name))
    return target.getvalue()


def _from_skops(data: bytes) -> Any:
    skops = _skops()
    from sklearn.pipeline import Pipeline

    try:
        estimator = skops.loads(data, trusted=[])  # nothing beyond NumPy, SciPy and scikit-learn
    except Exception as error:  # a damaged file can raise nearly anything
        raise ModelError(f"holds no scikit-learn model that can be trusted: {error}") from error
    if not isinstance(estimator, Pipeline):
        raise ModelError(f"holds a {type(estimator).__name__}, not the model that was saved")
    return estimator
