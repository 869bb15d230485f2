"""The ensemble: the calibrated average of several models, and whether it is what `query` answers with.

Temperature and choice come from validation songs: songs of the training side, each predicted by networks and
classifiers that had not seen it. The test songs have no say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import ModelError
from genre.evaluation import metrics
from genre.features.settings import Settings
from genre.models import cards
from genre.models import unknown as unknowns

NAME = "ensemble"
FALLBACK = "merged"  # what query answers with where the ensemble is no better

Probabilities = npt.NDArray[np.float32]  # shape (chunks, genres)

TEMPERATURES_LOG = (np.log(0.2), np.log(5.0))
MIN_PROBABILITY = 1e-7


@dataclass(frozen=True, slots=True)
class Validation:
    """What a model says of training chunks that it had not seen."""

    rows: npt.NDArray[np.int64]  # positions among the training chunks
    probabilities: Probabilities


@dataclass(frozen=True, slots=True)
class EnsembleCard:
    """What the ensemble is made of."""

    model: str
    models: list[str]
    temperature: float
    default: str  # what query answers with when no model is asked for
    scores: dict[str, dict[str, float]]  # of every model and the ensemble, on the same validation songs
    genres: list[str]
    settings: dict[str, object]
    unknown: dict[str, Any] | None = None  # at what confidence to answer, as unknown.fit
    unknown_far: float | None = None  # the rate of false acceptance that every model's threshold is taken for

    @property
    def feature_settings(self) -> Settings:
        """The settings that a song must be cut with."""
        return cards.settings_of(self.settings)


def combine(probabilities: Sequence[Probabilities], temperature: float) -> Probabilities:
    """Return the average of several models' probabilities, sharpened or flattened by a temperature."""
    mean = np.mean(probabilities, axis=0, dtype=np.float64)
    powered = np.maximum(mean, MIN_PROBABILITY) ** (1 / temperature)
    combined: Probabilities = (powered / powered.sum(axis=1, keepdims=True)).astype(np.float32)
    return combined


def fit(
    validations: Mapping[str, Validation],
    labels: npt.NDArray[np.int64],
    songs: Sequence[str],
    *,
    genres: Sequence[str],
    settings: Mapping[str, object],
    unknown_far: float | None = None,
) -> EnsembleCard:
    """Fit the temperature of the ensemble, and choose what query answers with.

    Parameters
    ----------
    validations : mapping of Validation
        Of every model of the ensemble, and of `merged` if it is not one of them.
    labels, songs : of the training chunks
    genres, settings : of the models
    unknown_far : float or None
        Rate of false acceptance that the models' thresholds for "unknown" are taken for; None for no threshold.

    Raises
    ------
    ModelError
        If there is no validation song that all models have left out.
    """
    from scipy.optimize import minimize_scalar

    rows = _common_rows(list(validations.values()))
    if not len(rows):
        raise ModelError(
            "the models of the ensemble have no validation song in common: raise train.validation_fraction"
        )
    found = {name: _at(validation, rows) for name, validation in validations.items()}
    actual, names = labels[rows], [songs[row] for row in rows]

    def log_loss(log_temperature: float) -> float:
        combined = combine(list(found.values()), float(np.exp(log_temperature)))
        return metrics.scores(metrics.by_song(combined, actual, names))["log_loss"]

    temperature = float(np.exp(minimize_scalar(log_loss, bounds=TEMPERATURES_LOG, method="bounded").x))
    candidates = {**found, NAME: combine(list(found.values()), temperature)}
    scores = {}
    for name, probabilities in candidates.items():
        scored = metrics.scores(metrics.by_song(probabilities, actual, names))
        scores[name] = {key: scored[key] for key in ("song_accuracy", "log_loss", "n_songs")}
    default = NAME
    if FALLBACK in scores and _rank(scores[FALLBACK]) >= _rank(scores[NAME]):
        default = FALLBACK
    return EnsembleCard(
        model=NAME,
        models=list(validations),
        temperature=temperature,
        default=default,
        scores=scores,
        genres=list(genres),
        settings=dict(settings),
        unknown=fit_unknown(list(validations.values()), labels, songs, temperature),
        unknown_far=unknown_far,
    )


