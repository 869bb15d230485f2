"""The command query: options, many songs, and no heavy imports."""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import mutagen.id3
import pytest

from genre.audio.ffmpeg import executable
from genre.errors import ModelError
from genre.models.predict import load
from genre.paths import Paths
from tests.made import ROOT, MakeSong, save_svm, write_params

pytestmark = pytest.mark.slow

HEAVY = "tensorflow keras pandas sklearn scipy onnx matplotlib librosa pymilvus dvc tqdm".split()


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory, make_song: MakeSong) -> Path:
    """Return a folder with a model, and an album of good songs with a bad one among them."""
    folder = tmp_path_factory.mktemp("query")
    save_svm(folder)
    write_params(folder)
    for number in range(5):
        make_song(folder / "album" / f"{number}.mp3", seconds=2.0 + 2 * number, seed=number)
    (folder / "album" / "2b.mp3").write_bytes(b"not audio")
    return folder


def query(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", "stages.query", *arguments, "--model", "stats_svm", status=status)


def python(folder: Path, *arguments: str, status: int = 0) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == status, result.stdout + result.stderr
    return result


def test_a_cold_query_imports_nothing_heavy(songs: Path) -> None:
    code = (
        "import sys; from stages import query; query.main(sys.argv[1:]);"
        f"print(sorted(set({HEAVY}) & set(sys.modules)), file=sys.stderr)"
    )
    result = python(songs, "-c", code, "album/3.mp3", "--middle", "2", "--model", "stats_svm")
    assert result.stderr.strip() == "[]"
    assert "genre: " in result.stdout


def test_musicnn_hears_a_chunk_without_scipy() -> None:
    code = (
        "import sys, numpy; from genre.models import musicnn; musicnn.patches(numpy.ones(66150, 'int16'), 22050);"
        f"print(sorted(set({HEAVY}) & set(sys.modules)))"
    )
    assert python(ROOT, "-c", code).stdout.strip() == "[]"


def test_a_folder_is_answered_in_order_and_the_bad_one_is_named(songs: Path) -> None:
    result = query(songs, "album", "--format", "jsonl", status=1)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["file"] for answer in answers] == [f"album/{number}.mp3" for number in range(5)]
    assert [round(answer["duration"]) for answer in answers] == [2, 4, 6, 8, 10]
    (line,) = result.stderr.splitlines()  # and no progress bar: this is no terminal
    assert line.startswith("error: album/2b.mp3: cannot be decoded")
    alone = [json.loads(query(songs, answer["file"], "--format", "jsonl").stdout) for answer in answers]
    assert alone == answers


def test_the_middle_is_asked_for_alone(songs: Path) -> None:
    answer = json.loads(query(songs, "album/4.mp3", "--middle", "2", "--format", "json").stdout)
    (chunk,) = answer["chunks"]
    assert chunk["start"] == pytest.approx(4.0, abs=0.1)  # of 10 s
    assert chunk["end"] - chunk["start"] == pytest.approx(2.0, abs=0.001)
    for other in (["--start", "1"], ["--duration", "1"]):
        assert "--middle goes without" in query(songs, "album/4.mp3", "--middle", "2", *other, status=2).stderr
    assert "0 must be greater than 0" in query(songs, "album/4.mp3", "--middle", "0", status=2).stderr


