"""The model card: what a model needs, what it was made from, and where its four files are.

A card is checked when it is loaded. A model whose features were made with other settings than this version's is
refused, and so is one whose files do not belong together.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genre import files
from genre.errors import ModelError
from genre.features.settings import Settings

ARCHITECTURE_FOLDER = Path("model_architecture")
WEIGHTS_FOLDER = Path("model_weights")


@dataclass(frozen=True, slots=True)
class ModelFiles:
    """The four files of a model."""

    architecture: Path  # Keras JSON
    card: Path
    weights: Path  # Keras HDF5
    onnx: Path


@dataclass(frozen=True, slots=True)
class Card:
    """What a user of the model must know."""

    model: str
    architecture: str
    genres: list[str]  # in the order of the model's outputs
    inputs: dict[str, list[int]]  # by feature: frames, columns
    settings: dict[str, Any]  # what changes a feature, with its digest, as Settings.to_dict
    dataset: dict[str, Any]  # name, songs and chunks trained on
    training: dict[str, Any]  # the parameters
    scores: dict[str, float]  # on validation songs
    versions: dict[str, str]
    onnx_sha256: str
    unknown: dict[str, Any] | None = None  # at what confidence to answer, as unknown.fit

    @property
    def feature_settings(self) -> Settings:
        """The settings that a song must be cut with."""
        return settings_of(self.settings)


def model_files(model: str, root: Path = Path()) -> ModelFiles:
    """Return where the files of a model are.

    Raises
    ------
    ModelError
        If the name would lead out of the folders of models.
    """
    if not re.fullmatch(r"\w[\w.-]*", model):
        raise ModelError(f"{model!r} is no name of a model: it takes letters, digits, _, - and .")
    architecture, weights = root / ARCHITECTURE_FOLDER, root / WEIGHTS_FOLDER
    return ModelFiles(
        architecture / f"{model}_model_architecture.json",
        architecture / f"{model}_model_card.json",
        weights / f"{model}_model.weights.h5",
        weights / f"{model}_model.onnx",
    )


def available(root: Path = Path()) -> list[str]:
    """Return the names of the networks that have a card."""
    suffix = "_model_card.json"
    found = {path.name.removesuffix(suffix) for path in (root / ARCHITECTURE_FOLDER).glob("*" + suffix)}
    return sorted(found - {"ensemble", "fingerprint"})


def installed_versions(packages: Iterable[str]) -> dict[str, str]:
    """Return the versions of Python and of those of the packages that are installed."""
    found = {"python": platform.python_version()}
    for package in packages:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[package] = importlib.metadata.version(package)
    return found


def write(card: Card, root: Path = Path()) -> None:
    """Write the card of a model."""
    files.write_json(model_files(card.model, root).card, asdict(card))


def read(model: str, root: Path = Path()) -> Card:
    """Read and check the card of a model.

    Raises
    ------
    ModelError
        If there is no such model, the card is damaged, the model's features were made with other settings than this
        version makes, or the ONNX file is another one than the card's.
    """
    paths = model_files(model, root)
    try:
        card = Card(**files.read_json(paths.card))
        check_answers(card.genres, card.unknown)
        shapes = [shape for _, shape in sorted(card.inputs.items())]
        if card.model != model or not shapes or any([type(n) for n in shape] != [int, int] for shape in shapes):
            raise ValueError("model or inputs")
    except FileNotFoundError:
        if not (root / ARCHITECTURE_FOLDER).is_dir():
            raise ModelError(
                f"there is no {ARCHITECTURE_FOLDER}/ with models in {root.resolve()}: run the command in the project's"
                " root folder; `dvc repro` trains them, `dvc pull` fetches them"
            ) from None
        known = ", ".join(available(root)) or "none"
        raise ModelError(f"there is no model {model} (there are: {known}); `dvc repro` trains it") from None
    except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(f"{paths.card} is damaged: {error}") from error
    check_settings(card.settings, paths.card)
    if not paths.onnx.is_file():
        raise ModelError(f"{paths.onnx} is not there: `dvc repro` makes it, `dvc pull` fetches it")
    if files.sha256(paths.onnx) != card.onnx_sha256:
        raise ModelError(f"{paths.onnx} is not the file that {paths.card} describes: run `dvc checkout` or `dvc repro`")
    return card


def settings_of(described: Mapping[str, Any]) -> Settings:
    """Return the settings that `Settings.to_dict` described. Raises as `Settings.from_dict`."""
    return Settings.from_dict(described)


def check_answers(genres: object, unknown: object) -> None:
    """Check what a card says of its answers: the names of the genres, and the confidences to answer at.

    Raises
    ------
    ValueError
        Naming the field.
    TypeError, KeyError
        If it is of another form altogether.
    """
    if not isinstance(genres, list) or not all(isinstance(genre, str) and genre for genre in genres):
        raise ValueError("genres")
    if len(set(genres)) != len(genres) or not genres:
        raise ValueError("genres")
    if unknown is not None and not isinstance(unknown, dict):
        raise TypeError("unknown")
    for rate in unknown["rates"] if unknown else []:
        if not (0 <= rate["far"] <= 1 and 0 <= rate["threshold"] <= 1):
            raise ValueError("unknown")


def check_settings(described: Mapping[str, Any], path: Path) -> None:
    """Compare the settings of the card at `path` with what this version computes.

    Raises
    ------
    ModelError
        If they differ, or one is missing.
    """
    try:
        ours = settings_of(described).to_dict()
    except (KeyError, TypeError, ValueError) as error:
        raise ModelError(f"{path} is damaged: no setting {error}") from error
    for key, value in ours.items():
        if described.get(key) != value:
            raise ModelError(
                f"{path}: the model was made with {key} {described.get(key)}, this version computes {value};"
                " train it again with `dvc repro`"
            )
