"""The stage vectorize: rows in the order of chunks/index.csv, and errors that name the file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genre.errors import VectorError
from genre.features import arrays, csv
from genre.features.transforms import MFCC, TRANSFORMS
from stages import extract, vectorize
from tests.made import write_chunks


def test_vectors_hold_the_features_in_the_order_of_the_index(project: Path) -> None:
    rows = [row for row in write_chunks(project) if row.split == "test"]
    assert extract.main([]) == 0
    assert vectorize.main([]) == 0
    test_set = arrays.read(project / "pickled_vectors", "test")
    assert test_set.genres == ["high", "low"]
    assert test_set.songs == [row.song_id for row in rows]
    assert [test_set.genres[label] for label in test_set.labels] == [row.genre for row in rows]
    for transform in TRANSFORMS.values():
        folder, chunks = project / "features" / transform.feature, [Path(row.chunk) for row in rows]
        paths = [folder / chunk.parent / transform.csv_name(chunk.stem) for chunk in chunks]
        expected = [csv.read(path, transform.columns) for path in paths]
        np.testing.assert_array_equal(test_set.inputs[transform.feature], expected)


@pytest.mark.slow
def test_chunks_of_different_lengths_are_refused(project: Path) -> None:
    write_chunks(project, n_songs=2)
    assert extract.main([]) == 0
    path = project / "features" / MFCC.feature / "test" / "low" / MFCC.csv_name("song 7-000")
    path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:-1]))
    with pytest.raises(VectorError, match=r"mfcc_coefficients of test/low/song 7-000\.wav has shape"):
        vectorize.main([])
