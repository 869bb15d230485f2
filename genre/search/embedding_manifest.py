"""vectors/index.json: what the vectors in the store were made with, and a digest of what is indexed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from genre import files
from genre.errors import SearchError
from genre.features.settings import Settings
from genre.models import embeddings
from genre.search import embedding_index
from genre.search.embedding_index import Projection

FOLDER = Path("vectors")
MANIFEST = FOLDER / "index.json"
LANDMARKS = FOLDER / "landmarks.npz"
PROJECTION = FOLDER / "projection.npz"
KIND = "chunks"  # first part of the collection's name


@dataclass(frozen=True, slots=True)
class Manifest:
    """What made the vectors."""

    embedding: str
    settings: dict[str, Any]  # what changes a feature, with its digest, as Settings.to_dict
    dimension: int
    fingerprint: str  # of everything that changes a vector
    vectors: int = 0  # that are in the store

    @property
    def feature_settings(self) -> Settings:
        """The settings that a song must be cut with."""
        return Settings.from_dict(self.settings)


def describe(embedding: str, settings: Settings, fitted_on: Iterable[str], project: Projection) -> Manifest:
    """Return what vectors are made with: an embedding of chunks, and a projection fitted on songs of these SHA-256."""
    described = settings.to_dict()
    dimension = int(project.axes.shape[1])
    # the songs that the projection was fitted on stand for its numbers, whose last digits differ between machines
    made_of = (embeddings.describe(embedding), described["digest"], sorted(fitted_on))
    fingerprint = files.digest(*made_of, [embedding_index.VERSION, embedding_index.LIMIT, dimension])
    return Manifest(embedding, described, dimension, fingerprint)


def write(
    made_with: Manifest, *, songs: int, windows: int, contents: str, scores: Mapping[str, float], path: Path = MANIFEST
) -> None:
    """Write the manifest, with the number of songs and vectors, the digest of the contents, and scores."""
    counts = {"songs": songs, "vectors": windows, "contents": contents, "leave_one_song_out": dict(scores)}
    files.write_json(path, {**asdict(made_with), **counts})


def read(path: Path = MANIFEST) -> Manifest:
    """Read and check the manifest.

    Raises
    ------
    SearchError
        If it is missing or damaged, or this version computes features or embeddings otherwise.
    """
    try:
        raw = files.read_json(path)
        found = Manifest(
            raw["embedding"], raw["settings"], int(raw["dimension"]), raw["fingerprint"], int(raw["vectors"])
        )
        ours = found.feature_settings.to_dict()
    except FileNotFoundError:
        raise SearchError(f"{path} is not there: run `dvc repro index`") from None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise SearchError(f"{path} is damaged ({error}): run `dvc repro --force index`") from error
    for key, value in ours.items():
        if found.settings.get(key) != value:
            raise SearchError(
                f"{path}: the vectors were made with other {key} than this version's: run `dvc repro index`"
            )
    return found
