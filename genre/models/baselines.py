"""The peers that the Conv1D models are compared with: an embedding of each chunk, and a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from genre.errors import VectorError
from genre.models import calibration, onnx
from genre.models.calibration import Calibration, Validation, calibrate, validation_folds
from genre.models.classifiers import CLASSIFIERS
from genre.params import MusicnnParams

Rows = npt.NDArray[np.int64]  # row numbers or labels [shape=(chunks,)]
Names = Sequence[str]  # one per chunk
Vectors = npt.NDArray[np.float32]  # [shape=(chunks, values)]

VALIDATION_FOLDS = 8
GAINS_DB = (6.0, -6.0)  # of the copies of the training chunks


@dataclass(frozen=True, slots=True)
class Baseline:
    """An embedding and a classifier, by their names."""

    embedding: str | None  # a key of embeddings.EMBEDDINGS; None for that of params.yaml's section musicnn
    classifier: str  # a key of classifiers.CLASSIFIERS


@dataclass(frozen=True, slots=True)
class TrainedBaseline:
    """A trained classifier and its validation predictions."""

    onnx: bytes  # `vector` to uncalibrated `probabilities` of all genres
    calibration: Calibration  # of the probabilities
    validation: Validation  # calibrated out-of-fold predictions; empty if the classifier is not validated


BASELINES: dict[str, Baseline] = {
    "stats_svm": Baseline("statistics", "svm"),
    "knn": Baseline("statistics", "knn"),
    "librosa_dense": Baseline("librosa", "dense"),
    "musicnn_svm": Baseline(None, "svm"),
    "musicnn_logistic": Baseline(None, "logistic"),
    "musicnn_xgboost": Baseline(None, "xgboost"),
}


def embedding_name(name: str, params: MusicnnParams) -> str:
    """Return the name of a baseline's embedding, a key of `embeddings.EMBEDDINGS`."""
    return BASELINES[name].embedding or params.embedding


def train(
    name: str,
    vectors: Vectors,
    labels: Rows,
    songs: Names,
    *,
    n_genres: int,
    groups: Names = (),
    copies: Vectors | None = None,
    copied: Rows | None = None,
    seed: int = 0,
) -> TrainedBaseline:
    """Train a baseline, a key of `BASELINES`; the same arguments give the same bytes.

    Its calibration is fitted on out-of-fold predictions: the songs are split into folds, and each fold is predicted by
    a classifier that is trained on the others.

    Raises VectorError if vectors, labels and songs do not match, or have fewer than two genres; ModelError if the
    classifier's package is not installed.

    Parameters
    ----------
    vectors : npt.NDArray[np.float32] [shape=(chunks, values)]
        Embeddings.
    labels, songs, groups : npt.NDArray[np.int64] [shape=(chunks,)], sequences of str
        Genre (0 to n_genres - 1), song and group of each chunk; songs of a group, by default a song, are in one fold.
    n_genres : int
        Number of outputs. A genre without chunks has a probability of 0.
    copies, copied : npt.NDArray[np.float32] [shape=(copies, values)], npt.NDArray[np.int64] [shape=(copies,)]
        Embeddings of chunks at other levels, and the row of each chunk; for training only. Without them, many songs are
        given another genre if they are made louder or quieter.
    """
    copies = vectors[:0] if copies is None else copies
    copied = np.empty(0, np.int64) if copied is None else copied
    _check(vectors, labels, songs, n_genres)
    if len(copies):
        _check(copies, labels[copied], [songs[row] for row in copied], n_genres)
    classifier = CLASSIFIERS[BASELINES[name].classifier]
    genres, classes = np.unique(labels, return_inverse=True)

    def fit(rows: Rows) -> bytes:
        used = np.isin(copied, rows)
        of_rows = classes[np.concatenate([rows, copied[used]])].astype(np.int64)
        graph = classifier.train(np.concatenate([vectors[rows], copies[used]]), of_rows, seed)
        return graph if len(genres) == n_genres else onnx.with_outputs(graph, genres, n_genres)

    all_rows = np.arange(len(labels))
    held_out = validation_folds(labels, songs, VALIDATION_FOLDS if classifier.validated else 1, groups)
    folds = [rows for rows in held_out if len(rows)]
    predictions = [predict(fit(np.setdiff1d(all_rows, rows)), vectors[rows]) for rows in folds]
    rows = np.concatenate([all_rows[:0], *folds])
    probabilities = np.concatenate([np.empty((0, n_genres), np.float32), *predictions])
    fitted = calibration.fit(probabilities, labels[rows], [songs[row] for row in rows])
    return TrainedBaseline(fit(all_rows), fitted, Validation(rows, calibrate(probabilities, fitted)))


def predict(graph: bytes, vectors: Vectors) -> npt.NDArray[np.float32]:
    """Return the uncalibrated probabilities [shape=(chunks, genres)] of a classifier, the bytes of an ONNX file."""
    return onnx.run(onnx.session(graph), {onnx.VECTOR: vectors})


def _check(vectors: Vectors, labels: Rows, songs: Sequence[str], n_genres: int) -> None:
    if vectors.ndim != 2 or not len(vectors) == len(labels) == len(songs):
        raise VectorError(f"{len(labels)} labels and {len(songs)} songs for vectors of shape {vectors.shape}")
    if not np.isfinite(vectors).all():
        raise VectorError("the embeddings contain NaN or infinity")
    if len(np.unique(labels)) < 2 or labels.min() < 0 or labels.max() >= n_genres:
        raise VectorError(f"labels must be 0 to {n_genres - 1}, of at least two genres")
