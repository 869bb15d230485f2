"""dvc.yaml lists what changes the numbers of each stage, and nothing else."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import yaml

from genre.params import Params
from tests.import_graph import ROOT, computing_modules

FILES = sorted(path for path in ROOT.glob("**/dvc.yaml") if ".venv" not in path.parts)
RUN_TIME_SECTIONS = {"query", "search", "serve", "parallel", "cache"}


def _stages() -> dict[str, dict[str, Any]]:
    """Return the entry of every stage by its name."""
    return {name: stage for path in FILES for name, stage in yaml.safe_load(path.read_text())["stages"].items()}


STAGES = _stages()


@pytest.mark.parametrize("name", STAGES)
def test_a_stage_depends_on_its_script_and_on_every_module_that_computes_and_no_other(name: str) -> None:
    words = STAGES[name]["cmd"].removeprefix("PYTHONHASHSEED=0 ").split()
    assert words[:2] == ["python", "-m"]
    code = {dep for dep in STAGES[name]["deps"] if dep.startswith(("stages/", "genre/"))}
    assert code == computing_modules(words[2].replace(".", "/") + ".py")


@pytest.mark.parametrize("name", STAGES)
def test_the_params_of_a_stage_exist_and_none_is_read_at_run_time_only(name: str) -> None:
    for key in STAGES[name].get("params", []):
        section, *fields = key.split(".")
        assert section not in RUN_TIME_SECTIONS
        model: Any = Params
        for field in (section, *fields):
            assert field in model.model_fields, key
            model = model.model_fields[field].annotation


def test_another_engine_with_the_same_digits_re_runs_no_later_stage() -> None:
    record = "features/extraction.json"  # names the engine and its versions
    assert record in STAGES["extract"]["outs"]
    for name, stage in STAGES.items():
        assert not [dep for dep in stage["deps"] if f"{record}/".startswith(f"{dep}/")], name
        assert name == "extract" or not [key for key in stage.get("params", []) if key.startswith("extract")], name


def test_dvc_reads_every_file() -> None:
    command = [sys.executable, "-m", "dvc", "stage", "list", "--all", "--name-only"]
    listed = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split()
    assert {name.rpartition(":")[2].partition("@")[0] for name in listed} == set(STAGES)


def test_the_dvc_files_stay_short() -> None:
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 170
    assert sum(len(path.read_text().splitlines()) for path in FILES) <= 260
