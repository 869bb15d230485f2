"""Fixtures of all tests: a project folder, made-up songs, and real music where it is available."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.made import ROOT, write_params, write_songs

SHARED_DATA = ROOT.parent / "shared" / "data"


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an empty project folder with params.yaml for short chunks, as the working directory."""
    write_params(tmp_path)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def songs(project: Path) -> Path:
    """Return a data set of two genres with four songs each, in a project of its own."""
    folder = project / "dataset" / "tiny"
    write_songs(folder)
    return folder


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of real music, or skip."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real music (../shared/data) is not available")
    return SHARED_DATA
