"""A file is whole or absent."""

from __future__ import annotations

from pathlib import Path

import pytest

from genre import files


def test_a_failed_write_leaves_the_old_file_and_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    files.write_text(path, "old")
    with pytest.raises(RuntimeError), files.atomic_path(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_written_file_has_the_permissions_that_the_umask_gives(tmp_path: Path) -> None:
    (tmp_path / "plain").write_text("")
    files.write_text(tmp_path / "ours", "")
    assert (tmp_path / "ours").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_a_table_quotes_names_with_commas_and_newlines(tmp_path: Path) -> None:
    files.write_table(tmp_path / "t.csv", ["a", "b"], [["x,y", "line\nbreak"]])
    assert (tmp_path / "t.csv").read_bytes() == b'a,b\n"x,y","line\nbreak"\n'


def test_remove_others_keeps_what_is_named_and_dvcs_own(tmp_path: Path) -> None:
    for name in ("keep", "stale", ".gitignore"):
        (tmp_path / name).touch()
    files.remove_others(tmp_path, {tmp_path / "keep"})
    assert {path.name for path in tmp_path.iterdir()} == {"keep", ".gitignore"}
