"""The command query: options, several songs and tags."""

from __future__ import annotations

import functools
import json
import shutil
import subprocess
from http.server import SimpleHTTPRequestHandler
from pathlib import Path

import mutagen.id3
import pytest

from tests.made import ffmpeg_run, make_song, python, save_svm, serving, write_params

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a model and an album of five songs and a file that is not audio."""
    folder = tmp_path_factory.mktemp("query")
    save_svm(folder)
    write_params(folder)
    for number in range(5):
        make_song(folder / "album" / f"{number}.mp3", seconds=2.0 + 2 * number, seed=number)
    (folder / "album" / "2b.mp3").write_bytes(b"not audio")
    return folder


def query(folder: Path, *arguments: str, status: int = 0, stage: str = "query") -> subprocess.CompletedProcess[str]:
    return python(folder, "-m", f"stages.{stage}", *arguments, "--model", "stats_svm", status=status)


def test_the_songs_of_a_folder_are_answered_in_order_and_a_damaged_one_is_named(songs: Path) -> None:
    result = query(songs, "album", "--format", "jsonl", status=1)
    answers = [json.loads(line) for line in result.stdout.splitlines()]
    assert [answer["file"] for answer in answers] == [f"album/{number}.mp3" for number in range(5)]
    assert [round(answer["duration"]) for answer in answers] == [2, 4, 6, 8, 10]
    (line,) = result.stderr.splitlines()  # without a progress bar: stderr is no terminal
    assert line.startswith("error: album/2b.mp3: cannot be decoded")
    alone = [json.loads(query(songs, answer["file"], "--format", "jsonl").stdout) for answer in answers]
    assert alone == answers
    (middle,) = json.loads(query(songs, "album/4.mp3", "--middle", "2", "--format", "json").stdout)["chunks"]
    assert (middle["start"], middle["end"]) == pytest.approx((4.0, 6.0), abs=0.1)  # of 10 s


def test_a_url_is_a_song(songs: Path) -> None:
    pytest.importorskip("yt_dlp", reason="yt-dlp is not installed")
    with serving(functools.partial(SimpleHTTPRequestHandler, directory=str(songs / "album"))) as address:
        url = f"http://{address}/1.mp3"
        answer = json.loads(query(songs, url, "--format", "json").stdout)
    assert answer == json.loads(query(songs, "album/1.mp3", "--format", "json").stdout) | {"file": url}


def test_the_answer_is_plotted(songs: Path) -> None:
    query(songs, "album/3.mp3", "--plot", "3.svg")
    assert (songs / "3.svg").read_text().startswith("<?xml")
    (songs / "folder.png").mkdir()
    for name, reason in (
        ("3.doc", "the name must end in .png or .svg"),
        ("new/3.png", "the folder new/ does not exist"),
        ("folder.png", "is a folder"),
    ):
        refused = query(songs, "album/3.mp3", "--plot", name, status=1)
        assert (refused.stdout, refused.stderr) == ("", f"error: {name}: {reason}\n")
    assert not (songs / "new").exists()


def test_the_genre_is_written_into_the_tags_unless_it_is_a_dry_run(songs: Path, tmp_path: Path) -> None:
    album = shutil.copytree(songs / "album", tmp_path / "album")
    before = {path.name: path.read_bytes() for path in album.iterdir()}
    dry_run = query(songs, str(album), "--write-tags", "--dry-run", "--format", "jsonl", status=1)
    assert "0.mp3: no genre -> " in dry_run.stderr
    assert "(dry run)" in dry_run.stderr
    assert {path.name: path.read_bytes() for path in album.iterdir()} == before
    written = query(songs, str(album), "--write-tags", "--format", "jsonl", status=1)
    answers = [json.loads(line) for line in written.stdout.splitlines()]
    assert len(answers) == 5
    for answer in answers:
        assert mutagen.id3.ID3(answer["file"])["TCON"].text == [answer["genre"]]
    unknown = query(songs, str(album / "0.mp3"), "--write-tags", "--min-confidence", "1")
    assert unknown.stderr == f"{album / '0.mp3'}: {answers[0]['genre']}, unchanged (unknown)\n"
    undone = query(songs, str(album), "--undo", "--format", "jsonl", status=1, stage="tags")  # one is no song
    assert [json.loads(line)["new"] for line in undone.stdout.splitlines()] == [[]] * 5
    for answer in answers:
        assert mutagen.id3.ID3(answer["file"]) == mutagen.id3.ID3(songs / "album" / Path(answer["file"]).name)


def test_tags_writes_own_names_above_a_confidence_in_every_format_of_answers(songs: Path, tmp_path: Path) -> None:
    song = Path(shutil.copy(songs / "album" / "0.mp3", tmp_path / "song.mp3"))
    genre = json.loads(query(songs, str(song), "--format", "json").stdout)["genre"]
    (tmp_path / "map.yaml").write_text(f"{{high: null, low: null, {genre}: [Pop, '17']}}")
    options = ("--journal", str(tmp_path / "own.jsonl"), "--map", str(tmp_path / "map.yaml"))
    tags = functools.partial(query, songs, str(song), *options, stage="tags")
    assert tags("--min-confidence", "1").stdout == f"{song}: no genre, unchanged (low confidence)\n"
    assert tags("--dry-run", "--multi").stdout == f"{song}: no genre -> Pop; 17 (dry run)\n"
    assert tags("--format", "csv").stdout == f"file,old,new,reason\n{song},,Pop; 17,\n"
    assert tags("--only-empty").stdout == f"{song}: Pop; 17, unchanged (has a genre)\n"
    assert tags("--undo").stdout == f"{song}: Pop; 17 -> no genre\n"


def test_a_model_of_synthetic_songs_says_so_and_writes_no_tags_unless_asked(songs: Path, tmp_path: Path) -> None:
    save_svm(tmp_path, name="demo", synthetic=True)
    write_params(tmp_path)
    song = Path(shutil.copy(songs / "album" / "0.mp3", tmp_path / "song.mp3"))
    before = song.read_bytes()
    warning = "the model was trained on synthetic songs (data set demo): its genres mean nothing for real music"
    assert query(tmp_path, "song.mp3").stdout.splitlines()[-1] == f"warning: {warning}"
    assert json.loads(query(tmp_path, "song.mp3", "--format", "json").stdout)["warnings"] == [warning]
    assert query(tmp_path, "song.mp3", "--format", "csv").stderr == f"warning: song.mp3: {warning}\n"
    refused = query(tmp_path, "song.mp3", "--write-tags", status=2)
    assert refused.stdout == "" and f"{warning}; `python -m stages.tags --force` writes them" in refused.stderr
    assert (
        f"{warning}; they are written only with --force" in query(tmp_path, "song.mp3", status=2, stage="tags").stderr
    )
    assert song.read_bytes() == before
    query(tmp_path, "song.mp3", "--force", stage="tags")
    assert song.read_bytes() != before
    assert json.loads(query(songs, "album/0.mp3", "--format", "json").stdout)["warnings"] == []


def test_standard_input_is_a_dash_and_a_name_that_is_too_long_does_not_stop_it(songs: Path) -> None:
    code = "import sys; sys.stdin = open('album/0.mp3'); from stages import query; sys.exit(query.main(sys.argv[1:]))"
    arguments = ("n" * 300 + ".ogg", "-", "--model", "stats_svm", "--format", "jsonl")
    result = python(songs, "-c", code, *arguments, status=1)
    assert [json.loads(line)["file"] for line in result.stdout.splitlines()] == ["-"]
    assert "File name too long" in result.stderr


def test_an_answer_is_printed_even_if_the_tags_cannot_be_written(songs: Path, tmp_path: Path) -> None:
    song = tmp_path / "song.mka"
    ffmpeg_run("-i", songs / "album" / "0.mp3", song)
    result = query(songs, str(song), "--write-tags", "--format", "jsonl", status=1)
    assert json.loads(result.stdout)["file"] == str(song)
    assert "song.mka: tags can be written to" in result.stderr