def fit_unknown(
    validations: Sequence[Validation],
    labels: npt.NDArray[np.int64],
    songs: Sequence[str],
    temperature: float = 1.0,
) -> dict[str, Any] | None:
    """Return at what confidence to answer, as `unknown.fit`, of a model or of the average of several.

    Parameters
    ----------
    validations : sequence of Validation
    labels, songs : of the training chunks
    temperature : float
        Of the average.
    """
    rows = _common_rows(validations)
    if not len(rows):
        return None
    actual, names = labels[rows], [songs[row] for row in rows]
    found = [_at(validation, rows) for validation in validations]
    struck = [unknowns.strike(probabilities, actual) for probabilities in found]
    return unknowns.fit(combine(found, temperature), combine(struck, temperature), actual, names)


def card_path(root: Path = Path()) -> Path:
    """Return where the card of the ensemble is."""
    return root / cards.ARCHITECTURE_FOLDER / f"{NAME}_model_card.json"


def write(card: EnsembleCard, root: Path = Path()) -> None:
    """Write the card."""
    files.write_json(card_path(root), asdict(card))


def read(root: Path = Path()) -> EnsembleCard:
    """Read and check the card.

    Raises
    ------
    ModelError
        If it is missing or damaged, or made with other settings than this version's.
    """
    path = card_path(root)
    try:
        card = EnsembleCard(**files.read_json(path))
        cards.check_answers(card.genres, card.unknown)
        names = [card.default, *card.models]
        if not all(isinstance(name, str) for name in names) or not isinstance(card.unknown_far, float | None):
            raise TypeError("models, default or unknown_far")
        if not (card.models and 0 < float(card.temperature) < np.inf and NAME not in card.models):
            raise ValueError("models or temperature")
    except FileNotFoundError:
        raise ModelError(f"{path} is not there: `dvc repro ensemble` makes it") from None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    cards.check_settings(card.settings, path)
    return card


def default_model(root: Path = Path()) -> str:
    """Return the model that answers when none is asked for: the ensemble's choice, or `merged` without an ensemble."""
    return read(root).default if card_path(root).is_file() else FALLBACK


def unknown_threshold(fitted: Mapping[str, Any] | None, root: Path = Path()) -> float | None:
    """Return the confidence below which the answer is "unknown", for the rate that the ensemble's card asks for.

    Parameters
    ----------
    fitted : mapping or None
        The field `unknown` of the card of what answers.
    """
    return unknowns.threshold(fitted, read(root).unknown_far) if card_path(root).is_file() else None


def write_validation(path: Path, validation: Validation, genres: Sequence[str]) -> None:
    """Write what a model says of its validation chunks, as CSV: row, then a probability per genre."""
    files.write_table(
        path,
        ["row", *genres],
        (
            [int(row), *(f"{value:.9g}" for value in values)]
            for row, values in zip(validation.rows, validation.probabilities, strict=True)
        ),
    )


def read_validation(path: Path) -> Validation:
    """Read what `write_validation` wrote.

    Raises
    ------
    ModelError
        If it is missing or damaged.
    """
    try:
        table = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2, comments=None, encoding="utf-8")
    except OSError:
        raise ModelError(f"{path} is not there: the model must be trained first (`dvc repro`)") from None
    except ValueError as error:
        raise ModelError(f"{path} is damaged: {error}") from error
    return Validation(table[:, 0].astype(np.int64), table[:, 1:].astype(np.float32))


def _common_rows(validations: Sequence[Validation]) -> npt.NDArray[np.int64]:
    """Return the rows that all models have left out."""
    return np.array(sorted(set.intersection(*(set(v.rows.tolist()) for v in validations))), np.int64)


def _at(validation: Validation, rows: npt.NDArray[np.int64]) -> Probabilities:
    """Return the mean of what was said of each of the rows."""
    return np.stack([validation.probabilities[validation.rows == row].mean(axis=0) for row in rows])


def _rank(scored: Mapping[str, float]) -> tuple[float, float]:
    return scored["song_accuracy"], -scored["log_loss"]
