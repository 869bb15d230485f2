"""Rejection of songs that are unlike the training songs, whatever genre a classifier predicts.

The score of a song is the mean of the z-scores of its detectors: Mahalanobis distances in the statistics of the
features and in the MusiCNN embedding, averaged over the chunks, and the classifier's confidence. The threshold is a
conformal quantile of the scores of training songs, each computed without the song (Vovk et al. 2005). The mean
separates songs of other genres better than the largest z-score (docs/confidence.md).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genre import files
from genre.cache import Cache
from genre.errors import ModelError
from genre.models import cards, embeddings
from genre.models.calibration import Rows, Validation, song_means
from genre.models.embeddings import Batch, Embedder, Vectors
from genre.models.vote import vote_by_song
from genre.params import MusicnnParams
from genre.paths import Paths

Validations = Mapping[str, Validation]  # by model
Names = Sequence[str]  # one per chunk
Scores = npt.NDArray[np.float64]  # one per song or chunk

LOG = logging.getLogger(__name__)

STATISTICS = "statistics"
MAX_COMPONENTS = 64
MAX_FOLDS = 100  # of the scores of training songs; up to so many songs, each song is a fold
MIN_SONGS = 6
MIN_VARIANCE = 1e-9
MIN_SCALE = 0.1  # of a value, relative to the root mean square of all: units of MusiCNN that are always 0 do not count
# Geometric mean of the MFCC's standard deviations over time. Stationary noise of any colour has 0.094, tones and hum
# less; the lowest of 222 songs of GTZAN has 0.165.
STATIONARY = 0.125
MFCC_STD = slice(20, 40)  # of the statistics

UNLIKE, UNSURE, NO_MUSIC = "unlike the training songs", "low confidence", "noise or a tone, no music"


class Gaussians(NamedTuple):
    """A Gaussian per genre with a common shrunk covariance (Ledoit and Wolf 2004), in at most 64 components."""

    mean: Vectors  # of the values [shape=(values,)]
    scale: Vectors  # their standard deviation, at least `MIN_SCALE` [shape=(values,)]
    centres: Vectors  # of the genres [shape=(genres, values)]
    axes: Vectors  # principal components within genres [shape=(components, values)]
    variances: Vectors  # along the axes [shape=(components,)]
    rest: Vectors  # variance of each other direction [shape=()]; 0 if `unit`

    @property
    def unit(self) -> bool:
        """Return whether vectors have equal length and distances are along the axes (Mahalanobis++, ICML 2025)."""
        return not self.rest

    @classmethod
    def fit(cls, vectors: Vectors, labels: Rows, *, unit: bool) -> Gaussians:
        """Fit to the vectors [shape=(chunks, values)] and genres [shape=(chunks,)] of training chunks."""
        from sklearn.covariance import ledoit_wolf_shrinkage

        mean, variance = vectors.mean(axis=0), vectors.var(axis=0, dtype=np.float64)
        scale = np.sqrt(np.maximum(variance, MIN_SCALE**2 * variance.mean()) + MIN_VARIANCE)
        points = _standardised(vectors, mean, scale, unit=unit)
        genres, genre_of = np.unique(labels, return_inverse=True)
        centres = np.stack([points[genre_of == genre].mean(axis=0) for genre in range(len(genres))])
        within = points - centres[genre_of]
        n, values = within.shape
        spectrum, axes = np.linalg.eigh(within @ within.T if n < values else within.T @ within)
        kept = np.argsort(-spectrum)[: max(1, min(MAX_COMPONENTS, n - 1, values))]
        variances, axes = spectrum[kept] / n, axes[:, kept].T
        if n < values:
            axes = axes @ within / np.sqrt(np.maximum(spectrum[kept], MIN_VARIANCE))[:, np.newaxis]
        counted = within @ axes.T if unit else within
        shrinkage, average = ledoit_wolf_shrinkage(counted, assume_centered=True), (counted**2).sum() / counted.size
        others = ((within**2).sum() / n - variances.sum()) / max(values - len(kept), 1)
        rest = 0.0 if unit else (1 - shrinkage) * max(others, 0.0) + shrinkage * average + MIN_VARIANCE
        shrunk = (1 - shrinkage) * variances + shrinkage * average + MIN_VARIANCE
        arrays = [np.asarray(array, np.float32) for array in (mean, scale, centres, axes, shrunk, rest)]
        return cls(*arrays)

    def distances(self, vectors: Vectors) -> Scores:
        """Return the Mahalanobis distance to the nearest genre's centre [shape=(chunks,)]."""
        offsets = _standardised(vectors, self.mean, self.scale, unit=self.unit)[:, np.newaxis] - self.centres
        along = offsets @ self.axes.T.astype(np.float64)
        squares = (along**2 / self.variances).sum(axis=-1)
        if not self.unit:
            squares += np.maximum((offsets**2).sum(axis=-1) - (along**2).sum(axis=-1), 0.0) / float(self.rest)
        distances: Scores = np.sqrt(squares.min(axis=1))
        return distances


