"""A value or a combination of options that is not allowed is one sentence of argparse, before any file is read."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest

from genre.errors import ModelError
from stages import query, serve
from tests.made import ROOT, python, save_svm


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("compare --folds 1", "argument --folds: 1 "),
        ("compare --folds two", "argument --folds: two "),
        ("compare --repeats 0", "argument --repeats: 0 "),
        ("demo --songs 0", "argument --songs: 0 "),
        ("demo --seed -1", "argument --seed: -1 "),
        ("similar song.mp3 --top 0", "argument --top: 0 "),
        ("identify song.mp3 --min-score 1.1", "argument --min-score: 1.1 "),
        ("identify song.mp3 --start nan", "argument --start: nan "),
        ("query song.mp3 --middle inf", "argument --middle: inf "),
        ("query song.mp3 --middle 0", "argument --middle: 0 must be greater than 0"),
        ("query song.mp3 --middle 2 --start 1", "--middle goes without"),
        ("query song.mp3 --middle 2 --duration 1", "--middle goes without"),
        ("query song.mp3 --min-confidence -0.1", "argument --min-confidence: -0.1 "),
        ("query . --plot album.png", "--plot takes one song"),
        ("query - --write-tags", "- is not a file"),
        ("query - --dry-run", "--dry-run goes with --write-tags"),
        ("tags -", "- is not a file"),
        ("serve --port 65536", "argument --port: 65536 "),
    ],
)
def test_what_is_not_allowed_is_one_sentence(
    words: str, message: str, project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, *arguments = words.split()
    with pytest.raises(SystemExit) as caught:
        importlib.import_module(f"stages.{command}").main(arguments)
    (*_, line) = capsys.readouterr().err.splitlines()
    assert caught.value.code == 2
    assert "error: " in line and message in line


def test_no_option_is_a_bare_number() -> None:
    for path in ROOT.glob("stages/*.py"):
        assert not re.search(r"type=(int|float)\b", path.read_text()), path.name


@pytest.mark.parametrize(
    ("code", "packages"),
    [
        ("import stages.demo, stages.serve", "numpy scipy pydantic fastapi uvicorn"),
        (
            "import numpy; from genre.models import musicnn; musicnn.patches(numpy.ones(66150, 'int16'), 22050)",
            "tensorflow keras pandas sklearn scipy onnx matplotlib librosa pymilvus dvc tqdm",
        ),
    ],
)
def test_help_and_musicnn_import_no_large_package(code: str, packages: str) -> None:
    python(ROOT, "-c", f"{code}; import sys; assert not {set(packages.split())} & set(sys.modules)")


@pytest.mark.parametrize("command", [query, serve])
def test_an_unknown_model_is_answered_with_all_models_there_are(command: object, project: Path) -> None:
    save_svm(project, default=True)
    words = ["song.mp3"] if command is query else ["--port", "0"]
    with pytest.raises(ModelError, match="model nope; there are: ensemble, stats_svm"):
        command.main([*words, "--model", "nope"])  # type: ignore[attr-defined]
