"""The stage split: skipped songs, failures and changes while it runs."""

from __future__ import annotations

import csv
import re
import shutil
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from genre.audio import chunks, corrections, manifest
from genre.errors import AudioError, DatasetError, WorkerError
from genre.paths import Paths
from stages import split
from tests.made import ffmpeg_run, make_song, outs, python, write_params

pytestmark = pytest.mark.slow


def _fresh(project: Path) -> dict[str, bytes]:
    """Return the chunks of a run without interruption and without a cache."""
    for folder in ("chunks", ".cache"):
        shutil.rmtree(project / folder, ignore_errors=True)
    assert split.main([]) == 0
    return outs(project)


@pytest.mark.parametrize("seed", range(4))
def test_files_that_cannot_be_decoded_take_no_place_in_the_division(
    project: Path, songs: Path, capsys: pytest.CaptureFixture[str], seed: int
) -> None:
    write_params(project, split__seed=seed, split__test_fraction=0.25)
    for n in range(20):
        (songs / "low" / f"broken {n}.mp3").write_bytes(b"not audio %d" % n)
    others = ("song 0.flac.asd", "x.mid", "x.url", "x.tiff", "x.lnk", "x.docx", "@eaDir/song 0.flac@SynoEAStream")
    for name in others:
        (songs / "low" / name).parent.mkdir(exist_ok=True)
        (songs / "low" / name).write_bytes(np.random.default_rng(seed).bytes(3000))
    assert split.main([]) == 0
    printed = capsys.readouterr()
    high, low, total = printed.out.splitlines()
    assert "high: 4 songs (train 3, test 1)" in high and "low: 4 songs (train 3, test 1)" in low
    assert total.endswith("6 other files skipped, 20 failures")
    assert "broken 7.mp3" in printed.err
    with (project / "chunks" / "failures.csv").open(newline="") as stream:
        assert "dataset/tiny/low/broken 7.mp3" in {failure["source"] for failure in csv.DictReader(stream)}
    write_params(project, split__on_error="fail")
    with pytest.raises(AudioError, match=r"20 songs could not be split and split\.on_error is fail: .*broken"):
        split.main([])


COPIES = {  # by the format of the original: names and ffmpeg's options of copies
    "flac": {
        "tags.flac": "-c copy -metadata title=x",
        "a.mka": "-c copy",
        "a.wav": "",
        "a.m4a": "-c:a alac",
        "a.wv": "",
    },
    "mp3": {"tags.mp3": "-c copy -metadata title=x", "a.mka": "-c copy", "bare.mp3": "-c copy -write_xing 0"},
    "m4a": {"tags.m4a": "-c copy -metadata title=x", "a.aac": "-c copy", "a.mkv": "-c copy"},
    "ogg": {"a.webm": "-c copy"},
}


@pytest.mark.parametrize("suffix", COPIES)
def test_copies_with_other_tags_containers_or_lossless_codecs_are_on_one_side(
    project: Path, songs: Path, suffix: str
) -> None:
    write_params(project, split__test_fraction=0.5)
    original = make_song(songs / "low" / f"original.{suffix}", seconds=7.0, seed=9, sample_rate=44_100, channels=2)
    copies = COPIES[suffix]
    for name, options in copies.items():
        ffmpeg_run("-i", original, *options.split(), songs / "low" / name)
    for seed in range(5):  # the songs are decoded once
        write_params(project, split__test_fraction=0.5, split__seed=seed)
        assert split.main([]) == 0
        rows = manifest.read(project / "chunks")
        of_original = {row.source: row.split for row in rows if not Path(row.source).name.startswith("song ")}
        assert len(of_original) == len(copies) + 1 and len(set(of_original.values())) == 1
        assert all((project / "chunks" / row.chunk).is_file() and row.chunk.startswith(row.split) for row in rows)
    for side, name in (("train", original.name), ("test", next(iter(copies)))):
        for genre in ("high", "low"):
            make_song(songs / side / genre / f"{side}.wav", seed=len(side + genre), hz=20.0 * len(genre))
        (songs / "low" / name).rename(songs / side / "low" / name)
    for genre in ("high", "low"):
        shutil.rmtree(songs / genre)
    with pytest.raises(DatasetError, match=r"original.* \(train\) and .* \(test\) are the same recording"):
        split.main([])


