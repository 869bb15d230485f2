"""The stage extract: cache, shards, named files and errors."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from genre.errors import FeatureError
from genre.features import csv, numpy_engine
from genre.files import read_json
from stages import extract
from tests.made import GOLDEN, MakeSong, outs, write_chunks, write_params


@pytest.fixture
def extracted(monkeypatch: pytest.MonkeyPatch, project: Path) -> list[int]:
    """Return a list that gets an item for every file that is analysed, in a project with chunks and one worker."""
    write_params(project, parallel__workers=1)
    write_chunks(project)
    calls: list[int] = []
    compute_blocks = numpy_engine.compute_blocks

    def counted(*arguments: object, **options: object) -> object:
        calls.append(1)
        return compute_blocks(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(numpy_engine, "compute_blocks", counted)
    return calls


def test_a_second_run_restores_the_same_files_from_the_cache(project: Path, extracted: list[int]) -> None:
    assert extract.main([]) == 0
    first = outs(project)
    assert len(extracted) == 12
    shutil.rmtree(project / "features")
    assert extract.main([]) == 0
    assert len(extracted) == 12
    assert outs(project) == first
    assert read_json(project / "features" / "extraction.json")["engine"] == "numpy"


def test_files_of_another_csv_format_are_not_restored(
    project: Path, extracted: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert extract.main([]) == 0
    monkeypatch.setattr(csv, "VERSION", csv.VERSION + 1)
    assert extract.main([]) == 0
    assert len(extracted) == 24


def test_shards_fill_the_cache_and_the_stage_collects_them(project: Path, extracted: list[int]) -> None:
    assert [extract.main(["--shard", f"{number}/3"]) for number in (1, 2, 3)] == [0, 0, 0]
    assert len(extracted) == 12
    assert not (project / "features" / "extraction.json").exists()
    assert extract.main([]) == 0
    assert len(extracted) == 12


def test_a_chunk_that_cannot_be_read_fails_the_stage(project: Path, extracted: list[int]) -> None:
    (project / "chunks" / "test/low/song 3-000.wav").write_bytes(b"no audio")
    with pytest.raises(FeatureError, match=r"song 3-000\.wav"):
        extract.main([])


def test_the_csv_of_named_files_goes_to_the_folder_out(tmp_path: Path) -> None:
    assert extract.main([str(GOLDEN / "mix_22k.wav"), "--out", str(tmp_path), "--engine", "numpy"]) == 0
    _assert_golden(tmp_path)


def test_named_files_whose_csv_files_would_collide_are_refused(tmp_path: Path, make_song: MakeSong) -> None:
    one, two = make_song(tmp_path / "a.wav"), make_song(tmp_path / "a.flac")
    with pytest.raises(FeatureError, match="collide"):
        extract.main([str(one), str(two), "--out", str(tmp_path / "out"), "--engine", "numpy"])


def test_a_damaged_named_file_is_reported_and_the_others_are_extracted(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "bad.wav").write_bytes(b"")
    good = str(GOLDEN / "mix_22k.wav")
    assert extract.main([str(tmp_path / "bad.wav"), good, "--out", str(tmp_path / "out"), "--engine", "numpy"]) == 1
    assert "bad.wav" in capsys.readouterr().err
    _assert_golden(tmp_path / "out")


def test_a_file_whose_csv_names_are_too_long_fails_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [tmp_path / ("ä" * 110 + ".wav"), tmp_path / "mix_22k.wav"]
    for path in paths:
        shutil.copy(GOLDEN / "mix_22k.wav", path)
    assert extract.main([*map(str, paths), "--out", str(tmp_path / "out"), "--engine", "numpy"]) == 1
    assert f"{paths[0]}: the names of its CSV files would have more than 255 bytes" in capsys.readouterr().err
    _assert_golden(tmp_path / "out")


def test_the_list_of_engines_says_which_can_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("VAMP_PATH", str(tmp_path))
    assert extract.main(["--engines"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[:2] for line in lines] == [["sonic-annotator", "no:"], ["vamp", "no:"], ["numpy", "yes:"]]


def _assert_golden(folder: Path) -> None:
    csvs = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert csvs == {path.name: path.read_bytes() for path in GOLDEN.glob("mix_22k_*.csv")}