def test_standard_input_is_a_song(songs: Path) -> None:
    command = [sys.executable, "-m", "stages.query", "-", "--format", "json", "--model", "stats_svm"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    data = (songs / "album" / "0.mp3").read_bytes()
    result = subprocess.run(command, cwd=songs, env=environment, input=data, capture_output=True, check=True)
    answer = json.loads(result.stdout)
    named = json.loads(query(songs, "album/0.mp3", "--format", "json").stdout)
    assert answer == named | {"file": "-"}


def test_a_url_is_a_song(songs: Path) -> None:
    pytest.importorskip("yt_dlp", reason="yt-dlp is not installed")
    handler = functools.partial(_Quiet, directory=str(songs / "album"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        url = f"http://127.0.0.1:{server.server_port}/1.mp3"
        answer = json.loads(query(songs, url, "--format", "json").stdout)
        server.shutdown()
    assert answer == json.loads(query(songs, "album/1.mp3", "--format", "json").stdout) | {"file": url}


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_the_answer_is_drawn(songs: Path) -> None:
    query(songs, "album/3.mp3", "--plot", "drawn/3.svg")
    assert (songs / "drawn" / "3.svg").read_text().startswith("<?xml")
    refused = query(songs, "album/3.mp3", "--plot", "3.doc", status=1)
    assert refused.stdout == ""
    assert "3.doc: the name of a plot must end in .png or .svg" in refused.stderr
    assert "--plot takes one song" in query(songs, "album", "--plot", "album.png", status=2).stderr


def test_the_genre_is_written_into_the_files_and_the_bad_one_is_named(songs: Path, tmp_path: Path) -> None:
    album = shutil.copytree(songs / "album", tmp_path / "album")
    before = {path.name: path.read_bytes() for path in album.iterdir()}
    told = query(songs, str(album), "--write-tags", "--dry-run", "--format", "jsonl", status=1)
    assert "0.mp3: no genre -> " in told.stderr
    assert "(dry run)" in told.stderr
    assert {path.name: path.read_bytes() for path in album.iterdir()} == before
    written = query(songs, str(album), "--write-tags", "--format", "jsonl", status=1)
    answers = [json.loads(line) for line in written.stdout.splitlines()]
    assert len(answers) == 5
    for answer in answers:
        assert mutagen.id3.ID3(answer["file"])["TCON"].text == [answer["genre"]]
    unknown = query(songs, str(album / "0.mp3"), "--write-tags", "--min-confidence", "1")
    assert "unknown, tags unchanged" in unknown.stderr
    assert "is not a file" in query(songs, "-", "--write-tags", status=2).stderr


def test_an_answer_that_cannot_be_written_into_its_file_is_printed_all_the_same(songs: Path, tmp_path: Path) -> None:
    song = tmp_path / "song.mka"
    shutil.copy(songs / "album" / "0.mp3", song.with_suffix(".mp3"))
    subprocess.run([executable(), "-v", "error", "-i", str(song.with_suffix(".mp3")), str(song)], check=True)
    result = query(songs, str(song), "--write-tags", "--format", "jsonl", status=1)
    assert json.loads(result.stdout)["file"] == str(song)
    assert "song.mka: tags can be written to" in result.stderr


def test_what_stands_in_a_file_name_is_neither_obeyed_by_a_terminal_nor_by_a_spreadsheet(
    songs: Path,
) -> None:
    for name in ("\x1b[31mred\x07.mp3", "=cmd|' C'!A1.mp3", "\u202egnp.mp3"):
        shutil.copy(songs / "album" / "0.mp3", songs / name)
        for form in ("text", "jsonl", "csv"):
            printed = query(songs, name, "--format", form).stdout
            assert "\x1b" not in printed
            assert "\u202e" not in printed or form == "jsonl"
            assert form != "csv" or not any(line.startswith("=") for line in printed.splitlines())
        broken = songs / f"broken {name}"
        broken.write_bytes(b"no audio")
        assert not set("\x1b\x07\u202e") & set(query(songs, broken.name, status=1).stderr)


def test_a_name_that_the_system_refuses_costs_one_song(songs: Path) -> None:
    result = query(songs, "n" * 300 + ".ogg", "album/0.mp3", "--format", "jsonl", status=1)
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == ["album/0.mp3"]
    assert "File name too long" in result.stderr


def test_a_line_break_in_a_name_forges_no_answer(songs: Path) -> None:
    name = "fake.mp3\ngenre: techno (3 of 3 chunks, 99 %)"
    shutil.copy(songs / "album" / "0.mp3", songs / name)
    assert not any(line.startswith("genre: techno") for line in query(songs, name).stdout.splitlines())


def test_outside_of_a_project_the_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=f"in {re.escape(str(tmp_path))}: run the command in the project's root"):
        load("merged", Paths(tmp_path))
