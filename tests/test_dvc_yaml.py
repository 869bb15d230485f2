"""dvc.yaml says the truth about what each stage depends on."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from genre.params import Params
from tests.import_graph import ROOT, imported_files


def _stages() -> dict[str, tuple[str, dict[str, Any]]]:
    """Return, by stage name, the module it runs and its entry."""
    found = {}
    folders = (ROOT, ROOT / "dataset", ROOT / "compare", ROOT / "identify")
    for path in (folder / "dvc.yaml" for folder in folders):
        for name, stage in yaml.safe_load(path.read_text())["stages"].items():
            words = stage["cmd"].split()
            assert words[:2] == ["python", "-m"]
            found[name] = (words[2], stage)
    return found


STAGES = _stages()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_lists_every_module_that_it_imports_and_no_other(name: str) -> None:
    module, stage = STAGES[name]
    listed = {dep for dep in stage["deps"] if dep.startswith(("stages/", "genre/"))}
    assert listed == imported_files(module)


@pytest.mark.parametrize("name", STAGES)
def test_the_params_of_a_stage_exist(name: str) -> None:
    for key in STAGES[name][1].get("params", []):
        section, _, field = key.partition(".")
        assert section in Params.model_fields
        annotation = Params.model_fields[section].annotation
        assert not field or (annotation is not None and field in annotation.model_fields)
