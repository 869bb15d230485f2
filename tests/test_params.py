"""params.yaml: validation, renamed keys, the ranges in its comments, and its layout."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from genre import params
from genre.errors import ParamsError
from tests.made import ROOT, write_params


def test_the_file_in_the_project_is_valid() -> None:
    settings = params.load(ROOT / "params.yaml")
    assert settings.dataset.name == "demo"
    assert settings == params.load(params.INSTALLED)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"train__epoks": 2}, r"the key train\.epoks is unknown"),
        ({"train__optimizer": {}}, r"the key train\.optimizer\.learning_rate is missing"),
        ({"train__epochs": "many"}, r"train\.epochs is 'many'"),
        ({"train__epochs": 0, "train__dropout": 7}, r"train\.dropout.*train\.epochs"),
        ({"split__test_fraction": 1.0}, r"split\.test_fraction"),
        *(({"dataset__name": name}, r"dataset\.name") for name in ("..", "/etc", "../a", "", "x\ny")),
        ({"split__on_error": "ignore"}, r"split\.on_error"),
        ({"split__sample_rate": math.nan}, r"split\.sample_rate"),
    ],
)
def test_every_bad_key_or_value_and_a_missing_file_are_named(
    tmp_path: Path, changes: dict[str, Any], named: str
) -> None:
    path = tmp_path / "params.yaml"
    with pytest.raises(ParamsError, match="is missing: run this in the project's folder"):
        params.load(path)
    write_params(tmp_path, **changes)
    with pytest.raises(ParamsError, match=named):
        params.load(path)


def test_numbers_as_dvc_writes_them_are_numbers(tmp_path: Path) -> None:
    write_params(tmp_path, train__optimizer={"learning_rate": "1e-05", "weight_decay": 0.0})
    assert "learning_rate: 1e-05" in (tmp_path / "params.yaml").read_text()
    assert params.load(tmp_path / "params.yaml").train.optimizer.learning_rate == 1e-5


def test_dvc_changes_the_line_of_one_key_only() -> None:
    """`dvc exp run -S` writes params.yaml with ruamel.yaml: the file is in the layout that it writes."""
    text = (ROOT / "params.yaml").read_text()
    yaml = YAML()
    yaml.default_flow_style = False
    values = yaml.load(text)
    values["train"]["optimizer"]["learning_rate"] = 0.001
    stream = io.StringIO()
    yaml.dump(values, stream)
    changed = [new for old, new in zip(text.splitlines(), stream.getvalue().splitlines(), strict=True) if old != new]
    assert len(changed) == 1
    assert changed[0].startswith("    learning_rate: 0.001")


def _ranges(schema: dict[str, Any], definitions: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield each key of params.py that has bounds, with its range in the words of params.yaml."""
    for key, value in schema["properties"].items():
        if "$ref" in value:
            yield from _ranges(definitions[value["$ref"].split("/")[-1]], definitions, f"{prefix}{key}.")
            continue
        value = next((option for option in value.get("anyOf", []) if "type" in option), value)
        value = value.get("items", value)
        low = f"{value['minimum']:.12g}" if "minimum" in value else ""
        low = f"above {value['exclusiveMinimum']:.12g}" if "exclusiveMinimum" in value else low
        high = f" to {value['maximum']:.12g}" if "maximum" in value else ""
        high = f" to below {value['exclusiveMaximum']:.12g}" if "exclusiveMaximum" in value else high
        if low and key != "seed":
            yield prefix + key, low + (high or ("" if "above" in low else " or more"))


def _comments() -> dict[str, str]:
    """Return the comment of each key of params.yaml."""
    comments: dict[str, str] = {}
    path: list[str] = []
    for line in (ROOT / "params.yaml").read_text().splitlines():
        if match := re.match(r"( *)(\w+):[^#]*(.*)", line):
            path = [*path[: len(match[1]) // 2], match[2]]
            comments[".".join(path)] = match[3].lower()
    return comments


def test_the_comments_state_the_ranges_that_are_checked() -> None:
    schema = params.Params.model_json_schema()
    comments = _comments()
    ranges = dict(_ranges(schema, schema["$defs"]))
    assert len(ranges) > 30
    assert {key: text for key, text in ranges.items() if not re.search(rf"\b{text}\b", comments[key])} == {}
