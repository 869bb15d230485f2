"""The peers that the Conv1D models are measured against: an embedding of a chunk, and a classifier of it.

A saved baseline is two files under its name: the classifier, in a form that runs no code when it is read, and a card.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre import files
from genre.cache import Cache
from genre.errors import ModelError, VectorError
from genre.features.settings import Settings
from genre.models import cards, embeddings
from genre.models.classifiers import CLASSIFIERS, Classifier
from genre.models.ensemble import Validation

Rows = npt.NDArray[np.int64]  # row numbers or labels, one per chunk

ARCHITECTURE_FOLDER = cards.ARCHITECTURE_FOLDER / "baselines"
WEIGHTS_FOLDER = cards.WEIGHTS_FOLDER / "baselines"
CALIBRATION_FOLDS = 8
TEMPERATURES_LOG = (math.log(0.2), math.log(5.0))  # few songs must not make it extreme


@dataclass(frozen=True, slots=True)
class Baseline:
    """What a baseline is made of."""

    embedding: str  # a key of embeddings.EMBEDDINGS
    classifier: str  # a key of classifiers.CLASSIFIERS


BASELINES: dict[str, Baseline] = {
    "stats_svm": Baseline("statistics", "svm"),
    "knn": Baseline("statistics", "knn"),
    "librosa_dense": Baseline("librosa", "dense"),
    "musicnn_svm": Baseline("MSD_musicnn_both", "svm"),
    "musicnn_xgboost": Baseline("MSD_musicnn_both", "xgboost"),
}


@dataclass(frozen=True, slots=True)
class Fitted:
    """A trained baseline."""

    name: str
    embedding: str
    classifier: Classifier
    classes: list[int]  # positions of the genres that there were chunks of
    n_genres: int
    temperature: float  # what scores are divided by before they become probabilities
    seed: int
    validation: Validation | None = None  # of training chunks in turn left out; None if none were, or once it is loaded

    def predict(self, vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return genre probabilities [shape=(chunks, genres)] of embedded chunks [shape=(chunks, values)].

        Raises
        ------
        ModelError
            If the vectors are not of the embedding that the baseline was trained on.
        """
        n_values = embeddings.get(self.embedding).n_values
        if vectors.ndim != 2 or vectors.shape[1] != n_values:
            raise ModelError(f"{self.name} takes vectors of {n_values} values, not of shape {vectors.shape}")
        probabilities = np.zeros((len(vectors), self.n_genres), np.float32)
        if len(vectors):
            scores = self.classifier.scores(np.asarray(vectors, np.float32)) / self.temperature
            if scores.shape != (len(vectors), len(self.classes)) or not np.isfinite(scores).all():
                raise ModelError(
                    f"{self.name} gives no score for each of its genres: run `dvc checkout` or `dvc repro`"
                )
            probabilities[:, self.classes] = np.exp(_log_softmax(scores))
        return probabilities


@dataclass(frozen=True, slots=True)
class BaselineCard:
    """What a user of a saved baseline must know."""

    model: str
    embedding: dict[str, Any]  # as embeddings.describe
    classifier: str
    genres: list[str]  # in the order of the outputs
    classes: list[int]  # positions of the genres that there were training chunks of
    settings: dict[str, Any]  # as in the card of a model
    dataset: dict[str, Any]  # name, songs and chunks trained on
    training: dict[str, Any]  # seed and temperature
    versions: dict[str, str]
    sha256: str  # of the classifier's file
    unknown: dict[str, Any] | None = None  # at what confidence to answer, as unknown.fit

    @property
    def feature_settings(self) -> Settings:
        """The settings that a song must be cut with."""
        return cards.settings_of(self.settings)


@dataclass(frozen=True, slots=True)
class Loaded:
    """A saved baseline, ready to answer; it stands where `predict.Predictor` does."""

    card: BaselineCard
    fitted: Fitted
    cache: Cache | None = None  # where vectors made of samples are looked up and kept

    @property
    def needs_samples(self) -> bool:
        """Whether it answers from the samples of a chunk; otherwise from its features."""
        return embeddings.get(self.fitted.embedding).of_samples is not None

    def predict(
        self,
        inputs: Mapping[str, npt.NDArray[np.float32]],
        samples: Sequence[npt.NDArray[np.int16]] = (),
    ) -> npt.NDArray[np.float32]:
        """Return genre probabilities of chunks.

        Parameters
        ----------
        inputs : mapping of npt.NDArray[np.float32] [shape=(chunks, frames, columns)]
            By feature.
        samples : sequence of npt.NDArray[np.int16] [shape=(n,)]
            The same chunks at the sample rate of the card; may be missing unless `needs_samples`.

        Returns
        -------
        npt.NDArray[np.float32] [shape=(chunks, genres)]

        Raises
        ------
        ModelError
            If it needs samples and there are none, or a package that it needs is not installed.
        """
        if self.needs_samples and not samples:
            raise ModelError(f"{self.card.model} answers from the samples of chunks, not from their features")
        rate = self.card.feature_settings.sample_rate
        vectors = embeddings.embed(
            self.fitted.embedding,
            features=embeddings.each_chunk(inputs),
            audio=((chunk, rate) for chunk in samples),
            cache=self.cache,
        )
        return self.fitted.predict(vectors)


