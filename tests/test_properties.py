"""Damaged files are read correctly or refused with an error that names the file."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from genre import params
from genre.audio import manifest
from genre.errors import DatasetError, GenreError, ModelError, ParamsError, VectorError
from genre.features import arrays
from genre.features.transforms import Settings
from genre.models import cards
from genre.paths import Paths
from tests.made import write_params

SMALL = settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SETTINGS = Settings(22_050, 3.0, 1.0)


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """Return `data` with changed bytes, or with a piece removed, replaced or repeated."""
    at, piece = draw(st.integers(0, len(data))), draw(st.binary(max_size=8))
    end = draw(st.just(at + len(piece)) | st.integers(0, len(data)))
    return data[:at] + piece + data[end:]


def _value_or_none(read: Callable[[], Any], kind: type[GenreError], name: str) -> Any:
    """Return the value that is read, or None after an error of that kind that names the file."""
    try:
        return read()
    except kind as error:
        assert name in str(error), error
        return None


# params.yaml

NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@SMALL
@given(data=st.data())
def test_any_text_is_read_as_params_or_refused_by_name(tmp_path: Path, data: st.DataObject) -> None:
    write_params(tmp_path)
    path = tmp_path / "params.yaml"
    path.write_bytes(data.draw(st.binary(max_size=80) | mutations(path.read_bytes())))
    _value_or_none(lambda: params.load(path), ParamsError, "params.yaml")


@SMALL
@given(data=st.data(), value=NESTED)
def test_any_value_of_any_key_is_accepted_or_refused_by_name(tmp_path: Path, data: st.DataObject, value: Any) -> None:
    write_params(tmp_path)
    path = tmp_path / "params.yaml"
    sections = yaml.safe_load(path.read_text())
    section = data.draw(st.sampled_from(sorted(sections)))
    key = data.draw(st.sampled_from(sorted(sections[section])))
    sections[section][key] = value
    path.write_text(yaml.safe_dump(sections, allow_unicode=False))
    _value_or_none(lambda: params.load(path), ParamsError, f"{section}.{key}")


# Vectors

ARRAY = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)


@SMALL
@given(data=st.data(), protocol=st.integers(3, 5))
def test_a_mutated_pickle_is_an_array_or_refused_by_name(tmp_path: Path, data: st.DataObject, protocol: int) -> None:
    path = tmp_path / "x.pickle"
    path.write_bytes(data.draw(mutations(pickle.dumps(ARRAY, protocol=protocol))))
    array = _value_or_none(lambda: arrays.read_pickle(path), VectorError, "x.pickle")
    assert array is None or (array.dtype == np.float32 and array.nbytes <= path.stat().st_size)


# Model cards and the index of chunks


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Return a project with the cards of a network and of an ensemble."""
    paths = Paths(tmp_path)
    card = cards.ModelCard("mfcc", "conv1d", ["a", "b"], SETTINGS, inputs={"mfcc_coefficients": [65, 20]})
    cards.write(replace(card, onnx_sha256="0" * 64), paths)
    cards.write(cards.ModelCard("ensemble", "ensemble", ["a", "b"], SETTINGS, models=["mfcc"], default="mfcc"), paths)
    return paths


@pytest.mark.parametrize("name", ["mfcc", "ensemble"])
@SMALL
@given(data=st.data(), value=NESTED)
def test_any_value_in_a_card_is_accepted_or_refused(paths: Paths, name: str, data: st.DataObject, value: Any) -> None:
    original = paths.card(name).read_text()
    fields = json.loads(original)
    paths.card(name).write_text(json.dumps(fields | {data.draw(st.sampled_from(sorted(fields))): value}))
    card = _value_or_none(lambda: cards.read(name, paths), ModelError, "")
    if card is not None:
        assert all(isinstance(genre, str) for genre in card.genres)
        assert 8_000 <= card.settings.sample_rate <= 192_000
    paths.card(name).write_text(original)


@SMALL
@given(data=st.data())
def test_a_mutated_index_is_read_or_refused_by_name(tmp_path: Path, data: st.DataObject) -> None:
    row = manifest.Row("train/a/x-000.wav", "x", "a", "train", 0.0, 3.0, "dataset/t/a/x.mp3", "0" * 64)
    manifest.write(tmp_path, [row, row])
    path = tmp_path / "index.csv"
    path.write_bytes(data.draw(mutations(path.read_bytes())))
    for changed in _value_or_none(lambda: manifest.read(tmp_path), DatasetError, "index.csv") or []:
        for name, folders in ((changed.chunk, ("train", "test")), (changed.source, ("dataset",))):
            assert Path("root", name).resolve().is_relative_to(Path("root").resolve())
            assert Path(name).parts[0] in folders