class Rejection:
    """The detectors of a project, with the scores of its training songs for one model."""

    def __init__(self, arrays: Mapping[str, Any], embedders: Sequence[Embedder], model: str, rate: float) -> None:
        """Use the arrays that `fit` returned; `rate` is the share of training songs that would be rejected."""
        self.embedders = embedders
        self._detectors = [
            (name, Gaussians(*(arrays[f"{name}.{unit}.{field}"] for field in Gaussians._fields)))
            for name, unit in _kinds(embedder.name for embedder in embedders)
        ]
        self._z = arrays["z"]
        self._confidence = arrays.get(f"confidence.{model}")
        scores = arrays["scores" if self._confidence is None else f"scores.{model}"]
        self.threshold = float(scores[min(math.ceil((len(scores) + 1) * (1 - rate) - 1e-9), len(scores)) - 1])
        self._stationary = float(arrays["stationary"])
        needed, lowest = math.ceil(1 / rate - 1 - 1e-9), 1 / (len(scores) + 1)
        warning = f"query.reject {rate:g} needs {needed} training songs; with {len(scores)} the rate is {lowest:.3f}"
        self.warnings = [] if rate >= lowest else [warning]

    def distances(self, batch: Batch) -> Scores:
        """Return each chunk's distance by detector, and last its stationarity [shape=(chunks, detectors + 1)]."""
        vectors = {embedder.name: batch.embedding(embedder) for embedder in self.embedders}
        columns = [detector.distances(vectors[name]) for name, detector in self._detectors]
        return np.stack([*columns, _log_deviation(vectors[STATISTICS])], axis=1)

    def z_scores(self, distances: Scores, confidence: float) -> Scores:
        """Return the z-score of each detector, last of the confidence, from the `distances` of a song's chunks."""
        z: Scores = (distances[:, :-1].mean(axis=0) - self._z[0]) / self._z[1]
        if self._confidence is None:
            return z
        return np.append(z, (1 - confidence - self._confidence[0]) / self._confidence[1])

    def reason(self, distances: Scores, confidence: float) -> str | None:
        """Return why a song is unknown, from the `distances` of its chunks and its confidence; None if it is not."""
        if distances[:, -1].mean() < self._stationary:
            return NO_MUSIC
        z = self.z_scores(distances, confidence)
        if z.mean() <= self.threshold:
            return None
        return UNSURE if self._confidence is not None and z[-1] == z.max() else UNLIKE


def load(paths: Paths, model: str, rate: float | None) -> Rejection | None:
    """Return the rejection of a model's songs at a rate; None if the rate is None or the project has no rejection.

    Raises ModelError if its file is missing, damaged or made with other embeddings than this version computes.
    """
    if rate is None or cards.ENSEMBLE not in cards.available(paths):
        return None
    card = cards.read(cards.ENSEMBLE, paths).rejection
    if card is None:
        LOG.warning("no song is rejected as unknown: this needs %d training songs", MIN_SONGS)
        return None
    with files.reading(paths.rejection, ModelError, "ensemble"):
        if files.sha256(paths.rejection) != card["sha256"]:
            raise ValueError("its SHA-256 differs from that in the card of the ensemble")
        detectors = [Embedder(described["name"], paths) for described in card["embeddings"]]
        if [e.describe() for e in detectors] != card["embeddings"]:
            raise ValueError("it was made with embeddings of another version")
        return Rejection(files.read_npz(paths.rejection), detectors, model, rate)


def embedders(settings: MusicnnParams, paths: Paths, cache: Cache | None = None) -> list[Embedder]:
    """Return those of a project's detectors: `STATISTICS` and, if its network is there, the MusiCNN embedding."""
    names = [STATISTICS, settings.embedding] if paths.musicnn(settings.network).is_file() else [STATISTICS]
    return [embeddings.load(name, paths, cache=cache) for name in names]


