"""Interrupted stages, power cuts and missing permissions: nothing partial is left, and the next run completes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from stages import extract, split, vectorize
from tests.conftest import ROOT, MakeSong, outs, write_params

pytestmark = pytest.mark.slow
FOLDERS = ("chunks", "features", "pickled_vectors")


@pytest.fixture
def songs(project: Path, make_song: MakeSong) -> Path:
    """Return a data set of two genres with three songs each, in a project of its own."""
    write_params(project, parallel__workers=1)
    folder = project / "dataset" / "tiny"
    for genre, hz in (("high", 660.0), ("low", 110.0)):
        for n in range(3):
            make_song(folder / genre / f"song {n}.wav", seconds=4.0 + n, hz=hz, seed=n)
    return folder


def _run_all() -> None:
    for stage in (split, extract, vectorize):
        assert stage.main([]) == 0


def _remove_all(project: Path) -> None:
    for folder in (*FOLDERS, ".cache"):
        shutil.rmtree(project / folder, ignore_errors=True)


def _start(*command: str, **environment: str) -> subprocess.Popen[str]:
    tools = Path(sys.executable).parent
    places = {"PATH": f"{tools}{os.pathsep}{os.environ['PATH']}", "PYTHONPATH": str(ROOT), "DVC_NO_ANALYTICS": "1"}
    return subprocess.Popen(
        [str(tools / command[0]) if (tools / command[0]).exists() else command[0], *command[1:]],
        env=os.environ | places | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def _finish(process: subprocess.Popen[str], timeout_s: float = 120.0) -> tuple[int, str]:
    try:
        output, _ = process.communicate(timeout=timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, output


def _wait_for_file(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    """Wait until there is such a file, or the process has ended."""
    deadline = time.monotonic() + 60
    while process.poll() is None and not (folder.is_dir() and any(folder.rglob(pattern))):
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_two_repros_at_once_give_the_same_outputs(project: Path, songs: Path) -> None:
    _run_all()
    expected = outs(project)
    _remove_all(project)
    for name in (".dvcignore", ".gitignore", "dvc.yaml"):
        shutil.copy(ROOT / name, project / name)
    for package in ("stages", "genre"):
        (project / package).symlink_to(ROOT / package)
    assert _finish(_start("dvc", "init", "-q", "--no-scm"))[0] == 0
    first = _start("dvc", "repro", "vectorize")
    _wait_for_file(first, project / "chunks", "*.wav")
    second = _start("dvc", "repro", "vectorize")
    outcomes = [_finish(first), _finish(second)]
    assert 0 in [status for status, _ in outcomes], outcomes
    for status, output in outcomes:
        assert status == 0 or "lock" in output or "busy" in output, output
    status, output = _finish(_start("dvc", "repro", "vectorize"))
    assert status == 0, output
    assert outs(project) == expected


@pytest.mark.parametrize(("stage", "whole_group"), [("split", True), ("extract", False), ("vectorize", False)])
def test_a_terminated_stage_leaves_no_temporary_file_and_no_process(
    project: Path, songs: Path, stage: str, whole_group: bool
) -> None:
    _run_all()
    expected = outs(project)
    temporary = project / "tmp"
    temporary.mkdir()
    out, pattern = {
        "split": (project / "chunks", "*.wav"),
        "extract": (project / "features", "*.csv"),
        "vectorize": (project / "pickled_vectors", "*"),
    }[stage]
    for folder in (out, project / ".cache"):
        shutil.rmtree(folder)
    write_params(project, parallel__workers=2)
    process = _start(sys.executable, "-m", f"stages.{stage}", TMPDIR=str(temporary))
    _wait_for_file(process, out, pattern)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode in (0, 128 + signal.SIGTERM, -signal.SIGTERM), (
        output
    )  # 0: it was done before; -15: as Python ended
    assert "Traceback" not in output
    for _ in range(200):
        if not _alive(process.pid):
            break
        time.sleep(0.05)
    assert not _alive(process.pid), "a worker is still running"
    assert list(temporary.rglob("*")) == []
    assert list(out.rglob("*.tmp")) == []
    write_params(project, parallel__workers=1)
    _run_all()
    assert outs(project) == expected


def _alive(group: int) -> bool:
    """Return whether a process of the group lives."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_partial_files_of_a_power_cut_are_removed_or_ignored(project: Path, songs: Path) -> None:
    _run_all()
    expected = outs(project)
    others = ("pickled_vectors", "vectors", "dataset/tiny/low")
    for folder in ("chunks/train/high", "features/mfcc_coefficients/train/low", *others):
        (project / folder).mkdir(parents=True, exist_ok=True)
        (project / folder / ".half.tmp").write_bytes(b"RIFF")
    shutil.rmtree(project / ".cache")
    (project / ".cache" / "songs" / "ab" / "unfinished-x").mkdir(parents=True)
    _run_all()
    found = outs(project)
    found.pop("pickled_vectors/.half.tmp", None)  # DVC empties the folder before the stage
    assert found == expected


@pytest.mark.parametrize(("stage", "folder"), list(zip(("split", "extract", "vectorize"), FOLDERS, strict=True)))
def test_a_folder_without_write_permission_is_named(project: Path, songs: Path, stage: str, folder: str) -> None:
    (project / folder).mkdir()
    (project / folder).chmod(0o500)
    if os.access(project / folder, os.W_OK):
        pytest.skip("root may write everywhere")
    (project / folder).chmod(0o700)
    _run_all()
    expected = outs(project)
    shutil.rmtree(project / folder)
    shutil.rmtree(project / ".cache")
    (project / folder).mkdir()
    (project / folder).chmod(0o500)
    status, output = _finish(_start(sys.executable, "-m", f"stages.{stage}"))
    (project / folder).chmod(0o700)
    assert status == 1
    assert folder in output.splitlines()[-1]
    assert "Traceback" not in output
    _run_all()
    assert outs(project) == expected


HOLDING = """
import time
from pathlib import Path
from genre import files
from genre.cli import run_command
from genre.parallel import run

def hold(path):
    with files.atomic_path(path) as temporary:
        path.with_suffix(".begun").touch()
        time.sleep(60)

def main(_):
    list(run(hold, [Path("out/a"), Path("out/b")], description="hold", workers=2))
    return 0

if __name__ == "__main__":
    run_command(main)
"""


def test_terminated_workers_remove_their_temporary_files(project: Path) -> None:
    (project / "hold.py").write_text(HOLDING)
    process = _start(sys.executable, "hold.py")
    for name in ("a", "b"):
        _wait_for_file(process, project / "out", f"{name}.begun")
    assert len(list((project / "out").glob(".*.tmp"))) == 2
    os.killpg(process.pid, signal.SIGTERM)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in output
    assert sorted(path.name for path in (project / "out").iterdir()) == ["a.begun", "b.begun"]
