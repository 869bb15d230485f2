"""Interrupted stages: no temporary file and no process is left, and the next run completes the outputs."""

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
from tests.made import outs, start, write_params, write_songs

pytestmark = pytest.mark.slow


def _run_all() -> None:
    for stage in (split, extract, vectorize):
        assert stage.main([]) == 0


@pytest.mark.parametrize(
    ("stage", "folder", "sent", "whole_group"),
    [
        ("split", "chunks", signal.SIGINT, True),  # as Ctrl-C does: to the workers too
        ("split", "chunks", signal.SIGTERM, True),  # as a service manager does
        ("extract", "features", signal.SIGTERM, False),
        ("vectorize", "pickled_vectors", signal.SIGTERM, False),
        ("split", "chunks", signal.SIGKILL, False),  # as the kernel does when memory is short
    ],
)
def test_an_interrupted_stage_leaves_no_temporary_file_and_no_process(
    project: Path, monkeypatch: pytest.MonkeyPatch, stage: str, folder: str, sent: signal.Signals, whole_group: bool
) -> None:
    write_songs(project / "dataset" / "tiny", n_songs=3, suffix=".wav")
    write_params(project, parallel__workers=1)
    _run_all()
    expected = outs(project)
    (temporary := project / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    for name in (folder, ".cache"):
        shutil.rmtree(project / name)
    write_params(project, parallel__workers=2)
    process = start(project, sys.executable, "-m", f"stages.{stage}", out=subprocess.PIPE)
    while process.poll() is None and not any((project / folder).rglob("*.*")):
        time.sleep(0.005)
    (os.killpg if whole_group else os.kill)(process.pid, sent)
    output = b"".join(process.communicate(timeout=60))
    assert process.returncode in (0, 128 + sent, -sent), output  # 0: it had ended before; -sent: while Python ended
    assert b"Traceback" not in output
    deadline = time.monotonic() + 60
    with contextlib.suppress(ProcessLookupError):  # no process of the group is left
        while True:
            os.killpg(process.pid, 0)
            assert time.monotonic() < deadline, "a worker is still running"
            time.sleep(0.05)
    assert [path.name for path in temporary.rglob("*") if sent != signal.SIGKILL or path.is_file()] == []
    assert list((project / folder).rglob("*.tmp")) == []
    write_params(project, parallel__workers=1)
    _run_all()
    assert outs(project) == expected
