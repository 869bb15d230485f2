"""The projection of embeddings to vectors, the description of the vectors, and damaged files of an index."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from genre import files
from genre.errors import SearchError
from genre.features.transforms import Settings
from genre.models.embeddings import Vectors
from genre.search import embedding_index
from genre.search.embedding_index import Description, Projection
from genre.search.landmark_index import LandmarkIndex


def _embeddings(n: int = 50, values: int = 100) -> Vectors:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((n, 5)) @ rng.standard_normal((5, values)) * rng.uniform(1, 1000, values)).astype("f4")


def test_similarities_do_not_depend_on_the_unit_of_a_value() -> None:
    vectors = [embedding_index.fit(values)(values) for values in (_embeddings(), _embeddings() * np.float32(1000))]
    np.testing.assert_allclose(vectors[0] @ vectors[0].T, vectors[1] @ vectors[1].T, atol=1e-3)


@pytest.mark.parametrize(("n", "values", "dimension"), [(50, 100, 49), (500, 100, 64), (500, 20, 20), (2, 100, 2)])
def test_the_dimension_is_at_most_that_of_the_embeddings(n: int, values: int, dimension: int) -> None:
    assert embedding_index.fit(_embeddings(n, values)).dimension == dimension


def test_vectors_have_unit_length_also_with_a_constant_and_an_extreme_value() -> None:
    embeddings = _embeddings()
    embeddings[:, 0] = 7.0
    projection = embedding_index.fit(embeddings)
    embeddings[0, 0] = 1e30
    np.testing.assert_allclose(np.linalg.norm(projection(embeddings), axis=1), 1.0, atol=1e-5)


@pytest.mark.parametrize("load", [Projection.load, Description.load, LandmarkIndex.load])
@pytest.mark.parametrize("content", [None, b"", b"no archive", b"PK\x03\x04" + bytes(50)])
def test_a_missing_or_damaged_file_is_named(
    load: Callable[[Path], object], content: bytes | None, tmp_path: Path
) -> None:
    path = tmp_path / "damaged"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SearchError, match="is damaged" if content is not None else "is missing"):
        load(path)


def test_vectors_of_another_version_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "index.json"
    settings = Settings(22_050, 30.0, 10.0)
    Description("statistics", settings, 8, "0" * 64, 2, 6, None, "").save(path)
    assert Description.load(path).vectors == 6
    files.write_json(path, {**files.read_json(path), "settings": {**settings.to_dict(), "transforms": []}})
    with pytest.raises(SearchError, match="other transforms"):
        Description.load(path)
