"""Which modules of this project a module imports, directly or through others, found by reading the sources."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent


def imported_files(module: str) -> set[str]:
    """Return the files that `module` and all it imports are made of, relative to the root, without __init__ files."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        path = _file_of(waiting.pop())
        if path is None or path in found:
            continue
        found.add(path)
        waiting += _imports((ROOT / path).read_text(encoding="utf-8"))
    return {path for path in found if not path.endswith("__init__.py")}


def _imports(source: str) -> Iterator[str]:
    """Yield every dotted name that may be a module, wherever it is imported; imports for type checkers do not count."""
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting += node.orelse
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        else:
            waiting += ast.iter_child_nodes(node)


def _file_of(module: str) -> str | None:
    if module.split(".")[0] not in ("stages", "genre"):
        return None
    base = Path(*module.split("."))
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if (ROOT / path).is_file():
            return path.as_posix()
    return None


if __name__ == "__main__":  # python -m tests.import_graph stages.train: the lines for dvc.yaml
    print("\n".join(f"      - {path}" for path in sorted(imported_files(sys.argv[1]))))  # noqa: T201
