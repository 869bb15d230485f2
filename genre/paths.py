"""Every folder and file name of a project, given its root folder."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from genre.errors import ModelError

SYNTHETIC = "synthetic.txt"  # in the folder of a data set whose songs are synthetic


class _Below:
    """A path below the root folder of a project."""

    def __init__(self, *parts: str) -> None:
        self._parts = parts

    def __get__(self, paths: Paths, _: type[Paths]) -> Path:
        return paths.root.joinpath(*self._parts)


class _OfModel:
    """A path below the root folder for each model, whose name takes the place of {}.

    Raises ModelError if the name could lead out of the folders of models.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def __get__(self, paths: Paths, _: type[Paths]) -> Callable[[str], Path]:
        def path(model: str) -> Path:
            if not re.fullmatch(r"\w[\w.-]*", model):
                raise ModelError(f"{model!r} is not a valid model name: use letters, digits, _, - and .")
            return paths.root / self._path.format(model)

        return path


@dataclass(frozen=True, slots=True)
class Paths:
    """Folders and files below a project's root folder: by default that of GENRE_PROJECT, or the working directory."""

    root: Path = field(default_factory=lambda: Path(os.environ.get("GENRE_PROJECT", "")).expanduser())

    params = _Below("params.yaml")
    cache = _Below(".cache")  # finished work that is kept between runs and may be deleted
    datasets = _Below("dataset")  # one folder per data set
    dataset_name = _Below("dataset", "name.txt")  # name of the data set that is in use
    chunks = _Below("chunks")  # with index.csv and failures.csv
    features = _Below("features")  # one folder of CSV files per feature
    extraction = _Below("features", "extraction.json")  # the feature engine and its versions
    vectors = _Below("pickled_vectors")  # features and labels as arrays
    cards = _Below("model_architecture")  # model cards and Keras architectures
    weights = _Below("model_weights")  # ONNX files and Keras weights
    rejection = _Below("model_weights", "rejection.npz")  # detectors of unknown songs
    evaluation = _Below("evaluation")  # scores on the test songs
    evaluated = _Below("evaluation", "cards.json")  # SHA-256 of the cards of the models that were scored
    scores = _Below("scores")  # a few metrics on the test songs, one file per model, for `dvc metrics show`
    audit = _Below("audit")  # findings about the data set
    comparison = _Below("comparison")  # scores on folds
    index = _Below("vectors", "index.json")  # description of the embedding index
    projection = _Below("vectors", "projection.npz")  # from embeddings to the vectors of the store
    landmarks = _Below("vectors", "landmarks")  # landmark index
    tags = _Below("tags.jsonl")  # journal of the tags that were written

    card = _OfModel("model_architecture/{}_model_card.json")
    architecture = _OfModel("model_architecture/{}_model_architecture.json")  # of a network, as Keras JSON
    keras_weights = _OfModel("model_weights/{}_model.weights.h5")  # of a network, as Keras HDF5
    onnx = _OfModel("model_weights/{}_model.onnx")
    musicnn = _OfModel("model_weights/musicnn/{}.onnx")  # the converted network of a checkpoint, such as MSD_musicnn
    training = _OfModel("training/{}")  # folder of learning curves and validation predictions
    validation = _OfModel("training/{}/validation.csv")  # predictions for the validation chunks

    def is_synthetic(self, dataset: str) -> bool:
        """Return whether the songs of a data set are marked as synthetic."""
        return (self.datasets / dataset / SYNTHETIC).is_file()

    def corrections(self, dataset: str) -> Path:
        """Return the corrections of a data set; those of "<data set>.duplicates" are its pairs of one recording."""
        return self.root / "corrections" / f"{dataset}.csv"
