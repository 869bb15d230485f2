"""The stage fetch, with a stand-in for mirdata: nothing is downloaded; and its check of what DVC can track."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from genre.errors import DatasetError
from stages import fetch
from tests.made import python


def _stand_in(monkeypatch: pytest.MonkeyPatch, fault: str = "") -> None:
    """Replace mirdata by one with a data set of three songs, which may fail, or leave out a song."""

    def initialize(name: str, data_home: str, version: str) -> SimpleNamespace:
        assert (name, version) == ("gtzan_genre", "mini")
        songs = {song: Path(data_home, f"{song}.wav") for song in ("blues.00000", "blues.00001", "jazz.00003")}

        def download(partial_download: list[str], force_overwrite: bool) -> None:
            assert partial_download == ["index", "mini"]
            if fault == "download":
                raise OSError("md5 checksum differs")
            for song, path in songs.items():
                if (song, fault) != ("jazz.00003", "missing"):
                    path.write_bytes(song.encode())

        tracks = {song: SimpleNamespace(audio_path=str(path)) for song, path in songs.items()}
        return SimpleNamespace(download=download, load_tracks=lambda: tracks)

    monkeypatch.setitem(sys.modules, "mirdata", SimpleNamespace(initialize=initialize))


def test_songs_are_written_to_genre_folders(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _stand_in(monkeypatch)
    assert fetch.main(["gtzan-mini"]) == 0
    paths = sorted(path.relative_to("dataset/gtzan-mini").as_posix() for path in Path("dataset").rglob("*.wav"))
    assert paths == ["blues/blues.00000.wav", "blues/blues.00001.wav", "jazz/jazz.00003.wav"]
    assert [path.name for path in Path("dataset").iterdir() if path.is_dir()] == ["gtzan-mini"]


def test_a_data_set_that_is_there_is_left_as_it_is_and_the_error_for_another_lists_them(project: Path) -> None:
    Path("dataset/mymusic/jazz").mkdir(parents=True)
    assert fetch.main(["mymusic/"]) == 0
    assert Path("dataset/name.txt").read_text() == "mymusic\n"
    with pytest.raises(DatasetError, match=r"dataset/nope/: set dataset\.name .* to one of demo, gtzan-mini, mymusic"):
        fetch.main(["nope", "--check"])


@pytest.mark.parametrize(("fault", "message"), [("download", "md5 checksum differs"), ("missing", ".*jazz.00003")])
def test_an_incomplete_download_leaves_no_data_set(
    project: Path, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    _stand_in(monkeypatch, fault)
    with pytest.raises(DatasetError, match=f"cannot be downloaded: {message}"):
        fetch.main(["gtzan-mini"])
    assert not Path("dataset/gtzan-mini").exists()


def test_a_package_that_is_not_installed_is_named(project: Path) -> None:
    absent = "import sys; sys.modules['mirdata'] = None; from genre import cli; from stages import fetch; "
    result = python(project, "-c", absent + "cli.run_command(lambda _: fetch.main(['gtzan-mini']))", status=1)
    assert (
        result.stderr == "error: the Python module mirdata is not installed: run `make setup`, or see docs/install.md\n"
    )


def test_what_dvc_cannot_track_is_listed(project: Path, songs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch.main(["--check"]) == 0
    Path(os.fsdecode(os.fsencode(songs / "low") + b"/caf\xe9.flac")).touch()
    (songs / "low" / "album").symlink_to(songs / "high")
    (songs / "low" / "gone.mp3").symlink_to("/nowhere")
    (songs / "high" / ".dvc").mkdir()
    os.mkfifo(songs / "low" / "pipe.mp3")
    for arguments in ([], ["--check"]):
        with pytest.raises(DatasetError, match="cannot track 5 files"):
            fetch.main(arguments)
        faults = sorted(line.split(" ", 2)[1].split("/", 2)[2] for line in capsys.readouterr().err.splitlines())
        assert faults == ["high/.dvc", "low/album", "low/caf\\udce9.flac", "low/gone.mp3", "low/pipe.mp3"]
    assert not Path("dataset/name.txt").exists()


@pytest.mark.slow
def test_dvc_watches_what_the_check_allows(project: Path, songs: Path) -> None:
    (project / "elsewhere.flac").write_bytes(b"1")
    (songs / "low" / "link.flac").symlink_to(project / "elsewhere.flac")
    for name in ("new\nline", "back\\slash", "tab\t.flac", "e\u0301", "\u00e9", "${x}", ".hidden", "\u2028"):
        (songs / "high" / name).write_bytes(b"1")
    assert fetch.main(["--check"]) == 0
    (project / "dvc.yaml").write_text("stages: {read: {cmd: date > out, deps: [dataset/tiny], outs: [out]}}")

    def dvc(*words: str) -> str:
        command = [sys.executable, "-m", "dvc", *words]
        return subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout

    dvc("init", "--no-scm")
    dvc("repro")
    assert "up to date" in dvc("status")
    (project / "elsewhere.flac").write_bytes(b"22")
    assert "modified" in dvc("status")