def test_silent_chunks_are_left_out_and_are_no_copies(
    project: Path, songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for n in range(6):
        samples = np.concatenate([np.zeros(3 * 22_050), np.random.default_rng(n).normal(0, 3000, 3 * 22_050)])
        chunks.write(songs / "low" / f"quiet {n}.wav", samples.astype(np.int16), sample_rate=22_050)
    write_params(project, split__test_fraction=0.5)
    chunks.write(songs / "low" / "silent.wav", np.full(6 * 22_050, 3, np.int16), sample_rate=22_050)
    assert split.main([]) == 0
    quiet = {row.source: row.split for row in manifest.read(project / "chunks") if "quiet" in row.source}
    assert sorted(quiet.values()).count("test") in range(1, 6)
    assert {row.start_s for row in manifest.read(project / "chunks") if row.source in quiet} == {3.0}
    printed = capsys.readouterr()
    assert "silent.wav: is silent, or has less than 0.25 s of sound" in printed.err
    assert printed.out.splitlines()[-1].endswith("6 silent chunks left out, 1 failures")


def test_groups_corrections_and_duplicates_are_applied_and_counted(
    project: Path, songs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(project, split__group_by="groups.csv", split__duplicates="drop")
    (songs / "groups.csv").write_text("song,group\nhigh/song 0,one\nlow/song 0,one\n")
    for song, genre in (("high/song 3", "low"), ("low/song 3", "drop")):
        corrections.add(Paths().corrections("tiny"), song, genre)
    Paths().corrections("tiny.duplicates").write_text("song,other\nhigh/song 1,low/song 2\n")
    assert split.main([]) == 0
    rows = {row.source.removeprefix("dataset/tiny/"): row for row in manifest.read(project / "chunks")}
    kept = ["high/song 0", "high/song 1", "high/song 2", "high/song 3", "low/song 0", "low/song 1"]
    assert sorted(rows) == [f"{name}.flac" for name in kept]
    assert rows["high/song 3.flac"].genre == "low" and rows["high/song 3.flac"].chunk.split("/")[1] == "low"
    first, other = rows["high/song 0.flac"], rows["low/song 0.flac"]
    assert (first.split, first.group) == (other.split, other.group) == (first.split, "groups.csv:one")
    assert rows["low/song 1.flac"].group == "low/song 1"
    assert "5 groups, 1 corrected, 1 dropped, 1 copies dropped, 0 failures" in capsys.readouterr().out
    Paths().corrections("tiny").write_text("song,genre\nhigh/song 9,low\n")
    with pytest.raises(DatasetError, match=r"corrections/tiny\.csv, line 2: high/song 9 is not in dataset/tiny/"):
        split.main([])


def test_a_genre_without_readable_test_songs_is_named(project: Path, songs: Path) -> None:
    for genre in ("high", "low"):
        for n, path in enumerate(sorted((songs / genre).glob("*.flac"))):
            target = songs / ("train" if n < 2 else "test") / genre / path.name
            target.parent.mkdir(parents=True, exist_ok=True)
            path.rename(target)
        (songs / genre).rmdir()
    for path in (songs / "test" / "low").iterdir():
        path.write_bytes(b"broken " + path.name.encode())
    with pytest.raises(DatasetError, match="genre low has no song that could be decoded for test"):
        split.main([])


def test_a_song_that_changes_while_it_is_read_is_refused_and_not_cached(
    project: Path, songs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_params(project, parallel__workers=1)
    path, iterate = songs / "high" / "song 0.flac", chunks.iterate
    before, after = path.read_bytes(), make_song(project / "other.flac", seconds=5.0, hz=330.0).read_bytes()

    def changed_after_hashing(name: Path, **options: object) -> object:
        if name.samefile(path):
            path.write_bytes(after)
        return iterate(name, **options)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr("genre.audio.chunks.iterate", changed_after_hashing)
        assert split.main([]) == 0
    assert "song 0.flac: changed while it was read" in capsys.readouterr().err
    assert not list((project / "chunks").rglob("high/song 0-*.wav"))
    path.write_bytes(before)
    assert split.main([]) == 0
    assert outs(project) == _fresh(project)


def test_a_full_disk_is_an_error_and_leaves_no_partial_chunk(project: Path, songs: Path) -> None:
    limited = "import resource, subprocess, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000));"
    limited += "sys.exit(subprocess.run([sys.executable, '-m', 'stages.split']).returncode)"
    assert python(project, "-c", limited, status=1).stderr.splitlines()[-1].startswith("error: ")
    assert list((project / "chunks").rglob("*.wav")) == []
    shutil.rmtree(project / "chunks")
    (project / "chunks").write_text("a file in place of a folder")
    last_line = python(project, "-m", "stages.split", status=1).stderr.splitlines()[-1]
    assert last_line.startswith("error: ") and "chunks" in last_line
    (project / "chunks").unlink()
    assert split.main([]) == 0
    assert outs(project) == _fresh(project)


def test_the_disk_space_is_estimated_and_must_be_there(
    project: Path, songs: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(split, "SMALL_BYTES", 0)
    assert split.main([]) == 0
    estimated = float(re.search(r"take about ([\d.e-]+) GB", capsys.readouterr().out)[1])  # type: ignore[index]
    chunk_bytes = sum(path.stat().st_size for path in (project / "chunks").rglob("*.wav"))
    assert 0.5 * chunk_bytes < 1e9 * estimated < 2 * chunk_bytes
    shutil.rmtree(project / ".cache")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1000))
    with pytest.raises(DatasetError, match="the disk has 1e-06 GB, too few"):
        split.main([])


def test_a_scheduler_that_does_not_answer_is_named(project: Path, songs: Path) -> None:
    pytest.importorskip("distributed", reason="the package distributed is not installed")
    write_params(project, parallel__scheduler="tcp://127.0.0.1:1")
    with pytest.raises(WorkerError, match=r"tcp://127\.0\.0\.1:1 \(parallel\.scheduler\) does not answer"):
        split.main([])
