"""The projection of embeddings into the space that is searched: scaled, turned, shortened.

Values are standardised, so that none weighs more by its unit, and limited; principal axes then take most of what is
left, and the square root of each one's spread tempers the largest. On GTZAN mini this finds songs of the same genre
more often than the embeddings themselves, in a tenth of the space (docs/search.md).
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import SearchError

VERSION = 1  # raised with every change of the numbers
N_AXES = 64
LIMIT = 3.0  # standard deviations

Vectors = npt.NDArray[np.float32]

_ARRAYS = ("mean", "scale", "axes")


@dataclass(frozen=True, slots=True)
class Projection:
    """From embeddings of `len(mean)` values to vectors of unit length and `axes.shape[1]` values."""

    mean: Vectors  # shape (values,)
    scale: Vectors  # shape (values,)
    axes: Vectors  # shape (values, axes)

    def __call__(self, embeddings: Vectors) -> Vectors:
        """Return the vectors [shape=(n, axes)] of embeddings [shape=(n, values)]."""
        projected = _limited(embeddings, self.mean, self.scale) @ self.axes
        lengths = np.linalg.norm(projected, axis=1, keepdims=True)
        vectors: Vectors = (projected / np.maximum(lengths, 1e-12)).astype(np.float32)
        return vectors

    def save(self, path: Path) -> None:
        """Write the projection to a file, atomically."""
        stream = io.BytesIO()
        np.savez(stream, allow_pickle=False, **{name: getattr(self, name).astype("<f4") for name in _ARRAYS})
        files.write_bytes(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path) -> Projection:
        """Read a projection.

        Raises
        ------
        SearchError
            If the file is missing or damaged.
        """
        try:
            arrays = files.read_npz(path)
            mean, scale, axes = (arrays[name] for name in _ARRAYS)
            if any(array.dtype != np.float32 for array in (mean, scale, axes)):
                raise ValueError("its arrays are not float32")
            if not mean.shape == scale.shape == axes.shape[:1] or axes.ndim != 2:
                raise ValueError("its arrays do not fit together")
            return cls(mean, scale, axes)
        except FileNotFoundError:
            raise SearchError(f"{path} is not there: `dvc repro index` makes it, `dvc pull` fetches it") from None
        except (OSError, ValueError, KeyError) as error:
            raise SearchError(f"{path} is damaged ({error}): run `dvc checkout` or `python -m stages.index`") from error


def fit(embeddings: Vectors) -> Projection:
    """Return the projection that a set of embeddings [shape=(n, values)] asks for."""
    mean = embeddings.mean(axis=0, dtype=np.float64)
    scale = 1 / (embeddings.std(axis=0, dtype=np.float64) + 1e-6)
    limited = _limited(embeddings, mean, scale)
    values, axes = np.linalg.eigh(limited.T @ limited / len(limited))
    kept = np.argsort(-values)[: min(N_AXES, max(len(embeddings) - 1, 2), len(mean))]  # Milvus takes 2 or more
    tempered = axes[:, kept] * np.maximum(values[kept], 1e-6 * values.max()) ** -0.25
    return Projection(mean.astype(np.float32), scale.astype(np.float32), tempered.astype(np.float32))


def _limited(
    embeddings: npt.NDArray[np.floating], mean: npt.NDArray[np.floating], scale: npt.NDArray[np.floating]
) -> npt.NDArray[np.floating]:
    limited: npt.NDArray[np.floating] = np.clip((embeddings - mean) * scale, -LIMIT, LIMIT)
    return limited