def fit(
    name: str,
    vectors: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer[Any]],
    songs: Sequence[str],
    *,
    n_genres: int,
    seed: int = 0,
    embedding: str | None = None,
) -> Fitted:
    """Train a baseline; the same arguments give the same baseline.

    Where the classifier is `calibrated`, its scores become probabilities by one temperature (Guo et al. 2017, On
    calibration of neural networks), the best for chunks of songs that were left out in turn.

    Parameters
    ----------
    name : str
        A key of `BASELINES`.
    vectors : npt.NDArray[np.float32] [shape=(chunks, values)]
        As `embeddings.embed` makes them.
    labels : npt.NDArray[np.integer] [shape=(chunks,)]
        Genre of each chunk, 0 to n_genres - 1.
    songs : sequence of str
        Song of each chunk; the chunks of a song are left out together.
    n_genres : int
        Number of outputs. A genre without chunks gets a probability of 0.
    seed : int
        Of the classifier and of the songs left out.
    embedding : str
        What the vectors are, where not what `BASELINES` says.

    Raises
    ------
    VectorError
        If vectors, labels and songs do not fit together, or there are not two genres.
    ModelError
        If there is no such baseline or embedding, or a package that it needs is not installed.
    """
    baseline = get(name)
    embedding = embedding or baseline.embedding
    vectors = np.ascontiguousarray(vectors, np.float32)
    _check(vectors, labels, songs, n_genres, embedding)
    classes, targets = np.unique(labels, return_inverse=True)
    targets = targets.astype(np.int64)
    kind = CLASSIFIERS[baseline.classifier]
    classifier = kind.fit(vectors, targets, seed=seed)
    fitted = Fitted(name, embedding, classifier, classes.tolist(), n_genres, 1.0, seed)
    if not kind.calibrated:
        return fitted
    rows, scores = _left_out(kind, vectors, targets, songs, seed)
    if not len(rows):
        return fitted
    temperature = _temperature(scores, targets[rows])
    probabilities = np.zeros((len(rows), n_genres), np.float32)
    probabilities[:, classes] = np.exp(_log_softmax(scores / temperature))
    return replace(fitted, temperature=temperature, validation=Validation(rows, probabilities))


def get(name: str) -> Baseline:
    """Return the baseline of that name.

    Raises
    ------
    ModelError
        If there is none.
    """
    if name not in BASELINES:
        raise ModelError(f"there is no baseline {name}: use one of {', '.join(BASELINES)}")
    return BASELINES[name]


def card_path(name: str, root: Path = Path()) -> Path:
    """Return where the card of a baseline is."""
    return root / ARCHITECTURE_FOLDER / f"{name}_model_card.json"


def classifier_path(name: str, root: Path = Path()) -> Path:
    """Return where the classifier of a baseline is."""
    return root / WEIGHTS_FOLDER / f"{name}_model.{CLASSIFIERS[get(name).classifier].suffix}"


def available(root: Path = Path()) -> list[str]:
    """Return the names of the baselines that have a card."""
    return [name for name in BASELINES if card_path(name, root).is_file()]


def save(
    fitted: Fitted,
    root: Path = Path(),
    *,
    genres: Sequence[str],
    settings: Mapping[str, Any],
    dataset: Mapping[str, Any],
    unknown: Mapping[str, Any] | None = None,
) -> None:
    """Write the two files of a baseline: the same baseline gives the same bytes.

    Parameters
    ----------
    fitted : Fitted
    root : Path
        The folder that model_architecture/ and model_weights/ are in.
    genres : sequence of str
        In the order of the outputs.
    settings : mapping
        What the chunks were made with, as `Settings.to_dict`.
    dataset : mapping
        Name, songs and chunks trained on.
    unknown : mapping or None
        At what confidence to answer, as `unknown.fit`.
    """
    path = classifier_path(fitted.name, root)
    files.write_bytes(path, fitted.classifier.to_bytes())
    described = BaselineCard(
        model=fitted.name,
        embedding=embeddings.describe(fitted.embedding),
        classifier=BASELINES[fitted.name].classifier,
        genres=list(genres),
        classes=fitted.classes,
        settings=dict(settings),
        dataset=dict(dataset),
        training={"seed": fitted.seed, "temperature": fitted.temperature},
        versions=cards.installed_versions(("numpy", *fitted.classifier.packages)),
        sha256=files.sha256(path),
        unknown=None if unknown is None else dict(unknown),
    )
    files.write_json(card_path(fitted.name, root), asdict(described))


