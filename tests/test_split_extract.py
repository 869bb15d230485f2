"""The stages split and extract: incremental, and killed while they run."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest

from genre.audio import chunks
from genre.features import numpy_engine
from stages import extract, split
from tests.made import MakeSong, outs, start, write_params

pytestmark = pytest.mark.slow

N_KILLS = int(os.environ.get("N_KILLS", "4"))


def _run_both() -> None:
    assert split.main([]) == 0
    assert extract.main([]) == 0


def _fresh(project: Path) -> dict[str, bytes]:
    """Return the outputs of a run without interruption and without a cache."""
    for folder in ("chunks", "features", ".cache"):
        shutil.rmtree(project / folder, ignore_errors=True)
    _run_both()
    return outs(project)


@pytest.fixture
def work(monkeypatch: pytest.MonkeyPatch, project: Path) -> list[str]:
    """Return a list that grows with every file that is decoded or analysed (in this process: one worker)."""
    write_params(project, parallel__workers=1)
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


@pytest.mark.parametrize("change", ["add", "change", "rename", "remove"])
def test_after_a_change_of_one_song_only_that_song_is_computed(
    project: Path, songs: Path, work: list[str], make_song: MakeSong, change: str
) -> None:
    (songs / "test.txt").write_text("high/song 0\nlow/song 0\n")
    write_params(project, parallel__workers=1, split__test_list="test.txt")
    _fresh(project)
    work.clear()
    if change == "add":
        make_song(songs / "low" / "new.ogg", seconds=4.0, hz=120.0, seed=9)
    elif change == "change":
        make_song(songs / "low" / "song 1.flac", seconds=4.0, hz=130.0, seed=10)
    elif change == "rename":
        (songs / "low" / "song 1.flac").rename(songs / "low" / "renamed.flac")
    else:
        (songs / "low" / "song 1.flac").unlink()
    _run_both()
    expected = {"add": ["split new.ogg", *["extract"] * 2], "change": ["split song 1.flac", *["extract"] * 2]}
    assert work == expected.get(change, [])
    assert outs(project) == _fresh(project)


def test_another_sample_rate_does_not_use_the_cached_chunks(project: Path, songs: Path, work: list[str]) -> None:
    _fresh(project)
    work.clear()
    write_params(project, parallel__workers=1, split__sample_rate=11_025)
    _run_both()
    assert sum(item.startswith("split") for item in work) == 8
    assert outs(project) == _fresh(project)


def test_a_killed_run_leaves_no_partial_file_and_the_next_one_completes_it(project: Path, songs: Path) -> None:
    expected = _fresh(project)
    run_both = ("sh", "-c", f"{sys.executable} -m stages.split && {sys.executable} -m stages.extract")
    began = time.monotonic()
    assert start(project, *run_both).wait() == 0
    full_s = time.monotonic() - began
    draw = random.Random(0)
    for _ in range(N_KILLS):
        for folder in ("chunks", "features", ".cache"):
            shutil.rmtree(project / folder, ignore_errors=True)
        process = start(project, *run_both)
        time.sleep(draw.uniform(0.2, 1.0) * full_s)
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for name, content in outs(project).items():
            if not name.endswith(".tmp") and not name.startswith("features/extraction"):
                assert content in expected.values(), name  # a chunk may lie in the folder of undivided ones
        _run_both()
        assert outs(project) == expected
