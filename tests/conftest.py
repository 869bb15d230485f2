"""Fixtures of all tests: a project folder, made-up songs, and real music where it is available."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.made import ROOT, make_song_file, outs, save_svm, write_params

__all__ = ["ROOT", "SHARED_DATA", "MakeSong", "make_song_file", "outs", "save_svm", "write_params"]
SHARED_DATA = ROOT.parent / "shared" / "data"

MakeSong = Callable[..., Path]


@pytest.fixture(scope="session")
def make_song() -> MakeSong:
    """Return `made.make_song_file`."""
    return make_song_file


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty project folder with params.yaml for short chunks, as the working directory."""
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of real music, or skip."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real music (../shared/data) is not available")
    return SHARED_DATA
