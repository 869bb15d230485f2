"""The projection of embeddings."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genre.errors import SearchError
from genre.search import embedding_index
from genre.search.embedding_index import Projection


def _embeddings(n: int = 50, values: int = 100) -> embedding_index.Vectors:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((n, 5)) @ rng.standard_normal((5, values)) * rng.uniform(1, 1000, values)).astype("f4")


def test_vectors_have_unit_length() -> None:
    given = _embeddings()
    np.testing.assert_allclose(np.linalg.norm(embedding_index.fit(given)(given), axis=1), 1.0, atol=1e-5)


def test_the_unit_of_a_value_does_not_matter() -> None:
    given = _embeddings()
    other = given * np.float32(1000)
    one, two = (array @ array.T for array in (embedding_index.fit(given)(given), embedding_index.fit(other)(other)))
    np.testing.assert_allclose(one, two, atol=1e-3)


@pytest.mark.parametrize(("n", "values", "axes"), [(50, 100, 49), (500, 100, 64), (500, 20, 20), (2, 100, 2)])
def test_there_are_no_more_axes_than_the_embeddings_can_tell(n: int, values: int, axes: int) -> None:
    assert embedding_index.fit(_embeddings(n, values)).axes.shape == (values, axes)


def test_a_value_that_never_changes_and_one_that_leaps_do_no_harm() -> None:
    given = _embeddings()
    given[:, 0] = 7.0
    project = embedding_index.fit(given)
    leaping = given[:1].copy()
    leaping[0, 0] = 1e30
    assert np.isfinite(project(given)).all()
    assert np.isfinite(project(leaping)).all()


def test_a_projection_is_read_back(tmp_path: Path) -> None:
    given = _embeddings()
    project = embedding_index.fit(given)
    project.save(tmp_path / "projection.npz")
    np.testing.assert_array_equal(Projection.load(tmp_path / "projection.npz")(given), project(given))


@pytest.mark.parametrize("content", [None, b"", b"no zip"])
def test_a_missing_or_damaged_projection_is_told(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "projection.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(SearchError, match="damaged" if content is not None else "not there"):
        Projection.load(path)