def load(name: str, root: Path = Path(), *, cache: Cache | None = None) -> Loaded:
    """Read a saved baseline; cache as for `predict.load`.

    Raises
    ------
    ModelError
        If there is none, it is damaged, its features or its embedding were made otherwise than this version makes
        them, its two files do not belong together, or its classifier holds what a classifier is not made of.
    """
    card = read_card(name, root)
    path, of_classifier = card_path(name, root), classifier_path(name, root)
    try:
        data = of_classifier.read_bytes()
    except OSError:
        raise ModelError(f"{of_classifier} is not there: `dvc repro` makes it, `dvc pull` fetches it") from None
    if files.sha256(of_classifier) != card.sha256:
        raise ModelError(f"{of_classifier} is not the file that {path} describes: run `dvc checkout` or `dvc repro`")
    try:
        classifier = CLASSIFIERS[card.classifier].from_bytes(data)
    except ModelError as error:
        raise ModelError(f"{of_classifier} {error}") from error
    embeddings.prepare(card.embedding["name"])
    return Loaded(
        card,
        Fitted(
            name,
            card.embedding["name"],
            classifier,
            card.classes,
            len(card.genres),
            card.training["temperature"],
            card.training["seed"],
        ),
        cache,
    )


def read_card(name: str, root: Path = Path()) -> BaselineCard:
    """Read and check the card of a saved baseline.

    Raises
    ------
    ModelError
        As `load`, but for what is wrong with the classifier.
    """
    path = card_path(name, root)
    try:
        card = BaselineCard(**files.read_json(path))
        cards.check_answers(card.genres, card.unknown)
    except FileNotFoundError:
        raise ModelError(
            f"the baseline {name} is not trained (there are: {', '.join(available(root)) or 'none'});"
            f" `python -m stages.baselines {name}` trains it"
        ) from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    cards.check_settings(card.settings, path)
    try:
        ours = embeddings.describe(card.embedding["name"])
        float(card.training["temperature"]), int(card.training["seed"])
        known_classes = all(0 <= position < len(card.genres) for position in card.classes)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    if card.model != name or card.classifier != BASELINES[name].classifier or not known_classes:
        raise ModelError(f"{path} is not the card of {name}: train it again")
    if card.embedding != ours:
        raise ModelError(
            f"{path}: trained on the embedding {card.embedding}, this version makes {ours}; train it again"
        )
    return card


def _check(
    vectors: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer[Any]],
    songs: Sequence[str],
    n_genres: int,
    embedding: str,
) -> None:
    n_values = embeddings.get(embedding).n_values
    if vectors.shape != (len(labels), n_values) or len(songs) != len(labels):
        raise VectorError(
            f"vectors of {embedding} have shape {vectors.shape}, expected ({len(labels)}, {n_values});"
            f" {len(labels)} labels and {len(songs)} songs"
        )
    if not np.isfinite(vectors).all():
        raise VectorError(f"vectors of {embedding} hold values that are no numbers")
    if len(np.unique(labels)) < 2 or labels.min() < 0 or labels.max() >= n_genres:
        raise VectorError(f"labels must be 0 to {n_genres - 1}, of at least two genres")


def _left_out(
    kind: type[Classifier], vectors: npt.NDArray[np.float32], labels: Rows, songs: Sequence[str], seed: int
) -> tuple[Rows, npt.NDArray[np.float64]]:
    """Return chunks, and the scores that classifiers trained without their songs give them."""
    rows, scores = [np.empty(0, np.int64)], []
    for out in _folds(labels, songs, np.random.default_rng(seed)):
        training = np.setdiff1d(np.arange(len(labels)), out)
        rows.append(out)
        scores.append(kind.fit(vectors[training], labels[training], seed=seed).scores(vectors[out]))
    return np.concatenate(rows), np.concatenate(scores) if scores else np.empty((0, 0))


def _temperature(scores: npt.NDArray[np.float64], labels: Rows) -> float:
    """Return the temperature of the least log loss."""
    from scipy.optimize import minimize_scalar

    def log_loss(log_temperature: float) -> float:
        scaled = _log_softmax(scores / math.exp(log_temperature))
        return float(-scaled[np.arange(len(labels)), labels].mean())

    return math.exp(minimize_scalar(log_loss, bounds=TEMPERATURES_LOG, method="bounded").x)


def _folds(labels: Rows, songs: Sequence[str], rng: np.random.Generator) -> Iterator[Rows]:
    """Yield the chunks to leave out in turn: whole songs, every genre dealt out evenly.

    The song of a genre that has no other is never left out, so that every genre is always among the rest.
    """
    genre_of = dict(zip(songs, labels.tolist(), strict=True))
    fold_of: dict[str, int] = {}
    for genre in sorted(set(genre_of.values())):
        of_genre = sorted(song for song, g in genre_of.items() if g == genre)
        if len(of_genre) > 1:
            fold_of |= {of_genre[i]: position for position, i in enumerate(rng.permutation(len(of_genre)))}
    folds = np.array([fold_of.get(song, -1) for song in songs])
    for fold in range(CALIBRATION_FOLDS):
        rows = np.flatnonzero((folds >= 0) & (folds % CALIBRATION_FOLDS == fold))
        if len(rows):
            yield rows


def _log_softmax(scores: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    shifted = scores - scores.max(axis=1, keepdims=True)
    values: npt.NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return values
