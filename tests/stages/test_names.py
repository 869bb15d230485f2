"""What DVC cannot track in a data set is named, and names that are not UTF-8 are renamed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from genre.audio import dataset
from genre.errors import DatasetError
from stages import fetch, names


def test_names_that_are_not_utf8_are_listed_and_renamed(
    project: Path, songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert names.main([]) == 0
    album = os.fsencode(songs / "low") + b"/Bj\xf6rk"
    for path in (b"/caf\xe9.flac", b"/.hidden\xff", b"/cover\x81.jpg"):
        Path(os.fsdecode(album)).mkdir(exist_ok=True)
        Path(os.fsdecode(album + path)).write_bytes(path)
    (songs / "low" / "Bj\u00f6rk").mkdir()
    with pytest.raises(DatasetError, match="names --rename"):
        fetch.main([])
    assert names.main([]) == 1
    assert capsys.readouterr().err.count("--rename` renames it") == 4
    assert names.main(["--rename"]) == 0
    assert fetch.main([]) == 0
    Path(os.fsdecode(os.fsencode(songs / "low") + b"/" + b"\xe9" * 200 + b".mp3")).write_bytes(b"1")
    assert names.main(["--rename"]) == 0
    (songs / "low" / ("\u00e9" * 118 + ".mp3")).unlink()
    (renamed,) = songs.glob("low/Bj\u00f6rk~*")
    assert sorted(path.name for path in renamed.iterdir()) == [".hidden\u00ff", "caf\u00e9.flac", "cover\ufffd.jpg"]
    assert len(dataset.scan(songs)) == 9


def test_links_and_pipes_that_dvc_cannot_read_are_listed(
    project: Path, songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (songs / "low" / "album").symlink_to(songs / "high")
    (songs / "low" / "gone.mp3").symlink_to("/nowhere")
    (songs / "high" / ".dvc").mkdir()
    os.mkfifo(songs / "low" / "pipe.mp3")
    assert names.main(["--rename"]) == 1
    faults = sorted(line.split(" ", 2)[1].split("/", 2)[2] for line in capsys.readouterr().err.splitlines())
    assert faults == ["high/.dvc", "low/album", "low/gone.mp3", "low/pipe.mp3"]


@pytest.mark.slow
def test_dvc_watches_what_the_check_allows(project: Path, songs: Path) -> None:
    (project / "elsewhere.flac").write_bytes(b"1")
    (songs / "low" / "link.flac").symlink_to(project / "elsewhere.flac")
    for name in ("new\nline", "back\\slash", "tab\t.flac", "e\u0301", "\u00e9", "${x}", ".hidden", "\u2028"):
        (songs / "high" / name).write_bytes(b"1")
    assert names.main([]) == 0
    (project / "dvc.yaml").write_text("stages: {read: {cmd: date > out, deps: [dataset/tiny], outs: [out]}}")

    def dvc(*words: str) -> str:
        command = [sys.executable, "-m", "dvc", *words]
        return subprocess.run(command, cwd=project, capture_output=True, text=True, check=True).stdout

    dvc("init", "--no-scm")
    dvc("repro")
    assert "up to date" in dvc("status")
    (project / "elsewhere.flac").write_bytes(b"22")
    assert "modified" in dvc("status")
