"""What commands print: escapes in every format, and standard streams that are closed or full."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from genre import files, terminal
from tests.made import ROOT

MARKS = "".join(map(chr, [0, 7, 13, 27, 0x7F, 0x9B, 0x61C, 0x200E, 0x200F, 0x2028, 0x2029, 0x202E, 0x2066, 0xE0041]))
NAME = "x\nerror: forged" + MARKS.replace("\0", "")

ANSWERING = """
import logging, sys, warnings
from pathlib import Path
from genre import cli
from genre.errors import AudioError
from genre.parallel import run

def warn(name):
    logging.getLogger("genre.worker").warning("of a worker: %s", name)

def answer(path):
    warnings.warn(f"Glyph of {sys.argv[2]!s}")
    logging.getLogger("genre").warning("%s: damaged", sys.argv[2])
    return {"genre": "rock", "song": sys.argv[2]}

def main(_):
    text, rows = lambda value: f"song: {value['song']}", lambda value: [[value["song"]]]
    status = cli.answer_all(["a.wav"], answer, text, sys.argv[1], ["song"], rows)
    if len(sys.argv) > 3:
        list(run(warn, [sys.argv[2]] * 2, description="warn", workers=2))
        raise AudioError(f"{sys.argv[2]}: cannot be decoded")
    return status

if __name__ == "__main__":
    cli.run_command(main)
"""


def answers(folder: Path, form: str, *names: str, redirect: str = "") -> subprocess.CompletedProcess[str]:
    """Run a command that answers with a name as the song, and logs, warns and, with two, fails with it."""
    (folder / "answering.py").write_text(ANSWERING)
    (folder / "a.wav").write_bytes(b"RIFF")
    command = ["sh", "-c", f'exec "$@" {redirect}', "sh", sys.executable, "answering.py", form, *names]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, encoding="utf-8", timeout=60)


@pytest.mark.parametrize(("error", "shown"), [(KeyboardInterrupt, ""), (ValueError, "noise of native code")])
def test_ctrl_c_shows_no_noise_and_an_error_does(
    error: type[BaseException], shown: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(error), terminal.quiet():
        os.write(2, b"noise of native code")
        raise error
    assert capfd.readouterr().err == shown


@pytest.mark.parametrize("form", ["text", "json", "jsonl", "csv"])
def test_names_are_escaped_in_every_output_log_and_warning(tmp_path: Path, form: str) -> None:
    result = answers(tmp_path, form, NAME, "and fail")
    assert result.returncode == 1
    assert not set(MARKS) & set(result.stdout + result.stderr)
    lines = [*result.stderr.splitlines(), *(result.stdout.splitlines() if form != "csv" else [])]  # CSV is quoted
    assert not [line for line in lines if line.startswith("error: forged")]
    assert result.stderr.count("of a worker: x\\nerror: forged") == 2
    assert "error: x\\nerror: forged" in result.stderr
    if form.startswith("json"):
        assert json.loads(result.stdout)["song"] == NAME


def test_json_is_the_same_value_without_a_control_character() -> None:
    value = {MARKS: [MARKS, "caf\udce9 \N{FAMILY}\u200d\N{GIRL}"]}
    text = terminal.to_json(value)
    assert json.loads(text) == value
    assert not set(MARKS) & set(text)


@pytest.mark.parametrize(
    "name", ["=1+1", "\n=1+1", "\t=1", " \x0b\ufeff-1", "\uff1dSUM(1)", "\uff0b1", "\ufe6bA1", "\tx"]
)
def test_formulas_in_csv_begin_with_an_apostrophe(tmp_path: Path, name: str) -> None:
    assert answers(tmp_path, "csv", name).stdout.removeprefix("song\n").lstrip('"').startswith("'")
    assert answers(tmp_path, "csv", "a=b").stdout == "song\na=b\n"


@pytest.mark.parametrize(
    ("redirect", "status", "error"),
    [
        ("<&-", 0, ""),
        ("2>&-", 0, ""),
        ("2>/dev/full", 0, ""),
        ("<&- >&- 2>&-", 1, ""),
        (">&-", 1, "error: standard output: Bad file descriptor\n"),
        (">/dev/full", 1, "error: standard output: No space left on device\n"),
    ],
)
def test_closed_and_full_standard_streams(tmp_path: Path, redirect: str, status: int, error: str) -> None:
    result = answers(tmp_path, "csv", "x", redirect=redirect)
    assert (result.returncode, "".join(result.stderr.splitlines(True)[-1:])[: len(error) or 0]) == (status, error)
    assert "Traceback" not in result.stderr + result.stdout and "Exception ignored" not in result.stderr


def test_an_error_of_a_write_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(OSError, match=r"No space left on device: .*table\.csv"),
        files.atomic_path(tmp_path / "table.csv"),
    ):
        Path("/dev/full").write_bytes(b"x")
