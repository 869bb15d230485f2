"""Machines and servers that go: the result is right or the error says what to do, and the next run completes."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from stages import extract, index, split, vectorize
from tests.conftest import ROOT, MakeSong, outs, write_params

FOLDERS = ("chunks", "features", "pickled_vectors")


@pytest.fixture
def songs(project: Path, make_song: MakeSong, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a data set of two genres with three songs each, in a project of its own."""
    monkeypatch.delenv("MILVUS_URI", raising=False)
    write_params(project, parallel__workers=1, index__embedding="statistics")
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
        said, _ = process.communicate(timeout=timeout_s)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    return process.returncode, said


def _wait_until_there(process: subprocess.Popen[str], folder: Path, pattern: str) -> None:
    """Wait until there is such a file, or the process has ended."""
    deadline = time.monotonic() + 60
    while process.poll() is None and not (folder.is_dir() and any(folder.rglob(pattern))):
        assert time.monotonic() < deadline
        time.sleep(0.005)


# Milvus

# `python -m stages.index`, stopped after its first write until there is a file "go"
WAITING = """
import time
from pathlib import Path
from pymilvus import MilvusClient
from stages import index
from genre.cli import run_command
from genre.search import store

store.BATCH = 2
upsert = MilvusClient.upsert

def waiting_upsert(self, *arguments, **options):
    result = upsert(self, *arguments, **options)
    Path("written").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    return result

MilvusClient.upsert = waiting_upsert
run_command(index.main)
"""


@contextlib.contextmanager
def _milvus(port: int, folder: Path) -> Iterator[subprocess.Popen[str]]:
    server = _start(
        *(sys.executable, "-m", "milvus_lite", "server"),
        *("--host", "127.0.0.1", "--port", str(port), "--data-dir", str(folder)),
    )
    try:
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                break
            time.sleep(0.05)
        yield server
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(server.pid, signal.SIGKILL)
        server.communicate()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_milvus_that_goes_while_songs_are_indexed_is_told_and_the_next_run_completes(
    project: Path, songs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert split.main([]) == 0
    port = _free_port()
    monkeypatch.setenv("MILVUS_URI", f"http://127.0.0.1:{port}")
    with _milvus(port, project / "undisturbed"):
        assert index.main([]) == 0
    expected = json.loads((project / "vectors" / "index.json").read_text())
    shutil.rmtree(project / "vectors")
    with _milvus(port, project / "served") as server:
        process = _start(sys.executable, "-c", WAITING)
        _wait_until_there(process, project, "written")
        os.killpg(server.pid, signal.SIGKILL)
        (project / "go").touch()
        status, said = _finish(process)
    assert status == 1, said
    assert f"error: the vector store http://127.0.0.1:{port} does not answer" in said
    assert "check that the server runs" in said
    assert "Traceback" not in said
    assert not (project / "vectors" / "index.json").exists()  # it would say that all is there
    with _milvus(port, project / "served"):
        assert index.main([]) == 0
    assert json.loads((project / "vectors" / "index.json").read_text()) == expected


# DVC


def test_two_repros_at_once_break_nothing(project: Path, songs: Path) -> None:
    _run_all()
    expected = outs(project)
    _remove_all(project)
    for name in (".dvcignore", ".gitignore", "dvc.yaml"):
        shutil.copy(ROOT / name, project / name)
    for package in ("stages", "genre"):
        (project / package).symlink_to(ROOT / package)
    assert _finish(_start("dvc", "init", "-q", "--no-scm"))[0] == 0
    first = _start("dvc", "repro", "vectorize")
    _wait_until_there(first, project / "chunks", "*.wav")
    second = _start("dvc", "repro", "vectorize")
    outcomes = [_finish(first), _finish(second)]
    assert 0 in [status for status, _ in outcomes], outcomes
    for status, said in outcomes:
        assert status == 0 or "lock" in said or "busy" in said, said
    status, said = _finish(_start("dvc", "repro", "vectorize"))
    assert status == 0, said
    assert outs(project) == expected


# Ends


@pytest.mark.parametrize(("stage", "whole_group"), [("split", True), ("extract", False), ("vectorize", False)])
def test_a_stage_that_is_told_to_end_leaves_no_temporary_file_and_no_process(
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
    _wait_until_there(process, out, pattern)
    (os.killpg if whole_group else os.kill)(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode in (0, 128 + signal.SIGTERM, -signal.SIGTERM), (
        said
    )  # 0: it was done before; -15: as Python ended
    assert "Traceback" not in said
    for _ in range(200):
        if not _alive(process.pid):
            break
        time.sleep(0.05)
    assert not _alive(process.pid), "a worker lives on"
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


def test_what_a_power_cut_left_is_removed_or_ignored(project: Path, songs: Path) -> None:
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
def test_a_folder_that_may_not_be_written_is_named(project: Path, songs: Path, stage: str, folder: str) -> None:
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
    status, said = _finish(_start(sys.executable, "-m", f"stages.{stage}"))
    (project / folder).chmod(0o700)
    assert status == 1
    assert folder in said.splitlines()[-1]
    assert "Traceback" not in said
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


def test_workers_that_are_told_to_end_remove_what_they_were_writing(project: Path) -> None:
    (project / "hold.py").write_text(HOLDING)
    process = _start(sys.executable, "hold.py")
    for name in ("a", "b"):
        _wait_until_there(process, project / "out", f"{name}.begun")
    assert len(list((project / "out").glob(".*.tmp"))) == 2
    os.killpg(process.pid, signal.SIGTERM)
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 128 + signal.SIGTERM
    assert "Traceback" not in said
    assert sorted(path.name for path in (project / "out").iterdir()) == ["a.begun", "b.begun"]
