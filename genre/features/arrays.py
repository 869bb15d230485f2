"""pickled_vectors/: features and one-hot labels as NumPy arrays in pickles.

The files are named <feature>_training_vector.pickle and <feature>_label.pickle for the training set, and
<feature>_evaluation_training_vector.pickle and <feature>_evaluation_label.pickle for the test set.
"""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import VectorError
from genre.features.settings import Settings
from genre.features.transforms import TRANSFORMS, Transform

Split = Literal["train", "test"]

_PREFIXES: dict[Split, str] = {"train": "", "test": "evaluation_"}  # in file names
_SONGS_KEYS: dict[Split, str] = {"train": "training", "test": "evaluation"}  # in songs.json
_ARRAY_NAMES = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.numeric", "_frombuffer"),
}


@dataclass(frozen=True, slots=True)
class VectorSet:
    """The training or test set as arrays."""

    inputs: dict[str, npt.NDArray[np.float32]]  # by feature name [shape=(chunks, frames, columns)]
    labels: npt.NDArray[np.int64]  # index of each chunk's genre in `genres` [shape=(chunks,)]
    songs: list[str]  # song of each chunk, as "<genre>/<song>"
    genres: list[str]  # in the order of the labels


class VectorWriter:
    """Context manager that writes the vectors of one feature and split, chunk by chunk, through a temporary file."""

    def __init__(self, folder: Path, transform: Transform, split: Split, n_chunks: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = _vectors_path(folder, transform.feature, split)
        self._scratch = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed in __exit__)
        self._vectors: np.memmap[Any, np.dtype[np.float32]] | None = None
        self._n_chunks = n_chunks
        self._n_added = 0

    def __enter__(self) -> VectorWriter:
        return self

    def add(self, vector: npt.NDArray[np.float32], name: str) -> None:
        """Append the vector [shape=(frames, columns)] of the next chunk; `name` appears in error messages.

        Raises VectorError if its shape differs from that of the first chunk.
        """
        if self._vectors is None:
            shape = (self._n_chunks, *vector.shape)
            self._vectors = np.memmap(self._scratch, np.float32, "w+", shape=shape)
        if vector.shape != self._vectors.shape[1:]:
            raise VectorError(f"{name} has shape {vector.shape}, the chunks before it {self._vectors.shape[1:]}")
        self._vectors[self._n_added] = vector
        self._n_added += 1

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        with self._scratch:
            if kind is not None:
                return
            if self._vectors is None or self._n_added != self._n_chunks:
                raise VectorError(f"{self._path}: {self._n_added} of {self._n_chunks} chunks were added")
            with files.atomic_path(self._path) as temporary, temporary.open("wb") as stream:
                pickle.dump(np.asarray(self._vectors), stream, protocol=5)


def write_labels(folder: Path, transform: Transform, split: Split, labels: Sequence[int], n_genres: int) -> None:
    """Write the one-hot labels of one feature and split, float32 [shape=(chunks, genres)]."""
    one_hot = np.eye(n_genres, dtype=np.float32)[np.asarray(labels, dtype=np.int64)]
    path = _labels_path(folder, transform.feature, split)
    with files.atomic_path(path) as temporary, temporary.open("wb") as stream:
        pickle.dump(one_hot, stream, protocol=5)


def write_names(folder: Path, genres: Sequence[str], songs: Mapping[Split, list[str]], settings: Settings) -> None:
    """Write genres.json (label order), songs.json (song of each row) and settings.json (feature settings)."""
    files.write_json(folder / "genres.json", list(genres))
    files.write_json(folder / "songs.json", {_SONGS_KEYS[split]: names for split, names in songs.items()})
    files.write_json(folder / "settings.json", settings.to_dict())


def read(folder: Path, split: Split, features: Iterable[str] = tuple(TRANSFORMS)) -> VectorSet:
    """Return the training or test set.

    Raises VectorError if a file is missing or damaged, if shapes do not match songs.json and genres.json, or if
    `features` is empty.
    """
    genres: list[str] = _read_json(folder / "genres.json")
    songs: list[str] = _read_json(folder / "songs.json")[_SONGS_KEYS[split]]
    inputs = {}
    labels: npt.NDArray[np.int64] | None = None
    for feature in features:
        inputs[feature] = read_pickle(_vectors_path(folder, feature, split))
        one_hot = read_pickle(_labels_path(folder, feature, split))
        if len(inputs[feature]) != len(songs) or one_hot.shape != (len(songs), len(genres)):
            raise VectorError(
                f"{folder}: the {split} vectors of {feature} do not fit songs.json and genres.json: "
                "run `dvc repro vectorize`"
            )
        labels = one_hot.argmax(axis=1)
    if labels is None:
        raise VectorError("features is empty: name at least one feature")
    return VectorSet(inputs, labels, songs, genres)


def read_settings(folder: Path) -> dict[str, Any]:
    """Return the contents of settings.json, as `Settings.to_dict` returned them."""
    settings: dict[str, Any] = _read_json(folder / "settings.json")
    return settings


def read_pickle(path: Path) -> npt.NDArray[np.float32]:
    """Return the float32 array in a pickle; a pickle that names anything but NumPy arrays is refused.

    Raises VectorError if the file is missing, damaged or holds anything else.
    """
    try:
        with path.open("rb") as stream:
            array = _ArrayUnpickler(stream).load()
    except FileNotFoundError:
        raise VectorError(f"{path} does not exist: run `dvc repro vectorize`") from None
    except Exception as error:  # a damaged pickle can raise almost any exception
        raise VectorError(f"{path} cannot be read as a NumPy array: {error}") from error
    if type(array) is not np.ndarray or array.dtype != np.float32:
        raise VectorError(f"{path} is not a float32 array")
    return array


class _ArrayUnpickler(pickle.Unpickler):
    """Loads the classes and functions that a pickled NumPy array names, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # the name in NumPy 1
        if (module, name) not in _ARRAY_NAMES:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return super().find_class(module, name)


def _vectors_path(folder: Path, feature: str, split: Split) -> Path:
    return folder / f"{feature}_{_PREFIXES[split]}training_vector.pickle"


def _labels_path(folder: Path, feature: str, split: Split) -> Path:
    return folder / f"{feature}_{_PREFIXES[split]}label.pickle"


def _read_json(path: Path) -> Any:
    try:
        return files.read_json(path)
    except FileNotFoundError:
        raise VectorError(f"{path} does not exist: run `dvc repro vectorize`") from None
    except (OSError, ValueError) as error:
        raise VectorError(f"{path} cannot be read: {error}") from error