def fit(
    vectors: Mapping[str, Vectors], labels: Rows, songs: Names, validations: Validations, groups: Names = ()
) -> dict[str, Any]:
    """Return the arrays of a project's rejection; with fewer than `MIN_SONGS` songs there are none.

    `vectors` are embeddings of the training chunks by name [shape=(chunks, values)], `statistics` first; `labels`,
    `songs` and `groups` are those of the chunks. Songs are scored without their group, which is by default the song.
    `validations` are predictions of each model for songs that it was not trained on.
    """
    import pandas as pd

    song_of, names = pd.factorize(np.array(songs))
    if len(names) < MIN_SONGS:
        return {}
    group_of, _ = pd.factorize(np.array(groups if len(set(groups)) > 1 else songs))
    distances = held_out_distances(vectors, labels, song_of, group_of)
    z = np.stack([distances.mean(axis=0), distances.std(axis=0) + MIN_VARIANCE])
    z_scores = (distances - z[0]) / z[1]
    deviations = song_means(_log_deviation(vectors[STATISTICS]), song_of)
    arrays = {
        "z": z,
        "scores": np.sort(z_scores.mean(axis=1)),
        "stationary": min(math.log(STATIONARY), deviations.min()),
    }
    for name, unit in _kinds(vectors):
        gaussians = Gaussians.fit(vectors[name], labels, unit=unit)._asdict()
        arrays |= {f"{name}.{unit}.{key}": value for key, value in gaussians.items()}
    for model, validation in validations.items():
        votes = vote_by_song(validation.probabilities, [songs[row] for row in validation.rows])
        if 2 * len(votes) < len(names):
            continue
        unsure = np.array([1 - vote.confidence for vote in votes.values()])
        confidence = np.array([unsure.mean(), unsure.std() + MIN_VARIANCE])
        of_songs = z_scores[pd.Index(names).get_indexer(list(votes))]
        both = np.column_stack([of_songs, (unsure - confidence[0]) / confidence[1]])
        arrays |= {f"confidence.{model}": confidence, f"scores.{model}": np.sort(both.mean(axis=1))}
    return arrays


def held_out_distances(vectors: Mapping[str, Vectors], labels: Rows, song_of: Rows, group_of: Rows) -> Scores:
    """Return each song's distances by detectors that are fitted without its group [shape=(songs, detectors)].

    `vectors` and `labels` are as in `fit`; `song_of` and `group_of` have the numbers of each chunk's song and group.
    """
    folds, columns = group_of % MAX_FOLDS, []
    for name, unit in _kinds(vectors):
        distances = np.empty(len(labels))
        for fold in np.unique(folds):
            own = folds == fold
            gaussians = Gaussians.fit(vectors[name][~own], labels[~own], unit=unit)
            distances[own] = gaussians.distances(vectors[name][own])
        columns.append(song_means(distances, song_of))
    return np.stack(columns, axis=1)


def write(arrays: Mapping[str, Any], embedders: Sequence[Embedder], paths: Paths) -> dict[str, Any] | None:
    """Write the arrays that `fit` returned; return their description for the card of the ensemble, None without."""
    files.write_bytes(paths.rejection, files.npz(**arrays))
    if not arrays:
        return None
    n_songs = len(arrays["scores"])
    return {
        "embeddings": [embedder.describe() for embedder in embedders],
        "songs": n_songs,
        "lowest_rate": round(1 / (n_songs + 1), 6),  # of query.reject that so many songs support
        "sha256": files.sha256(paths.rejection),
    }


def _kinds(names: Iterable[str]) -> list[tuple[str, bool]]:
    """Return the detectors of embeddings: the name of each with `unit` of its Gaussians."""
    return [(name, unit) for name in names for unit in (True, False) if not (unit and name == STATISTICS)]


def _standardised(vectors: Vectors, mean: Any, scale: Any, *, unit: bool) -> Scores:
    points: Scores = (vectors.astype(np.float64) - mean) / scale
    if unit:
        points *= math.sqrt(points.shape[1]) / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), MIN_VARIANCE)
    return points


def _log_deviation(statistics: Vectors) -> Scores:
    """Return the logarithm of the geometric mean of the MFCC's standard deviations [shape=(chunks,)]."""
    deviations: Scores = np.log(statistics[:, MFCC_STD].astype(np.float64) + 1e-6).mean(axis=1)
    return deviations
