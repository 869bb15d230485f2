"""The whole pipeline on a made-up data set: dvc repro, the stages that a change runs again, and answers of query."""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
import urllib.parse
from pathlib import Path

import numpy as np
import pytest

from genre.audio import manifest
from tests.made import ROOT, make_song, write_params

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]  # dvc repro takes a minute on two idle cores

GENRES = {"high": 660.0, "low": 110.0}
N_SONGS = 4
TRAINING = ["train", "ensemble", "evaluate"]
MODELS = ["mfcc", "spectral_contrast", "merged", "stats_svm", "ensemble"]


@pytest.fixture(scope="module")
def pipeline(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a project in which `dvc repro` has run on a few songs, two of them damaged, with unusual names."""
    root = tmp_path_factory.mktemp("pipeline")
    for name in ("stages", "genre", "corrections"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".dvcignore", ".gitignore", "dvc.yaml", "dataset/dvc.yaml", "audit/dvc.yaml"):
        (root / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, root / name)
    write_params(root)
    names = ["plain.wav", "-dash #1.flac", "it's:café.ogg", "new\nline.mp3"]
    for genre, hz in GENRES.items():
        for i, name in enumerate(names):
            make_song(root / "dataset" / "tiny" / genre / name, seconds=4.0 + 2 * i, hz=hz * (1 + 0.03 * i), seed=i)
    (root / "dataset" / "tiny" / "low" / "broken.mp3").write_bytes(b"not audio")
    (root / "dataset" / "tiny" / "low" / "second half.wav").write_bytes(b"RIFF")
    for command in (["git", "init", "-q"], ["dvc", "init", "-q"], ["git", "add", "."]):
        _run(root, *command)
    _run(root, "git", "-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-qm", "start")
    _run(root, "dvc", "repro", "-q")
    return root


def _run(root: Path, *command: str) -> subprocess.CompletedProcess[str]:
    tools = Path(sys.executable).parent
    program = str(tools / command[0]) if (tools / command[0]).exists() else command[0]
    environment = os.environ | {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "DVC_NO_ANALYTICS": "1"}
    result = subprocess.run([program, *command[1:]], cwd=root, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def _query(root: Path, *arguments: str) -> str:
    return _run(root, "python", "-m", "stages.query", *arguments).stdout


def _evaluated(root: Path, model: str) -> dict[str, dict[str, str]]:
    """Return the rows of a model in evaluation/predictions.csv by song."""
    with (root / "evaluation" / "predictions.csv").open(newline="") as stream:
        return {row["song"]: row for row in csv.DictReader(stream) if row["model"] == model}


def _stages_run(output: str) -> list[str]:
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage")]


def test_every_chunk_comes_from_one_song_in_one_split(pipeline: Path) -> None:
    rows = manifest.read(pipeline / "chunks")
    assert {(row.genre, row.split) for row in rows} == {(g, s) for g in GENRES for s in ("train", "test")}
    assert len({row.song_id for row in rows}) == len(GENRES) * N_SONGS
    assert len({(row.source_sha256, row.split) for row in rows}) == len(GENRES) * N_SONGS
    on_disk = {path.relative_to(pipeline / "chunks").as_posix() for path in (pipeline / "chunks").rglob("*.wav")}
    assert on_disk == {row.chunk for row in rows}


def test_the_metrics_are_those_of_the_predictions(pipeline: Path) -> None:
    metrics = json.loads((pipeline / "evaluation" / "metrics.json").read_text())
    assert set(metrics) == {*MODELS, "recording"}
    rows = _evaluated(pipeline, "merged").values()
    right = np.mean([row["actual"] == row["predicted"] for row in rows])
    assert metrics["merged"]["song_accuracy"] == pytest.approx(right)
    assert (pipeline / "evaluation" / "plots" / "merged.png").read_bytes().startswith(b"\x89PNG")


def test_dvcs_metrics_fit_a_terminal_and_its_plots_are_images_that_load_nothing(pipeline: Path) -> None:
    header, *rows = _run(pipeline, "dvc", "metrics", "show").stdout.rstrip().splitlines()
    assert header.split() == ["Path", "accuracy", "ece", "high", "log_loss", "low", "n"]
    assert [row.split()[0] for row in rows] == [f"scores/{model}.json" for model in sorted([*MODELS, "recording"])]
    assert max(map(len, [header, *rows])) <= 120
    _run(pipeline, "dvc", "plots", "show")
    html = (pipeline / "dvc_plots" / "index.html").read_text()
    images = re.findall(r'<img src="([^"]+)"', html)
    assert len(images) == 2 + len(MODELS)
    assert all((pipeline / "dvc_plots" / urllib.parse.unquote(image)).is_file() for image in images)
    assert not re.search(r"https?://|<script", html)
    assert _run(pipeline, "git", "status", "--porcelain", "dvc_plots").stdout == ""


def test_the_report_is_one_file_that_loads_no_other(pipeline: Path) -> None:
    html = (pipeline / "evaluation" / "report.html").read_text()
    assert html.count("data:image/png;base64,") == 3 + 2 * len(MODELS)
    assert not re.search(r"(src|href)=\"?(https?:)?//|<script|@import|url\(", html)
    assert "tiny" in html and "epochs: 2" in html


@pytest.mark.parametrize("model", MODELS)
def test_a_query_predicts_as_evaluate_does_and_imports_no_large_package(pipeline: Path, model: str) -> None:
    never = {"tensorflow", "keras", "matplotlib", "dvc", "pandas", "sklearn", "scipy", "onnx"}
    code = (
        "import sys; from stages import query; status = query.main(sys.argv[1:]);"
        f"large = {never} & set(sys.modules); sys.exit(str(large) if large else status)"
    )
    songs = {row.source: row.song_id for row in manifest.read(pipeline / "chunks") if row.split == "test"}
    printed = _run(pipeline, "python", "-c", code, "--format", "json", "--model", model, *sorted(songs)).stdout
    evaluated = _evaluated(pipeline, model)
    for source, answer in zip(sorted(songs), json.loads(printed), strict=True):
        assert answer["file"] == source
        assert answer["genre"] == evaluated[songs[source]]["predicted"]
        assert answer["confidence"] == pytest.approx(float(evaluated[songs[source]]["confidence"]), abs=1e-4)


def test_a_query_answers_in_every_format(pipeline: Path) -> None:
    song = "dataset/tiny/low/plain.wav"
    answer = json.loads(_query(pipeline, song, "--format", "json"))
    assert set(answer) >= {"file", "duration", "model", "genre", "confidence", "warnings", "votes", "vector", "chunks"}
    assert json.loads(_query(pipeline, song, "--format", "jsonl")) == answer
    rows = list(csv.DictReader(_query(pipeline, song, "--format", "csv").splitlines()))
    assert {row["song_genre"] for row in rows} == {answer["genre"]}
    assert [float(row["end"]) for row in rows] == [chunk["end"] for chunk in answer["chunks"]] == [3.0, 4.0]
    line = f"\ngenre: {answer['genre']} ({max(answer['votes'].values())} of 2 chunks, "
    assert line in _query(pipeline, song)
    assert json.loads(_query(pipeline, song, "--format", "json", "--min-confidence", "1"))["genre"] == "unknown"


def test_a_change_runs_only_the_stages_that_depend_on_it(pipeline: Path) -> None:
    assert "up to date" in _run(pipeline, "dvc", "repro").stdout
    before = (pipeline / "params.yaml").read_text()
    (pipeline / "params.yaml").write_text(before.replace("epochs: 2", "epochs: 1"))
    assert _stages_run(_run(pipeline, "dvc", "repro").stdout) == TRAINING
    (pipeline / "params.yaml").write_text(before)
    back = _run(pipeline, "dvc", "repro").stdout
    assert _stages_run(back) == []
    assert back.count("is cached - skipping run") == len(TRAINING)
    _run(pipeline, "dvc", "checkout")  # and `dvc exp apply`, without an audit
