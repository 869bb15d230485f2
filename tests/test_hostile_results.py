"""Models, indices, data sets and names made by others: no code is run, no file outside the project is used."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genre import files
from genre.audio import dataset, manifest
from genre.errors import DatasetError, GenreError, ModelError, SearchError
from genre.evaluation import dataset_card, timeline
from genre.features.settings import Settings
from genre.models import cards, ensemble, predict, runtime
from genre.models.query import Answer, answer
from genre.paths import Paths
from genre.search import embedding_manifest
from genre.web.songs import Songs
from stages import extract, split, vectorize
from tests.conftest import ROOT, MakeSong, write_params

onnx = pytest.importorskip("onnx")

SETTINGS = Settings(22_050, 3.0, 1.0)
FRAMES, COLUMNS = 65, 20  # of the coefficients of 3 s
CONTROL = "\x1b]0;owned\x07\x1b[31mred"


def _graph(*, inputs: dict[str, list[Any]], n_genres: int, location: str | None = None, scale: float = 0.0) -> bytes:
    """Return an ONNX file: the mean over the frames by a matrix of `scale`, then softmax."""
    from onnx import TensorProto, helper

    matrix = helper.make_tensor("matrix", TensorProto.FLOAT, [COLUMNS, n_genres], [scale] * (COLUMNS * n_genres))
    if location is not None:
        matrix.ClearField("float_data")
        matrix.data_location = TensorProto.EXTERNAL
        for key, value in (("location", location), ("offset", "0"), ("length", str(4 * COLUMNS * n_genres))):
            entry = matrix.external_data.add()
            entry.key, entry.value = key, value
    nodes = [
        helper.make_node("ReduceMean", [next(iter(inputs))], ["mean"], axes=[1], keepdims=0),
        helper.make_node("MatMul", ["mean", "matrix"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["genres"], axis=1),
    ]
    taken = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()]
    given = helper.make_tensor_value_info("genres", TensorProto.FLOAT, ["batch", n_genres])
    graph = helper.make_graph(nodes, "graph", taken, [given], [matrix])
    made: bytes = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8
    ).SerializeToString()
    return made


COEFFICIENTS: dict[str, list[Any]] = {"mfcc_coefficients": ["batch", FRAMES, COLUMNS]}
FINE = _graph(inputs=COEFFICIENTS, n_genres=2)


def _write_model(root: Path, data: bytes = FINE, **changes: Any) -> cards.ModelFiles:
    """Write the model `mfcc` of two genres, and a card that fits the file but for the changes."""
    paths = cards.model_files("mfcc", root)
    files.write_bytes(paths.onnx, data)
    inputs = {"mfcc_coefficients": [FRAMES, COLUMNS]}
    made = cards.Card(
        "mfcc", "conv1d", ["a", "b"], inputs, SETTINGS.to_dict(), {}, {}, {}, {}, files.sha256(paths.onnx)
    )
    cards.write(replace(made, **changes), root)
    return paths


def _ask(root: Path, song: Path) -> Answer:
    return answer(song, predict.load("mfcc", root))


@pytest.fixture
def song(tmp_path: Path, make_song: MakeSong) -> Path:
    return make_song(tmp_path / "song.wav", seconds=4.0)


# Networks


def test_a_valid_model_answers(tmp_path: Path, song: Path) -> None:
    _write_model(tmp_path)
    assert _ask(tmp_path, song)["chunks"][0]["probabilities"] == {"a": 0.5, "b": 0.5}


@pytest.mark.parametrize("kept", [0, 1, 2, 4, 8, 12, 15])
def test_a_truncated_network_is_named(tmp_path: Path, song: Path, kept: int) -> None:
    _write_model(tmp_path, FINE[: len(FINE) * kept // 16])
    with pytest.raises(ModelError, match="mfcc"):
        _ask(tmp_path, song)


@pytest.mark.parametrize("location", ["../../secret", "{root}/secret", "weights.bin", "link.bin", "secret"])
def test_weights_in_another_file_are_never_read(
    tmp_path: Path, song: Path, monkeypatch: pytest.MonkeyPatch, location: str
) -> None:
    secret = np.arange(2 * COLUMNS, dtype="<f4").tobytes()
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "project"
    (root / "model_weights").mkdir(parents=True)
    for path in (tmp_path / "secret", root / "secret", root / "model_weights" / "weights.bin"):
        path.write_bytes(secret)
    (root / "model_weights" / "link.bin").symlink_to(tmp_path / "secret")
    data = _graph(inputs=COEFFICIENTS, n_genres=2, location=location.format(root=tmp_path))
    paths = _write_model(root, data)
    with pytest.raises(ModelError, match="weights in another file"):
        _ask(root, song)
    for source in (data, paths.onnx):
        with pytest.raises(ModelError, match="weights in another file"):
            runtime.session(source)


@pytest.mark.parametrize(
    ("data", "changes", "named"),
    [
        (_graph(inputs={"other": ["batch", FRAMES, COLUMNS]}, n_genres=2), {}, "takes other, not what its card says"),
        (_graph(inputs=COEFFICIENTS, n_genres=3), {}, "does not give a probability for each genre"),
        (FINE, {"genres": ["a", "b", "c"]}, "does not give a probability for each genre"),
        (FINE, {"genres": [f"g{n}" for n in range(1_000_000)]}, "does not give a probability for each genre"),
        (FINE, {"genres": ["a", "a"]}, "is damaged: genres"),
        (FINE, {"genres": []}, "is damaged: genres"),
        (FINE, {"genres": "ab"}, "is damaged: genres"),
        (FINE, {"inputs": {"mfcc_coefficients": [65]}}, "is damaged"),
        (FINE, {"inputs": {"mfcc_coefficients": [66, 20]}}, "66 frames"),
        (_graph(inputs={"mfcc_coefficients": ["b", 9, 7]}, n_genres=2), {}, "mfcc"),
        (_graph(inputs=COEFFICIENTS, n_genres=2, scale=float("nan")), {}, "gives values that are no numbers"),
        (FINE, {"onnx_sha256": "0" * 64}, "not the file that"),
        (FINE, {"settings": {**SETTINGS.to_dict(), "digest": "0"}}, "digest"),
        (FINE, {"settings": Settings(10**12, 3.0, 1.0).to_dict()}, "sample_rate 1000000000000"),
        (FINE, {"settings": Settings(22_050, 1e9, 1.0).to_dict()}, "chunk_seconds 1000000000"),
        (FINE, {"settings": Settings(22_050, float("nan"), 1.0).to_dict()}, "chunk_seconds nan"),
        (FINE, {"unknown": {"rates": [{"far": 0.05, "threshold": 7}]}}, "is damaged: unknown"),
    ],
)
def test_a_network_that_does_not_fit_its_card_is_refused(
    tmp_path: Path, song: Path, data: bytes, changes: dict[str, Any], named: str
) -> None:
    path = _write_model(tmp_path, data).card
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ModelError, match=named):
        _ask(tmp_path, song)


@pytest.mark.parametrize("name", ["../secret/mfcc", "/etc/x", "..", "a/b", "", "x\0y", "-x"])
def test_a_model_name_cannot_lead_to_another_folder(tmp_path: Path, name: str) -> None:
    _write_model(tmp_path / "secret")
    _write_model(tmp_path)
    one = ensemble.EnsembleCard("ensemble", ["mfcc"], 1.0, name, {}, ["a", "b"], SETTINGS.to_dict())
    ensemble.write(one, tmp_path)
    with pytest.raises(ModelError):
        predict.load(None, tmp_path) if name else predict.Predictor(name, tmp_path)
    ensemble.write(replace(one, models=[name]), tmp_path)
    with pytest.raises(ModelError):
        predict.load("ensemble", tmp_path)


def test_genres_of_a_card_are_not_used_as_paths_or_terminal_codes(
    tmp_path: Path, song: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    genres = ["../../x", CONTROL]
    project = tmp_path / "deep" / "project"
    write_params(tmp_path)
    project.mkdir(parents=True)
    write_params(project)
    _write_model(project, genres=genres)
    before = _names(tmp_path)
    result = subprocess.run(
        [sys.executable, "-m", "stages.query", str(song), "--model", "mfcc", "--plot", "answer.svg"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + result.stderr
    assert "../../x" in result.stdout
    assert _names(tmp_path) - before == {"deep/project/answer.svg"}
    assert "\x1b" not in (project / "answer.svg").read_text()


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_the_index_of_another_project_is_refused(tmp_path: Path) -> None:
    other = Settings(44_100, 10.0, 5.0)
    for named, value in (("transforms", []), ("digest", "")):
        settings = other.to_dict() | {named: value}
        made_with = embedding_manifest.Manifest("statistics", settings, 8, "0" * 64)
        embedding_manifest.write(made_with, songs=1, windows=1, contents="", scores={}, path=tmp_path / "index.json")
        with pytest.raises(SearchError, match=rf"index\.json.*other {named}"):
            embedding_manifest.read(tmp_path / "index.json")


# The index of chunks


@pytest.fixture
def divided(project: Path, make_song: MakeSong) -> Path:
    """Return a project with chunks and features, below a folder that nothing may be written to."""
    for genre, hz in (("high", 660.0), ("low", 110.0)):
        for n in range(2):
            make_song(project / "dataset" / "tiny" / genre / f"{n}.wav", seconds=3.0, hz=hz, seed=n)
    write_params(project, parallel__workers=1)
    assert split.main([]) == 0
    assert extract.main([]) == 0
    return project


@pytest.mark.parametrize("column", ["chunk", "source"])
@pytest.mark.parametrize("name", ["../../outside/x.wav", "/{root}/outside/x.wav", "train/../../../outside/x.wav"])
def test_an_index_of_chunks_with_paths_outside_the_project_is_refused(
    divided: Path, make_song: MakeSong, column: str, name: str
) -> None:
    outside = make_song(divided.parent / f"{divided.name}-outside" / "x.wav", seconds=3.0)
    found = name.format(root=outside.parent.parent).replace("outside", outside.parent.name)
    _change(divided, **{column: found})
    before = _names(divided.parent)
    for stage in (extract, vectorize):
        with pytest.raises(DatasetError, match=rf"index\.csv is damaged .*{column}"):
            stage.main([])
    with pytest.raises(DatasetError, match="damaged"):
        dataset_card.describe("tiny", Path("chunks"), genres=["high", "low"], chunk_s=3.0)
    assert Songs(Paths(divided)).examples(5) == []
    assert _names(divided.parent) == before


def _change(project: Path, **changes: str) -> None:
    """Change columns of the first row of chunks/index.csv, as somebody with an editor does."""
    path = project / "chunks" / "index.csv"
    with path.open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    rows[0] |= changes
    with path.open("w", newline="") as stream:
        writer = csv.DictWriter(stream, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def test_the_service_sends_only_audio_of_the_data_set(divided: Path) -> None:
    secret = divided.parent / f"{divided.name}.wav"
    secret.write_bytes(b"RIFF a secret")
    row = manifest.read(divided / "chunks")[0]
    Path(row.source).unlink()
    Path(row.source).symlink_to(secret)
    song = Songs(Paths(divided)).get(row.genre, row.song)
    assert song is not None
    assert song.audio == divided / "chunks" / row.chunk


# Data sets


def test_circular_links_in_a_data_set_are_refused_or_ignored(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for genre in ("a", "b"):
        (root / genre).mkdir(parents=True)
        (root / genre / "x.mp3").write_bytes(genre.encode())
    (root / "a" / "up").symlink_to(root)
    (root / "a" / "self.mp3").symlink_to("self.mp3")
    (root / "a" / "there.mp3").symlink_to("back.mp3")
    (root / "a" / "back.mp3").symlink_to("there.mp3")
    assert [(song.genre, song.name) for song in dataset.scan(root)] == [("a", "x"), ("b", "x")]
    (root / "c").symlink_to(root)
    with pytest.raises(DatasetError, match="c is a link to a folder that contains it"):
        dataset.scan(root)


def test_the_content_of_a_linked_file_that_is_not_audio_is_not_printed(
    project: Path, make_song: MakeSong, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = project / "secret.txt"
    secret.write_text("password hunter2\n" * 50)
    for genre, hz in (("high", 660.0), ("low", 110.0)):
        for n in range(2):
            make_song(project / "dataset" / "tiny" / genre / f"{n}.wav", seconds=3.0, hz=hz, seed=n)
    (project / "dataset" / "tiny" / "low" / "song.mp3").symlink_to(secret)
    assert split.main([]) == 0
    captured = capsys.readouterr()
    assert "song.mp3" in captured.err
    for path in [*(project / "chunks").rglob("*"), *(project / ".cache").rglob("*")]:
        assert path.is_dir() or b"hunter2" not in path.read_bytes()
    assert "hunter2" not in captured.out + captured.err


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../../secret", "no\0name", "folder"])
def test_a_list_of_test_songs_outside_the_data_set_is_refused(
    project: Path, make_song: MakeSong, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    (project / "secret").write_text("root:hunter2\n")
    for genre in ("high", "low"):
        make_song(project / "dataset" / "tiny" / genre / "x.wav", seconds=3.0)
    (project / "dataset" / "tiny" / "folder").mkdir()
    write_params(project, split__test_list=name)
    with pytest.raises(GenreError, match="list"):
        split.main([])
    captured = capsys.readouterr()
    assert "hunter2" not in captured.out + captured.err


def test_a_name_with_markup_is_escaped_in_a_plot(tmp_path: Path) -> None:
    probabilities = {"a": 0.75, "<script>alert(1)</script>$\\input{x}$": 0.25}
    chunk = {"start": 0.0, "end": 3.0, "genre": "a", "probabilities": probabilities}
    one = {"genre": "a", "confidence": 0.75, "votes": {"a": 1}, "vector": [0], "chunks": [chunk], "duration": 3.0}
    answer: Any = {"file": f"../{CONTROL}$\\frac{{<script>.mp3", "model": "m", **one}
    timeline.plot(answer, tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    assert "<script" not in text
    assert "\x1b" not in text
    assert set(_names(tmp_path)) == {"x.svg"}
