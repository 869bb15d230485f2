"""The stages split and extract, with and without archives: incremental, and killed while they run."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

from genre import archives
from genre.audio import chunks, manifest
from genre.cache import Cache
from genre.errors import DatasetError
from genre.evaluation import recording
from genre.features import csv, numpy_engine
from genre.paths import Paths
from stages import extract, split, vectorize
from tests.made import make_song, outs, write_params

pytestmark = pytest.mark.slow


def _run() -> None:
    _remove("pickled_vectors")  # as DVC does
    for stage in (split, extract, vectorize):
        assert stage.main([]) == 0


def _fresh(project: Path) -> dict[str, bytes]:
    """Return the outputs of a run without interruption and without a cache."""
    _remove("chunks", "features", ".cache")
    _run()
    return outs(project)


def _remove(*folders: str) -> None:
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch, project: Path) -> list[str]:
    """Return a list that grows with every file that is decoded or analysed, and let archives have 2 to 3 songs."""
    write_params(project, parallel__workers=1)  # in this process
    monkeypatch.setattr(archives, "MAX_SONGS", 3)
    calls: list[str] = []
    iterate, compute = chunks.iterate, numpy_engine.compute_blocks

    def counted_iterate(path: Path, **options: object) -> object:
        calls.append(f"split {path.name}")
        return iterate(path, **options)  # type: ignore[arg-type]

    def counted_compute(*arguments: object, **options: object) -> object:
        calls.append("extract")
        return compute(*arguments, **options)  # type: ignore[arg-type]

    monkeypatch.setattr("genre.audio.chunks.iterate", counted_iterate)
    monkeypatch.setattr("genre.features.numpy_engine.compute_blocks", counted_compute)
    return calls


@pytest.mark.parametrize("pack", [False, True])
@pytest.mark.parametrize(
    ("change", "computed"), [("add", "new.ogg"), ("change", "song 1.flac"), ("rename", None), ("remove", None)]
)
def test_after_a_change_of_one_song_only_that_song_is_computed(
    project: Path, songs: Path, work: list[str], change: str, computed: str | None, pack: bool
) -> None:
    (songs / "test.txt").write_text("high/song 0\nlow/song 0\n")
    write_params(project, parallel__workers=1, split__test_list="test.txt", split__pack=pack)
    before = _fresh(project)
    _remove("chunks", "features")  # as DVC does
    work.clear()
    if computed:
        make_song(songs / "low" / computed, hz=120.0, seed=9)
    elif change == "rename":
        (songs / "low" / "song 1.flac").rename(songs / "low" / "renamed.flac")
    else:
        (songs / "low" / "song 1.flac").unlink()
    _run()
    assert work == ([f"split {computed}", "extract", "extract"] if computed else [])
    after = outs(project)
    rewritten = {Path(name).name for name in before if name.endswith(".zip") and before[name] != after.get(name)}
    assert len(rewritten) == pack  # the new name is in the same archive
    assert after == _fresh(project)
    write_params(project, parallel__workers=1, split__test_list="test.txt", split__pack=not pack)
    work.clear()
    _run()
    assert work == []


def test_archives_have_the_files_of_the_folders_and_are_divided_checked_and_bounded(
    project: Path, songs: Path, work: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, cache, chunk_folder = _fresh(project), Cache(Paths().cache, max_bytes=0), Path("chunks")
    assert json.loads(plain["features/extraction.json"])["engine"] == "numpy"
    properties = recording.properties(manifest.read(chunk_folder), Paths())
    work.clear()
    write_params(project, parallel__workers=1, split__pack=True)
    for max_songs in (3, 1, 3):
        monkeypatch.setattr(archives, "MAX_SONGS", max_songs)
        _run()
        n_archives = len(list(chunk_folder.glob("*.zip")))
        assert (n_archives > 4) == (max_songs == 1)
        cache.trim()
        assert len(cache.entries()) == 2 * n_archives  # what is in use is not counted
    packed = outs(project)
    np.testing.assert_array_equal(recording.properties(manifest.read(chunk_folder), Paths()), properties)
    for archive in project.glob("[cf]*/**/*.zip"):
        zipfile.ZipFile(archive).extractall(archive.parent)
        archive.unlink()
    assert outs(project) == plain | {"chunks/index.csv": packed["chunks/index.csv"]}
    _run()
    assert work == []
    for folder, stage in (("chunks", "split"), ("features/mfcc_coefficients", "extract")):
        archive = max(Path(folder).glob("*.zip"))
        archive.write_bytes(archive.read_bytes().replace(b"1", b"2"))
        with pytest.raises(DatasetError, match=f"{archive} is damaged .*`dvc repro --force {stage}`"):
            (extract if stage == "split" else vectorize).main([])
        _run()
        assert 0 < len(work) < 13
        assert outs(project) == packed
    _remove("chunks", "features")
    cache.trim()
    _run()
    assert len(work) >= 26


def test_there_are_at_most_25_archives_per_thousand_songs() -> None:
    for n_songs in (1, 99, 100, 101, 2000, 3200, 3201, 50_000, 1_000_000):
        n_archives = int(archives.name_of("song", n_songs).removesuffix(".zip").split("-of-")[1])
        assert n_archives == 1 or n_songs / 100 <= n_archives < n_songs / 49


def test_another_sample_rate_or_format_does_not_use_the_cached_files(
    project: Path, songs: Path, work: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    _fresh(project)
    work.clear()
    write_params(project, parallel__workers=1, split__sample_rate=11_025)
    _run()
    assert sum(item.startswith("split") for item in work) == 8
    assert outs(project) == _fresh(project)
    work.clear()
    monkeypatch.setattr(csv, "VERSION", csv.VERSION + 1)
    _run()
    assert work == ["extract"] * 18


def _run_until(n_operations: int) -> None:
    """Run the stages in this process, which is killed before an operation on files."""

    def count(event: str, _: object) -> None:
        nonlocal n_operations
        n_operations -= event in {"open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir"}
        if n_operations < 0 and event != "os.kill":
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)
    _run()


@pytest.mark.parametrize("pack", [False, True])
def test_a_killed_run_leaves_no_partial_file_and_the_next_one_completes_it(
    project: Path, songs: Path, work: list[str], pack: bool
) -> None:
    plain = _fresh(project)
    (project / ".cache").rename(project / "kept")
    write_params(project, parallel__workers=1, split__pack=pack)
    expected, exit_code, n_operations = _fresh(project), None, 0
    while exit_code != 0:
        _remove("chunks", "features", ".cache")
        if pack:
            shutil.copytree(project / "kept", project / ".cache")
        n_operations += 300
        process = multiprocessing.get_context("fork").Process(target=_run_until, args=(n_operations,))
        process.start()
        process.join()
        exit_code = process.exitcode
        for name, content in outs(project).items():
            if not name.endswith(".tmp") and not name.startswith("features/extraction"):
                assert content in [*plain.values(), *expected.values()], name  # in any folder
        work.clear()
        _run()
        assert work == [] or not pack
        assert outs(project) == expected
