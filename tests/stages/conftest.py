"""A small data set for the tests of the stages."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MakeSong


@pytest.fixture
def songs(project: Path, make_song: MakeSong) -> Path:
    """Return a data set of two genres with four songs each, in a project of its own."""
    folder = project / "dataset" / "tiny"
    for genre, hz in (("high", 660.0), ("low", 110.0)):
        for n in range(4):
            make_song(folder / genre / f"song {n}.flac", seconds=4.0 + n, hz=hz, seed=n)
    return folder
