"""Every folder and file name of a project, given its root folder."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from genre.errors import ModelError


@dataclass(frozen=True, slots=True)
class Paths:
    """Folders and files below a project's root folder; by default the working directory."""

    root: Path = Path()

    @property
    def params(self) -> Path:
        """Return params.yaml."""
        return self.root / "params.yaml"

    @property
    def cache(self) -> Path:
        """Return the folder of the cache."""
        return self.root / ".cache"

    @property
    def datasets(self) -> Path:
        """Return the folder of all data sets."""
        return self.root / "dataset"

    @property
    def chunks(self) -> Path:
        """Return the folder of the chunks, with index.csv and failures.csv."""
        return self.root / "chunks"

    @property
    def features(self) -> Path:
        """Return the folder of the feature CSVs, with one folder per feature."""
        return self.root / "features"

    @property
    def extraction(self) -> Path:
        """Return the record of the feature engine and its versions."""
        return self.features / "extraction.json"

    @property
    def vectors(self) -> Path:
        """Return the folder of the features and labels as pickled arrays."""
        return self.root / "pickled_vectors"

    @property
    def cards(self) -> Path:
        """Return the folder of the model cards and Keras architectures."""
        return self.root / "model_architecture"

    @property
    def weights(self) -> Path:
        """Return the folder of the ONNX files and Keras weights."""
        return self.root / "model_weights"

    def card(self, model: str) -> Path:
        """Return the card of a model."""
        return self.cards / f"{_checked(model)}_model_card.json"

    def architecture(self, model: str) -> Path:
        """Return the architecture of a network, as Keras JSON."""
        return self.cards / f"{_checked(model)}_model_architecture.json"

    def keras_weights(self, model: str) -> Path:
        """Return the weights of a network, as Keras HDF5."""
        return self.weights / f"{_checked(model)}_model.weights.h5"

    def onnx(self, model: str) -> Path:
        """Return the ONNX file of a model."""
        return self.weights / f"{_checked(model)}_model.onnx"

    def training(self, model: str) -> Path:
        """Return the folder of a model's learning curves and validation predictions."""
        return self.root / "training" / _checked(model)

    def validation(self, model: str) -> Path:
        """Return the predictions of a model for its validation chunks."""
        return self.training(model) / "validation.csv"

    @property
    def evaluation(self) -> Path:
        """Return the folder of the scores on the test songs."""
        return self.root / "evaluation"

    @property
    def comparison(self) -> Path:
        """Return the folder of the comparison of models on folds."""
        return self.root / "comparison"

    @property
    def index(self) -> Path:
        """Return the description of the embedding index."""
        return self.root / "vectors" / "index.json"

    @property
    def projection(self) -> Path:
        """Return the projection of embeddings to the vectors of the store."""
        return self.root / "vectors" / "projection.npz"

    @property
    def landmarks(self) -> Path:
        """Return the landmark index."""
        return self.root / "vectors" / "landmarks.npz"

    @property
    def identification(self) -> Path:
        """Return the folder of the measured recognition rates of identify."""
        return self.root / "identify"


def _checked(model: str) -> str:
    """Return a model's name; raise ModelError if it is not a plain file name."""
    if not re.fullmatch(r"\w[\w.-]*", model):
        raise ModelError(f"{model!r} is not a valid model name: use letters, digits, _, - and .")
    return model
