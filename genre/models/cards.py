"""Model cards: what a model needs, what it was trained on, and the digest of its ONNX file.

Networks, classifiers of embeddings and the ensemble share one schema. A card is checked when it is read: a model made
with other feature settings than this version computes, or whose ONNX file is not the card's, is refused.
"""

from __future__ import annotations

import contextlib
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from genre import files
from genre.audio.dataset import genre_fault
from genre.errors import ModelError
from genre.features import arrays
from genre.features.transforms import Settings
from genre.models.calibration import Calibration
from genre.paths import Paths

ENSEMBLE = "ensemble"
WITHOUT_ENSEMBLE = "merged"  # default model of a project without an ensemble
SUFFIX = "_model_card.json"
TEMPERATURES = (0.01, 100.0)  # beyond these, powers of probabilities underflow or overflow


@dataclass(frozen=True, slots=True)
class ModelCard:
    """Everything that a user of a model must know."""

    model: str  # its name
    kind: str  # conv1d, lstm2016, svm, logistic, knn, xgboost, dense or ensemble
    genres: list[str]  # in the order of the outputs
    settings: Settings  # that a song must be cut with
    inputs: dict[str, list[int]] = field(default_factory=dict)  # of a network: frames and columns by feature
    embedding: dict[str, Any] | None = None  # of a classifier: its input, as `Embedder.describe`
    models: list[str] = field(default_factory=list)  # of the ensemble: the models that are averaged
    default: str | None = None  # of the ensemble: the model that query uses unless another is named
    calibration: Calibration = field(default_factory=Calibration)  # of the probabilities that the ONNX file returns
    rejection: dict[str, Any] | None = None  # of the ensemble: detectors of unknown songs, as `rejection.write`
    dataset: dict[str, Any] = field(default_factory=dict)  # see `describe_dataset`
    training: dict[str, Any] = field(default_factory=dict)  # the params
    scores: dict[str, Any] = field(default_factory=dict)  # on validation songs
    versions: dict[str, str] = field(default_factory=dict)  # of the packages
    onnx_sha256: str | None = None  # None for the ensemble, which has no file of its own

    @property
    def synthetic(self) -> bool:
        """Return whether the model was trained on synthetic songs."""
        return bool(self.dataset.get("synthetic"))

    @property
    def warnings(self) -> list[str]:
        """Return the warnings for every answer of the model."""
        name = self.dataset.get("name")
        warning = f"the model was trained on synthetic songs (data set {name}): its genres mean nothing for real music"
        return [warning] if self.synthetic else []


def write(card: ModelCard, paths: Paths, graph: bytes | None = None) -> None:
    """Write a model: its ONNX file, which the ensemble does not have, and its card with the SHA-256 of the file."""
    if graph is not None:
        files.write_bytes(paths.onnx(card.model), graph)
        card = replace(card, onnx_sha256=files.sha256(paths.onnx(card.model)))
    files.write_json(paths.card(card.model), {**asdict(card), "settings": card.settings.to_dict()})


def read(model: str, paths: Paths) -> ModelCard:
    """Read and check the card of a model.

    Raises ModelError if there is no such model, or the card is damaged or made with other settings than this version
    computes.
    """
    path = paths.card(model)
    try:
        values = files.read_json(path)
        calibration, settings = Calibration(**values["calibration"]), Settings.from_dict(values["settings"])
        checked = {"calibration": calibration, "settings": settings, "dataset": dict(values["dataset"])}
        card = ModelCard(**values | checked)
        _check(card, model)
    except FileNotFoundError:
        if not paths.cards.is_dir():
            raise ModelError(
                f"there is no folder {paths.cards.name}/ in {paths.root.resolve()}: run the command in the project's"
                " root folder; `dvc repro` trains the models, `dvc pull` fetches them"
            ) from None
        names = ", ".join(available(paths)) or "none"
        remedy = "choose one of them, or run `dvc repro` to train missing ones"
        raise ModelError(f"unknown model {model}; there are: {names}; {remedy}") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{path} cannot be used ({error}): run `dvc checkout` or `dvc repro`") from error
    return card


def available(paths: Paths) -> list[str]:
    """Return the names of all models that have a card."""
    return sorted(path.name.removesuffix(SUFFIX) for path in paths.cards.glob("*" + SUFFIX))


def describe_dataset(name: str, songs: Sequence[str], paths: Paths) -> dict[str, Any]:
    """Return a card's `dataset` from the song of each training chunk; `vectors` is the digest of pickled_vectors/."""
    numbers = {"songs": len(set(songs)), "chunks": len(songs)}
    return {"name": name, **numbers, "synthetic": paths.is_synthetic(name), "vectors": arrays.digest(paths.vectors)}


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed."""
    import importlib.metadata

    versions = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[package] = importlib.metadata.version(package)
    return versions


def _check(card: ModelCard, model: str) -> None:
    """Check the form of a card; raise ValueError, TypeError or KeyError naming the field."""
    if not card.genres or len(set(card.genres)) != len(card.genres):
        raise ValueError("genres")
    for genre in card.genres:
        if fault := genre_fault(genre):
            raise ValueError(f"the genre {genre!r} {fault}")
    temperature, scores = card.calibration.temperature, [0.0, *card.calibration.scores, 1.0]
    if card.model != model or not TEMPERATURES[0] <= temperature <= TEMPERATURES[1] or scores != sorted(scores):
        raise ValueError("model, temperature or scores")
    if model == ENSEMBLE:
        names = [card.default, *card.models]
        if not card.models or ENSEMBLE in card.models or not all(isinstance(name, str) for name in names):
            raise ValueError("models or default")
        return
    if not isinstance(card.onnx_sha256, str) or bool(card.inputs) == bool(card.embedding):
        raise ValueError("onnx_sha256, inputs or embedding")
    if card.embedding and not isinstance(card.embedding["name"], str):
        raise TypeError("embedding")
