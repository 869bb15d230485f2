"""The installed command: its wheel in an environment without the training packages, for a project in another folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.made import ROOT, make_song, python, save_svm, write_params

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def genre(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the command, installed from the wheel with the packages of requirements-serve.lock."""
    folder = tmp_path_factory.mktemp("installed")
    uv: list[str | Path] = [sys.executable, "-m", "uv"]
    install = [*uv, "pip", "install", "--quiet", "--python", folder / "env/bin/python"]
    for command in (
        [*uv, "build", "--quiet", "--wheel", "--out-dir", folder, ROOT],
        [*uv, "venv", "--quiet", folder / "env", "--python", sys.executable],
        [*install, "--require-hashes", "-r", ROOT / "requirements-serve.lock"],
        [*install, "--no-deps", "--find-links", folder, "genre-pipeline"],
    ):
        result = subprocess.run(command, capture_output=True, text=True, check=False)
        if "network" in result.stderr.lower() or "connect" in result.stderr.lower():
            pytest.skip(f"the package index cannot be reached: {result.stderr.splitlines()[-1]}")
        assert not result.returncode, result.stderr
    return folder / "env/bin/genre"


def run(genre: Path, *arguments: str, cwd: Path, **variables: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | variables
    return subprocess.run(
        [genre, *arguments], cwd=cwd, env=environment, check=True, capture_output=True, text=True
    ).stdout


def test_it_answers_as_the_module_does_from_a_package_and_from_any_folder(genre: Path, tmp_path: Path) -> None:
    project = tmp_path / "my project"
    save_svm(project, default=True, name="tiny", songs=16)
    write_params(project)
    make_song(tmp_path / "song.mp3", seconds=5.0)
    expected = python(project, "-m", "stages.query", "../song.mp3").stdout.replace("../song", "song")
    run(genre, "pack", str(tmp_path / "genres.zip"), cwd=project)
    assert run(genre, "query", "--models", "genres.zip", "song.mp3", cwd=tmp_path) == expected
    assert run(genre, "--project", "my project", "query", "song.mp3", cwd=tmp_path) == expected
    assert run(genre, "query", "song.mp3", cwd=tmp_path, GENRE_PROJECT=str(project)) == expected
    packages = {path.name for path in genre.parent.parent.glob("lib/*/site-packages/*")}
    assert "onnxruntime" in packages and not packages & {"tensorflow", "keras", "dvc", "sklearn"}


def test_every_command_is_listed_with_examples_and_completed(genre: Path, tmp_path: Path) -> None:
    listed = run(genre, cwd=tmp_path)
    assert listed == run(genre, "--help", cwd=tmp_path)
    for path in ROOT.glob("stages/[!_]*.py"):
        assert f"\n  {path.stem} " in listed
        assert f"\ngenre {path.stem}" in run(genre, path.stem, "--help", cwd=tmp_path)  # without a project
    completed = {
        "genre ident": "identify",
        "genre --project . query --mid": "--middle",
        "genre identify --engine em": "embeddings",
    }
    for line, expected in completed.items():
        result = subprocess.run(
            ["bash", "-c", f"{genre} 8>&1 9>/dev/null"],
            env=os.environ | {"_ARGCOMPLETE": "1", "COMP_LINE": line, "COMP_POINT": str(len(line))},
            stdout=subprocess.PIPE,
            check=False,
        )
        assert result.stdout.decode().split("\x0b") == [f"{expected} "]
