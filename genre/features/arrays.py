"""pickled_vectors/: features and one-hot labels as NumPy arrays in pickles.

The files are named <feature>_training_vector.pickle and <feature>_label.pickle for the training set, and
<feature>_evaluation_training_vector.pickle and <feature>_evaluation_label.pickle for the test set.
"""

from __future__ import annotations

import contextlib
import hashlib
import math
import pickle
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from genre import files
from genre.audio.manifest import Row
from genre.errors import VectorError
from genre.features.transforms import TRANSFORMS, Settings

Split = Literal["train", "test"]

_PREFIXES: dict[Split, str] = {"train": "", "test": "evaluation_"}  # in file names
_SONGS_KEYS: dict[Split, str] = {"train": "training", "test": "evaluation"}  # in songs.json
_GROUPS = "_groups"  # ending of the keys of groups in songs.json
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
    groups: list[str]  # of each chunk; songs of a group are in one fold

    def at(self, rows: Sequence[int] | npt.NDArray[np.int64]) -> VectorSet:
        """Return the set of some chunks, by their row numbers."""
        songs, groups = ([names[row] for row in rows] for names in (self.songs, self.groups))
        inputs = {feature: array[rows] for feature, array in self.inputs.items()}
        return VectorSet(inputs, self.labels[rows], songs, self.genres, groups)


def write(
    folder: Path, rows: Sequence[Row], features: Iterable[Mapping[str, npt.NDArray[np.float32]]], settings: Settings
) -> None:
    """Write vectors and one-hot labels, genres.json (label order), songs.json (song of each row) and settings.json.

    Where groups differ from songs, songs.json has them too.

    `features` has the features [shape=(frames, columns)] of each chunk by name, in the order of `rows`; one chunk is in
    memory at a time. Raises VectorError if their shape differs from that of the first chunk, or a split has no chunk.
    """
    folder.mkdir(parents=True, exist_ok=True)
    genres = sorted({row.genre for row in rows})
    shapes: dict[str, tuple[int, ...]] = {}
    with contextlib.ExitStack() as stack:
        streams = {
            (split, feature): stack.enter_context(tempfile.TemporaryFile(dir=folder))
            for split in _PREFIXES
            for feature in TRANSFORMS
        }
        for row, of_chunk in zip(rows, features, strict=True):
            for feature, vector in of_chunk.items():
                if vector.shape != (shape := shapes.setdefault(feature, vector.shape)):
                    raise VectorError(f"{feature} of {row.chunk} has shape {vector.shape}, not {shape} as the others")
                streams[row.split, feature].write(vector.tobytes())  # type: ignore[index]
        for (split, feature), stream in streams.items():
            labels = [genres.index(row.genre) for row in rows if row.split == split]
            if not labels:
                raise VectorError(f"{folder}: there is no chunk for {split}: add songs, and run `dvc repro`")
            stream.flush()
            vectors = np.memmap(stream, np.float32, "r+", shape=(len(labels), *shapes[feature]))
            one_hot = np.eye(len(genres), dtype=np.float32)[labels]
            for path, array in zip(_paths(folder, feature, split), (np.asarray(vectors), one_hot), strict=True):
                with files.atomic_path(path) as temporary, temporary.open("wb") as target:
                    pickle.dump(array, target, protocol=5)
    songs = {key: [row.song_id for row in rows if row.split == split] for split, key in _SONGS_KEYS.items()}
    groups = {key + _GROUPS: [row.group for row in rows if row.split == split] for split, key in _SONGS_KEYS.items()}
    songs |= groups if any(row.group != row.song_id for row in rows) else {}
    for name, value in (("genres", genres), ("songs", songs), ("settings", settings.to_dict())):
        files.write_json(folder / f"{name}.json", value)


def read(folder: Path, split: Split, features: Iterable[str] = tuple(TRANSFORMS)) -> VectorSet:
    """Return the training or test set.

    `features` has at least one name. Raises VectorError if a file is missing or damaged, or shapes do not match
    songs.json and genres.json.
    """
    with files.reading(folder, VectorError, "vectorize"):
        genres: list[str] = files.read_json(folder / "genres.json")
        names: dict[str, list[str]] = files.read_json(folder / "songs.json")
        songs = names[_SONGS_KEYS[split]]
        groups = names.get(_SONGS_KEYS[split] + _GROUPS, songs)
    inputs = {}
    for feature in features:
        inputs[feature], one_hot = map(read_pickle, _paths(folder, feature, split))
        if len({len(inputs[feature]), len(songs), len(groups)}) > 1 or one_hot.shape != (len(songs), len(genres)):
            raise VectorError(
                f"{folder}: {feature} of {split} differs from songs.json or genres.json: run `dvc repro vectorize`"
            )
    return VectorSet(inputs, one_hot.argmax(axis=1), songs, genres, groups)


def read_all(folder: Path, rows: Sequence[Row]) -> VectorSet:
    """Return the chunks `rows` of the data set: those of train, then those of test.

    Raises VectorError as `read`, and if `rows` are of other songs.
    """
    train, test = read(folder, "train"), read(folder, "test")
    if train.songs + test.songs != [row.song_id for row in rows]:
        raise VectorError(f"{folder}/ has other songs than the chunks: run `dvc repro vectorize`")
    return VectorSet(
        {feature: np.concatenate([array, test.inputs[feature]]) for feature, array in train.inputs.items()},
        np.concatenate([train.labels, test.labels]),
        train.songs + test.songs,
        train.genres,
        train.groups + test.groups,
    )


def read_settings(folder: Path) -> Settings:
    """Return the settings of the features; raise VectorError if settings.json is missing, damaged or of other ones."""
    with files.reading(folder / "settings.json", VectorError, "vectorize"):
        return Settings.from_dict(files.read_json(folder / "settings.json"))


def digest(folder: Path) -> str:
    """Return the SHA-256 of vectors, labels, genres, songs and settings, as 64 hex digits."""
    paths = [path for path in sorted(folder.glob("*")) if path.suffix in (".json", ".pickle")]
    return hashlib.sha256("".join(files.sha256(path) for path in paths).encode()).hexdigest()


def read_pickle(path: Path) -> npt.NDArray[np.float32]:
    """Return the finite float32 array in a pickle; a pickle that names anything but NumPy arrays is refused.

    Raises VectorError if the file is missing, damaged or holds anything else.
    """
    with files.reading(path, VectorError, "vectorize"), path.open("rb") as stream:
        array = _ArrayUnpickler(stream).load()
    if type(array) is not np.ndarray or array.dtype != np.float32 or not math.isfinite(array.sum(dtype=np.float64)):
        raise VectorError(f"{path} is not a float32 array of finite numbers: run `dvc repro --force vectorize`")
    return array


class _ArrayUnpickler(pickle.Unpickler):
    """Loads the classes and functions that a pickled NumPy array names, and no others."""

    def find_class(self, module: str, name: str) -> Any:
        module = module.replace("numpy.core.", "numpy._core.")  # the name in NumPy 1
        if (module, name) not in _ARRAY_NAMES:
            raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")
        return super().find_class(module, name)


def _paths(folder: Path, feature: str, split: Split) -> list[Path]:
    """Return the files of the vectors and of the labels."""
    return [folder / f"{feature}_{_PREFIXES[split]}{kind}.pickle" for kind in ("training_vector", "label")]
