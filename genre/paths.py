"""Every folder and file name of a project, given its root folder."""

from __future__ import annotations

import re
from pathlib import Path

from genre.errors import ModelError


class Paths:
    """Folders and files below a project's root folder; by default the working directory."""

    def __init__(self, root: Path = Path()) -> None:
        self.root = root
        self.params = root / "params.yaml"
        self.cache = root / ".cache"  # results that can be computed again
        self.datasets = root / "dataset"
        self.chunks = root / "chunks"  # with index.csv and failures.csv
        self.features = root / "features"  # one folder of CSV files for each feature
        self.extraction = self.features / "extraction.json"  # the feature engine and its versions
        self.vectors = root / "pickled_vectors"  # features and labels as arrays
        self.cards = root / "model_architecture"  # model cards and Keras architectures
        self.weights = root / "model_weights"  # ONNX files and Keras weights
        self.evaluation = root / "evaluation"  # scores on the test songs
        self.comparison = root / "comparison"  # scores on folds
        self.index = root / "vectors" / "index.json"  # description of the embedding index
        self.projection = root / "vectors" / "projection.npz"  # from embeddings to vectors of the store
        self.landmarks = root / "vectors" / "landmarks.npz"
        self.identification = root / "identify"  # recognition rates of identify

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


def _checked(model: str) -> str:
    """Return a model's name; raise ModelError if it is not a plain file name."""
    if not re.fullmatch(r"\w[\w.-]*", model):
        raise ModelError(f"{model!r} is not a valid model name: use letters, digits, _, - and .")
    return model
