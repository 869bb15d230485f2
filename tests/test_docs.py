"""README and docs/: every command names what there is, every link leads somewhere, and long commands can be parsed."""

from __future__ import annotations

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.conftest import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^(?:```\w*\n(.*?)^```|((?:    \S.*\n)+))", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:python -m|dvc|make) [^`]+)`")


def _commands(page: Path) -> list[str]:
    """Return the lines of code blocks, and commands in the text, that start one of ours, DVC or make."""
    text = page.read_text()
    lines = [line for found in BLOCK.finditer(text) for line in (found[1] or found[2]).splitlines()]
    lines += INLINE.findall(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    starts = re.compile(r"(?:.*[|;] )?((?:python -m (?:stages|benchmarks|tests)\.|dvc |make ).*?)(?: [|>&] ?.*|;.*)?$")
    return [found[1].strip() for line in lines if (found := starts.match(line.strip().removeprefix("$ ")))]


COMMANDS = sorted({(page.name, command) for page in PAGES for command in _commands(page)})


@functools.cache
def _help(module: str) -> str:
    result = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, f"{module} --help: {result.stderr}"
    return result.stdout


@functools.cache
def _stages() -> set[str]:
    files = [path.relative_to(ROOT) for path in (ROOT / "dvc.yaml", *ROOT.glob("*/dvc.yaml"))]
    stages = {str(file) for file in files}
    for file in files:
        for name, stage in yaml.safe_load((ROOT / file).read_text())["stages"].items():
            items = [f"{name}@{item}" for item in stage.get("matrix", {}).get("model", [])]
            stages |= {name, *items} if file.parent == Path() else {f"{file}:{name}"}
    return stages


def _words(command: str) -> list[str]:
    return shlex.split(re.split(r"\s{2,}|\s#", command)[0].replace("[", "").replace("]", ""), comments=True)


@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {command}"[:80] for page, command in COMMANDS])
def test_a_command_of_the_docs_names_what_there_is(page: str, command: str) -> None:
    words = _words(command)
    options = [word.split("=")[0] for word in words if re.match(r"--\w", word)]
    if words[0] == "python":
        told = _help(words[2])
        assert [option for option in options if not re.search(rf"{option}\b", told)] == []
    elif words[0] == "make":
        targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert set(words[1:2]) <= targets
    elif words[1:2] in (["repro"], ["status"]):
        assert {word for word in words[2:] if not word.startswith("-")} <= _stages()
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    for position, word in enumerate(words):
        if word in ("-S", "--set-param"):
            section, _, key = words[position + 1].split("=")[0].partition(".")
            assert key in settings[section], words[position + 1]


def test_there_are_commands_to_check() -> None:
    assert len(COMMANDS) > 40


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_a_link_leads_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if "://" in target:
            continue
        name, _, anchor = target.partition("#")
        other = page.parent / name if name else page
        assert other.exists(), target
        if anchor:
            heads = re.findall(r"^#+ (.+)$", other.read_text(), re.MULTILINE)
            assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, target


def test_the_settings_that_the_docs_name_are_there() -> None:
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    for page in PAGES:
        for section, key in re.findall(r"`(\w+)\.(\w+)(?:: [^`]*)?`", page.read_text()):
            if section in settings:
                assert key in settings[section], f"{page.name}: {section}.{key}"
