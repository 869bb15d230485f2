"""Two packages whose rooms import one way, in modules and functions of readable size."""

from __future__ import annotations

import ast
import graphlib
from pathlib import Path

import pytest

from tests.import_graph import ROOT, imports, modules, room

BELOW = {  # the rooms that a room may import from; genre stands for the modules at the top of genre/
    "genre": {"genre"},
    "audio": {"genre"},
    "cli": {"genre", "audio"},
    "demo": {"genre", "audio"},
    "features": {"genre", "audio"},
    "models": {"genre", "audio", "features"},
    "evaluation": {"genre", "audio", "cli", "features", "models"},
    "search": {"genre", "audio", "features", "models"},
    "project": {"genre", "audio", "features", "models", "search"},
    "audit": {"genre", "audio", "features", "models", "evaluation", "search"},
    "web": {"genre", "audio", "cli", "features", "models", "evaluation", "search", "audit", "project"},
}
BELOW["stages"] = set(BELOW)
MAX_MODULE_LINES = 380
MAX_BODY_LINES = 60
MAX_PARAMETERS = 9


@pytest.mark.parametrize("path", modules())
def test_a_module_imports_from_its_room_and_from_those_below_it(path: str) -> None:
    own = room(path)
    others = {module: room(module) for module in imports(path)}
    allowed = BELOW[own] | ({own} if own != "stages" else set())
    assert not {module for module, of in others.items() if of not in allowed}


def test_no_two_modules_import_each_other() -> None:
    graphlib.TopologicalSorter({path: imports(path) for path in modules()}).prepare()  # a CycleError names the circle


@pytest.mark.parametrize("path", modules())
def test_modules_and_functions_have_a_readable_size(path: str) -> None:
    source = (ROOT / path).read_text(encoding="utf-8")
    assert len(source.splitlines()) <= MAX_MODULE_LINES
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = node.args
            names = [a.arg for a in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
            assert len([n for n in names if n not in ("self", "cls")]) <= MAX_PARAMETERS, node.name
            first = node.body[1] if ast.get_docstring(node) and len(node.body) > 1 else node.body[0]
            assert (node.end_lineno or 0) - first.lineno < MAX_BODY_LINES, node.name


def test_only_commands_print() -> None:
    for path in modules():
        if room(path) != "stages" and path != "genre/cli.py":
            calls = (node for node in ast.walk(ast.parse((ROOT / path).read_text())) if isinstance(node, ast.Call))
            assert not [c for c in calls if isinstance(c.func, ast.Name) and c.func.id == "print"], path


def test_the_code_stays_small() -> None:
    def lines(*folders: str) -> int:
        return sum(
            len(p.read_text(encoding="utf-8").splitlines()) for f in folders for p in Path(ROOT, f).rglob("*.py")
        )

    assert lines("stages", "genre") <= 13_000
    assert lines("tests") <= 9_500


def test_the_tree_in_the_readme_is_the_tree() -> None:
    tree = (ROOT / "README.md").read_text(encoding="utf-8").split("## The code", 1)[1].split("```")[1]
    described: dict[str, str] = {}
    folder = ""
    for line in tree.splitlines():
        name, _, purpose = line.strip().partition(" ")
        if name.endswith("/"):
            folder = name if not line.startswith(" ") else folder.split("/")[0] + "/" + name
        elif name.endswith(".py"):
            described[folder + name] = purpose.strip()
    assert sorted(described) == modules()
    assert all(described.values())
