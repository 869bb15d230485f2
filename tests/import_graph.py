"""The modules of this project that a module imports, found by reading the sources.

python -m tests.import_graph stages.train      the code that the stage depends on, as lines for dvc.yaml
"""

from __future__ import annotations

import argparse
import ast
import functools
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("stages", "genre")
COMPUTING_ROOMS = ("audio", "demo", "features", "models", "evaluation", "search", "audit")
PRESENTATION = (  # modules of these rooms that change no number
    "genre/audio/sources.py genre/audio/tags.py genre/audit/findings.py genre/audit/review.py"
    " genre/evaluation/plots.py genre/evaluation/report.py"
).split()


def modules() -> list[str]:
    """Return the paths of all modules of stages/ and genre/, relative to the root, without __init__ files."""
    paths = (path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in paths if path.name != "__init__.py")


def room(path: str) -> str:
    """Return the room of a module: stages, cli, project, a folder in genre/, or genre for the others of genre/."""
    parts = path.split("/")
    if path in ("genre/cli.py", "genre/project.py"):
        return Path(path).stem
    return parts[1] if len(parts) == 3 else parts[0]


@functools.cache
def imports(path: str) -> frozenset[str]:
    """Return the modules that a module itself imports, also inside functions but not for type checkers only."""
    names = _imported_names(ast.parse((ROOT / path).read_text(encoding="utf-8")))
    return frozenset(file for name in names if (file := _file_of(name)) is not None) - {path}


def reachable(path: str) -> set[str]:
    """Return a module and all modules that it imports, directly or through modules other than `PRESENTATION`."""
    reached: set[str] = set()
    queue = [path]
    while queue:
        if (path := queue.pop()) not in reached:
            reached.add(path)
            queue += imports(path) if path not in PRESENTATION else ()
    return reached


def computing_modules(stage: str) -> set[str]:
    """Return the modules that change the numbers of a stage (stages/<name>.py), and the data files that they name."""
    reached = {stage} | {path for path in reachable(stage) if room(path) in COMPUTING_ROOMS}.difference(PRESENTATION)
    return reached | {file for path in reached for file in _data_files(path)}


def _data_files(path: str) -> Iterator[str]:
    """Yield the files beside a module, other than modules, whose names it contains."""
    source = (ROOT / path).read_text(encoding="utf-8")
    for file in (ROOT / path).parent.iterdir():
        if file.is_file() and file.suffix != ".py" and f'"{file.name}"' in source:
            yield file.relative_to(ROOT).as_posix()


def _imported_names(tree: ast.AST) -> Iterator[str]:
    """Yield every dotted name that may be a module."""
    queue: list[ast.AST] = [tree]
    while queue:
        node = queue.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            queue += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            queue += ast.iter_child_nodes(node)


def _file_of(module: str) -> str | None:
    path = Path(*module.split(".")).with_suffix(".py")
    return path.as_posix() if module.split(".")[0] in PACKAGES and (ROOT / path).is_file() else None


if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.import_graph", description=__doc__.splitlines()[0])
    parser.add_argument("stage", help="a module, such as stages.train")
    code = computing_modules(parser.parse_args().stage.replace(".", "/") + ".py")
    lines = textwrap.wrap(", ".join(sorted(code, key=lambda path: (not path.startswith("stages/"), path))), 112)
    print("\n".join(f"      {line}" for line in lines) + ",")  # noqa: T201
