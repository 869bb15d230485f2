"""Models, indexes and data sets from others: no code is run, and nothing outside the project is read or written."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from genre.audio import dataset, manifest
from genre.errors import DatasetError, GenreError, ParamsError
from genre.evaluation import dataset_card, timeline
from genre.paths import Paths
from genre.web.songs import Songs
from stages import extract, split, vectorize
from tests.conftest import ROOT, MakeSong, save_svm, write_params

CONTROL = "\x1b]0;owned\x07\x1b[31mred"


def test_genres_of_a_card_are_neither_paths_nor_control_sequences(tmp_path: Path, make_song: MakeSong) -> None:
    song = make_song(tmp_path / "song.wav", seconds=4.0)
    project = tmp_path / "deep" / "project"
    save_svm(project)
    write_params(project)
    card = Paths(project).card("stats_svm")
    card.write_text(json.dumps(json.loads(card.read_text()) | {"genres": ["../../x", CONTROL]}))
    before = _names(tmp_path)
    result = subprocess.run(
        [sys.executable, "-m", "stages.query", str(song), "--model", "stats_svm", "--plot", "answer.svg"],
        cwd=project,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert "\x1b" not in result.stdout + result.stderr
    assert "../../x" in result.stdout or "owned" in result.stdout
    assert _names(tmp_path) - before == {"deep/project/answer.svg"}
    assert "\x1b" not in (project / "answer.svg").read_text()


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_no_module_loads_what_keras_saved() -> None:
    """Predictions use ONNX only: a Keras file can contain code."""
    loaders = ("load_model", "model_from_json", "from_json", "deserialize", "load_weights", "enable_unsafe")
    for path in [*(ROOT / "stages").rglob("*.py"), *(ROOT / "genre").rglob("*.py")]:
        found = [name for name in loaders if f"{name}(" in path.read_text()]
        assert not found, f"{path}: {found}"


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
def test_an_index_of_chunks_that_leads_out_of_the_project_moves_no_command(
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


def test_only_audio_below_the_data_set_is_sent_whatever_its_links_say(divided: Path) -> None:
    secret = divided.parent / f"{divided.name}.wav"
    secret.write_bytes(b"RIFF a secret")
    row = manifest.read(divided / "chunks")[0]
    Path(row.source).unlink()
    Path(row.source).symlink_to(secret)
    assert Songs(Paths(divided)).audio(row.genre, row.song) == divided / "chunks" / row.chunk


# Data sets


def test_links_of_a_data_set_in_circles_end(tmp_path: Path) -> None:
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


def test_a_link_to_a_file_that_is_no_audio_says_nothing_of_what_is_in_it(
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


@pytest.mark.parametrize("name", ["..", ".", "../x", "/etc", "a/b", "a\\b", "", "x\ny", "x\0y", "\x1b[31m"])
def test_a_data_set_is_a_folder_of_dataset_alone(project: Path, name: str) -> None:
    write_params(project, dataset__name=name)
    with pytest.raises(ParamsError, match=r"dataset\.name"):
        split.main([])


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../../secret", "no\0name", "folder"])
def test_a_list_of_test_songs_lies_in_the_data_set(
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


def test_a_picture_of_a_hostile_name_holds_the_name_alone(tmp_path: Path) -> None:
    probabilities = {"a": 0.75, "<script>alert(1)</script>$\\input{x}$": 0.25}
    chunk = {"start": 0.0, "end": 3.0, "genre": "a", "probabilities": probabilities}
    one = {"genre": "a", "confidence": 0.75, "votes": {"a": 1}, "vector": [0], "chunks": [chunk], "duration": 3.0}
    answer: Any = {"file": f"../{CONTROL}$\\frac{{<script>.mp3", "model": "m", **one}
    timeline.plot(answer, tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    assert "<script" not in text
    assert "\x1b" not in text
    assert set(_names(tmp_path)) == {"x.svg"}
