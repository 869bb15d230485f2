"""Atomic writes and arrays of numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genre import files


def test_a_written_file_has_the_permissions_of_the_umask_and_a_failed_write_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
    (tmp_path / "plain").write_text("")
    assert path.stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_remove_others_keeps_the_given_files_and_those_of_dvc(tmp_path: Path) -> None:
    for name in ("keep", "stale", ".gitignore"):
        (tmp_path / name).touch()
    files.remove_others(tmp_path, {tmp_path / "keep"})
    assert {path.name for path in tmp_path.iterdir()} == {"keep", ".gitignore"}


def test_objects_instead_of_numbers_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "objects.npz", x=np.array([{}], dtype=object))
    with pytest.raises(ValueError, match="no arrays"):
        files.read_npz(tmp_path / "objects.npz")
