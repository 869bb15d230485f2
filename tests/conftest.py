"""Fixtures of all tests: a project folder, made-up songs, and real music where it is available."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from genre.paths import SYNTHETIC
from stages import baselines, extract, index, split, vectorize
from tests.made import ROOT, write_music, write_params, write_songs

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


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project with six synthetic songs of two genres, the model stats_svm of them and an index."""
    folder = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MILVUS_URI", raising=False)
        write_params(folder, parallel__workers=1)
        for seed in range(6):
            genre = ("rock", "jazz")[seed % 2]
            write_music(folder / "dataset" / "tiny" / genre / f"{seed}.wav", seed, less_bass=genre == "jazz")
        (folder / "dataset" / "tiny" / SYNTHETIC).touch()
        for stage in (split, extract, vectorize, index):
            assert stage.main([]) == 0
        assert baselines.main(["stats_svm"]) == 0
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of the project `trained`, as the working directory."""
    monkeypatch.delenv("MILVUS_URI", raising=False)
    shutil.copytree(trained, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


@pytest.fixture
def shared_data() -> Path:
    """Return the folder of real music, or skip."""
    if not SHARED_DATA.is_dir():
        pytest.skip("the real music (../shared/data) is not available")
    return SHARED_DATA
