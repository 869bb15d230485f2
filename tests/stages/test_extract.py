"""The stage extract: cache, named files and errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from genre.errors import FeatureError
from stages import extract
from tests.made import GOLDEN, make_song, write_chunks


def test_a_chunk_that_cannot_be_read_fails_the_stage(project: Path) -> None:
    write_chunks(project, n_songs=1)
    (project / "chunks" / "test/low/song 3-000.wav").write_bytes(b"no audio")
    with pytest.raises(FeatureError, match=r"song 3-000\.wav"):
        extract.main([])


@pytest.mark.parametrize("names", ["a.wav a.flac", "a:b.wav a_b.wav"])
def test_named_files_whose_csv_files_would_have_one_name_are_refused(tmp_path: Path, names: str) -> None:
    paths = [str(make_song(tmp_path / name)) for name in names.split()]
    with pytest.raises(FeatureError, match=r"\.wav: the CSV files of .* have the same names"):
        extract.main([*paths, "--out", str(tmp_path / "out"), "--engine", "numpy"])


def test_a_named_file_that_is_damaged_or_whose_csv_names_are_too_long_fails_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    long, bad = tmp_path / ("ä" * 110 + ".wav"), tmp_path / "bad.wav"
    shutil.copy(GOLDEN / "mix_22k.wav", long)
    bad.touch()
    names = [str(bad), str(GOLDEN / "mix_22k.wav"), str(long)]
    assert extract.main([*names, "--out", str(tmp_path / "out"), "--engine", "numpy"]) == 1
    errors = capsys.readouterr().err
    assert f"{bad}: " in errors
    assert f"{long}: its CSV files have names of more than 255 bytes" in errors
    csvs = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    assert csvs == {path.name: path.read_bytes() for path in GOLDEN.glob("mix_22k_*.csv")}


def test_the_list_of_engines_says_which_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VAMP_PATH", str(tmp_path))
    assert extract.main(["--engines"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["sonic-annotator", "no:"], ["vamp", "no:"], ["numpy", "yes:"]]
