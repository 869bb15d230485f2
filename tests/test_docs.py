"""Commands and links in README, docs/ and messages of the code: their modules, options and stages exist."""

from __future__ import annotations

import ast
import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.made import ROOT

PAGES = sorted([ROOT / "README.md", ROOT / "SECURITY.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
BLOCK = re.compile(r"^(?:```\w*\n(.*?)^```|((?:    \S.*\n)+))", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:python -m|dvc|make|genre) [^`]+)`")


def _commands(page: Path) -> list[str]:
    """Return the lines of code blocks, and commands in the text, that start a module of this project, DVC or make."""
    text = page.read_text()
    lines = [line for block in BLOCK.finditer(text) for line in (block[1] or block[2]).splitlines()]
    lines += INLINE.findall(re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    start = r"python -m (?:stages|benchmarks|tests)\.|dvc |make |genre (?!of )"
    starts = re.compile(rf"(?:.*[|;] )?((?:{start}).*?)(?: [|>&] ?.*|;.*)?$")
    matches = [starts.match(line.strip().removeprefix("$ ")) for line in lines]
    return [match[1].strip() for match in matches if match and "<" not in match[1]]  # <name> is a placeholder


def _commands_in_code(path: Path) -> list[str]:
    """Return the commands in the string literals of a module: those in backquotes, and lines of docstrings."""
    commands = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "{}" for part in node.values]
            commands += INLINE.findall("".join(map(str, parts)))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            commands += INLINE.findall(node.value)
            commands += [line for line in node.value.splitlines() if line.startswith("python -m stages.")]
    return commands


MODULES = sorted([*(ROOT / "genre").rglob("*.py"), *(ROOT / "stages").glob("*.py")])
COMMANDS = sorted(
    {(page.name, command) for page in PAGES for command in _commands(page)}
    | {(str(path.relative_to(ROOT)), command) for path in MODULES for command in _commands_in_code(path)}
)
assert len(COMMANDS) > 40 and any(source.startswith("genre/") for source, _ in COMMANDS)


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


@pytest.mark.slow
@pytest.mark.parametrize(("page", "command"), COMMANDS, ids=[f"{page}: {command}"[:80] for page, command in COMMANDS])
def test_a_command_can_be_run(page: str, command: str) -> None:
    words = _words(re.sub(r"^genre (?:--project \S+ )?(?=[a-z])", "python -m stages.", command))
    options = [word.split("=")[0] for word in words if re.match(r"--\w", word)]
    if words[0] == "python":
        text = _help(words[2])
        assert [option for option in options if not re.search(rf"{option}\b", text)] == []
    elif words[0] == "make":
        targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
        assert set(words[1:2]) <= targets
    elif words[1:2] in (["repro"], ["status"]):
        assert {word for word in words[2:] if not word.startswith("-") and "{}" not in word} <= _stages()
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    for position, word in enumerate(words):
        if word in ("-S", "--set-param"):
            section, _, key = words[position + 1].split("=")[0].partition(".")
            assert key in settings[section], words[position + 1]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_target_of_a_link_exists(page: Path) -> None:
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


def test_the_settings_named_in_the_docs_exist() -> None:
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    for page in PAGES:
        for section, key in re.findall(r"`(\w+)\.(\w+)(?:: [^`]*)?`", page.read_text()):
            if section in settings:
                assert key in settings[section], f"{page.name}: {section}.{key}"


def test_the_tests_of_the_promises_exist() -> None:
    rows = re.findall(r"^\| (.+) \|$", (ROOT / "SECURITY.md").read_text(), re.MULTILINE)[1:]
    for row in rows:
        path = ""
        for file, test in re.findall(r"`(tests/[\w/]+\.py)?(?:::(test_\w+))?`", row.rsplit(" | ", 1)[1]):
            path = file or path
            assert re.search(rf"^def {test or 'test_'}", (ROOT / path).read_text(), re.MULTILINE), f"{path}::{test}"
        assert path, row
    assert len(rows) > 15
