"""pickled_vectors/: features and labels as NumPy arrays in pickles, under the names the first pipeline gave them."""

from __future__ import annotations

import math
import mmap
import os
import pickle
import struct
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import VectorError
from genre.features.settings import Settings
from genre.features.transforms import TRANSFORMS, Transform

Side = Literal["train", "test"]
SLICE_BYTES = 1 << 22  # of the vectors, held in memory at once while they are written
_VECTOR_NAMES = {"train": "training_vector", "test": "evaluation_training_vector"}
_LABEL_NAMES = {"train": "label", "test": "evaluation_label"}
_SIDE_KEYS = {"train": "training", "test": "evaluation"}


@dataclass(frozen=True, slots=True)
class VectorSet:
    """One side of the data set, as models take it."""

    inputs: dict[str, npt.NDArray[np.float32]]  # by feature, shape (chunks, frames, columns)
    labels: npt.NDArray[np.int64]  # shape (chunks,), positions in `genres`
    songs: list[str]  # of each chunk, "<genre>/<song>"
    genres: list[str]


class VectorWriter:
    """Writes the vectors of one feature and side chunk by chunk, in bounded memory. A context manager."""

    def __init__(self, folder: Path, transform: Transform, side: Side, n_chunks: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._path = folder / f"{transform.feature}_{_VECTOR_NAMES[side]}.pickle"
        self._scratch = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 (closed in __exit__)
        self._map: mmap.mmap | None = None
        self._vectors: npt.NDArray[np.float32] | None = None
        self._release_every = 1
        self._n_chunks = n_chunks
        self._n_added = 0

    def __enter__(self) -> VectorWriter:
        return self

    def add(self, vector: npt.NDArray[np.float32], name: str) -> None:
        """Add the vector [shape=(frames, columns)] of the next chunk, `name` in messages.

        Raises
        ------
        VectorError
            If its shape is not that of the first chunk.
        """
        if self._vectors is None:
            shape = (self._n_chunks, *vector.shape)
            n_bytes = 4 * math.prod(shape)
            self._scratch.truncate(n_bytes)
            self._map = mmap.mmap(self._scratch.fileno(), n_bytes)
            self._vectors = np.frombuffer(self._map, dtype=np.float32).reshape(shape)
            self._release_every = max(1, SLICE_BYTES // vector.nbytes)
        if vector.shape != self._vectors.shape[1:]:
            raise VectorError(f"{name} has shape {vector.shape}, the chunks before it {self._vectors.shape[1:]}")
        self._vectors[self._n_added] = vector
        self._n_added += 1
        if self._map is not None and self._n_added % self._release_every == 0:
            self._map.madvise(mmap.MADV_DONTNEED)  # the file keeps them

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                if self._vectors is None or self._map is None or self._n_added != self._n_chunks:
                    raise VectorError(f"{self._path}: {self._n_added} of {self._n_chunks} chunks were added")
                with files.atomic_path(self._path) as temporary, temporary.open("wb") as stream:
                    pickle.dump(self._vectors, _Slices(stream, self._map), protocol=5)
        finally:
            self._vectors = None
            self._scratch.close()


class _Slices:
    """A file for the pickler: a large array is written slice by slice, and what is written leaves the memory."""

    def __init__(self, stream: IO[bytes], mapped: mmap.mmap) -> None:
        self._stream, self._map = stream, mapped

    def write(self, data: bytes | pickle.PickleBuffer) -> int:
        view = data.raw() if isinstance(data, pickle.PickleBuffer) else memoryview(data)
        for first in range(0, view.nbytes, SLICE_BYTES):
            self._stream.write(view[first : first + SLICE_BYTES])
            self._map.madvise(mmap.MADV_DONTNEED)
        return view.nbytes


def write_labels(folder: Path, transform: Transform, side: Side, labels: Sequence[int], n_genres: int) -> None:
    """Write the one-hot labels, float32 [shape=(chunks, genres)], of one feature and side."""
    one_hot = np.eye(n_genres, dtype=np.float32)[np.asarray(labels, dtype=np.int64)]
    _dump(folder / f"{transform.feature}_{_LABEL_NAMES[side]}.pickle", one_hot)


def write_names(folder: Path, genres: Sequence[str], songs: dict[Side, list[str]], settings: Settings) -> None:
    """Write genres.json (label order), songs.json (the song of each row) and settings.json."""
    files.write_json(folder / "genres.json", list(genres))
    files.write_json(folder / "songs.json", {_SIDE_KEYS[side]: names for side, names in songs.items()})
    files.write_json(folder / "settings.json", settings.as_dict())


def read(folder: Path, side: Side, features: Iterable[str] = tuple(TRANSFORMS)) -> VectorSet:
    """Read one side of the data set.

    Raises
    ------
    VectorError
        If a file is missing or damaged, or the files do not belong together.
    """
    genres: list[str] = _read_json(folder / "genres.json")
    songs: list[str] = _read_json(folder / "songs.json")[_SIDE_KEYS[side]]
    inputs = {}
    labels: npt.NDArray[np.int64] | None = None
    for feature in features:
        inputs[feature] = read_pickle(folder / f"{feature}_{_VECTOR_NAMES[side]}.pickle")
        one_hot = read_pickle(folder / f"{feature}_{_LABEL_NAMES[side]}.pickle")
        if len(inputs[feature]) != len(songs) or one_hot.shape != (len(songs), len(genres)):
            raise VectorError(f"{folder}: the {side} vectors of {feature} do not fit songs.json and genres.json")
        labels = one_hot.argmax(axis=1)
    if labels is None:
        raise VectorError("no feature was asked for")
    return VectorSet(inputs, labels, songs, genres)


def read_settings(folder: Path) -> dict[str, Any]:
    """Read settings.json as `Settings.as_dict` made it."""
    settings: dict[str, Any] = _read_json(folder / "settings.json")
    return settings


def read_pickle(path: Path) -> npt.NDArray[np.float32]:
    """Read a pickle that holds one float32 array and nothing else; no other class or function is ever loaded.

    Raises
    ------
    VectorError
        If the file is missing, damaged or holds anything else.
    """
    try:
        with path.open("rb") as stream:
            value = _ArrayUnpickler(stream).load()
        if isinstance(value, _Reconstructed):
            value = value.array
    except FileNotFoundError:
        raise VectorError(f"{path} is not there: run `dvc repro vectorize`") from None
    except Exception as error:  # a damaged pickle can raise nearly anything
        raise VectorError(f"{path} cannot be read as a NumPy array: {error}") from error
    if type(value) is not np.ndarray or value.dtype != np.float32:
        raise VectorError(f"{path} holds no float32 array")
    return value


_PythonUnpickler: Any = pickle._Unpickler  # the one in C fills gigabytes for a memo that a file of ten bytes claims


class _ArrayUnpickler(_PythonUnpickler):  # type: ignore[misc]
    """Reads what pickle writes of a float32 array, without calling what the file names.

    NumPy's own functions would take an array of object pointers from a file's bytes, and crash or worse. The names
    stand for the functions below instead, only the opcodes that an array is made of are known, and no more is
    allocated than the file holds.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        super().__init__(stream)
        self._n_bytes = os.fstat(stream.fileno()).st_size

    def find_class(self, module: str, name: str) -> Any:
        match module, name:
            case "numpy", "dtype":
                return _Float32
            case "numpy._core.numeric" | "numpy.core.numeric", "_frombuffer":
                return _frombuffer
            case "numpy._core.multiarray" | "numpy.core.multiarray", "_reconstruct":
                return _Reconstructed
            case "numpy", "ndarray":
                return "numpy.ndarray"
        raise pickle.UnpicklingError(f"{module}.{name} is not part of an array")

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Float32 | _Reconstructed):
            raise pickle.UnpicklingError("it sets the state of something that is no array")
        self.stack[-1].__setstate__(state)

    def load_bytearray8(self) -> None:
        (size,) = struct.unpack("<Q", self.read(8))
        if size > self._n_bytes:
            raise pickle.UnpicklingError(f"it claims {size} bytes of {self._n_bytes}")
        data = bytearray(size)
        self.readinto(data)
        self.append(data)

    dispatch = {
        opcode[0]: _PythonUnpickler.dispatch[opcode[0]]
        for opcode in (
            *(pickle.PROTO, pickle.FRAME, pickle.STOP, pickle.MARK, pickle.REDUCE),
            *(pickle.GLOBAL, pickle.STACK_GLOBAL, pickle.BINPUT, pickle.BINGET, pickle.MEMOIZE),
            *(pickle.NONE, pickle.NEWTRUE, pickle.NEWFALSE, pickle.BININT, pickle.BININT1, pickle.BININT2),
            *(pickle.TUPLE, pickle.TUPLE1, pickle.TUPLE2, pickle.TUPLE3, pickle.LONG1),
            *(pickle.BINUNICODE, pickle.SHORT_BINUNICODE, pickle.SHORT_BINBYTES, pickle.BINBYTES, pickle.BINBYTES8),
        )
    } | {pickle.BUILD[0]: load_build, pickle.BYTEARRAY8[0]: load_bytearray8}


class _Float32:
    """Stands for numpy.dtype: there is one."""

    def __init__(self, kind: str, *_: object) -> None:
        if kind != "f4":
            raise pickle.UnpicklingError(f"its values are {kind!r}, not float32")

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state != (3, "<", None, None, None, -1, -1, 0):
            raise pickle.UnpicklingError("its values are not plain float32")


class _Reconstructed:
    """Stands for the array that numpy's _reconstruct makes and __setstate__ fills."""

    array: npt.NDArray[np.float32] | None = None

    def __init__(self, *_: object) -> None:
        pass

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, kind, is_fortran, data = state
        self.array = _frombuffer(bytearray(data), kind, shape, "F" if is_fortran else "C")


def _frombuffer(
    data: bytearray, kind: _Float32, shape: tuple[int, ...], order: Literal["C", "F"]
) -> npt.NDArray[np.float32]:
    if not isinstance(kind, _Float32) or not isinstance(data, bytearray):
        raise pickle.UnpicklingError("its values are not float32")
    if any(n < 0 for n in shape):
        raise pickle.UnpicklingError(f"its shape is {shape}")
    return np.frombuffer(data, np.float32).reshape(shape, order=order)


def _dump(path: Path, array: npt.NDArray[np.float32]) -> None:
    with files.atomic_path(path) as temporary, temporary.open("wb") as stream:
        pickle.dump(array, stream, protocol=5)


def _read_json(path: Path) -> Any:
    try:
        return files.read_json(path)
    except FileNotFoundError:
        raise VectorError(f"{path} is not there: run `dvc repro vectorize`") from None
    except (OSError, ValueError) as error:
        raise VectorError(f"{path} cannot be read: {error}") from error
