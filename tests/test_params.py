"""params.yaml is validated, and what is wrong is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from genre import params
from genre.errors import ParamsError
from tests.conftest import ROOT, write_params


def test_the_file_in_the_project_is_valid() -> None:
    assert params.load(ROOT / "params.yaml").dataset.name == "demo"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("epochs:", "epoks:", "train.epoks"),
        ("epochs: 2", "epochs: many", "train.epochs"),
        ("epochs: 2", "epochs: 0", "train.epochs"),
        ("test_fraction: 0.3", "test_fraction: 1.0", "split.test_fraction"),
        ("name: tiny", "name: ../elsewhere", "dataset.name"),
        ("on_error: skip", "on_error: ignore", "split.on_error"),
        ("sample_rate: 22050", "sample_rate: .nan", "split.sample_rate"),
    ],
)
def test_a_bad_key_or_value_is_named(tmp_path: Path, old: str, new: str, named: str) -> None:
    write_params(tmp_path)
    path = tmp_path / "params.yaml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(ParamsError, match=named):
        params.load(path)


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    write_params(tmp_path, train__epochs=0, train__dropout=7)
    with pytest.raises(ParamsError, match=r"train\.dropout.*train\.epochs"):
        params.load(tmp_path / "params.yaml")


def test_numbers_as_dvc_writes_them_are_numbers(tmp_path: Path) -> None:
    write_params(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_text(path.read_text().replace("learning_rate: 0.002", "learning_rate: 1e-05"))
    assert params.load(path).train.optimizer.learning_rate == 1e-5


@pytest.mark.parametrize("text", ["", "a: [", "- 1", "\x00"])
def test_a_file_that_is_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(ParamsError):
        params.load(tmp_path / "params.yaml")


def test_a_missing_file_says_where_to_go(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="root folder"):
        params.load(tmp_path / "params.yaml")
