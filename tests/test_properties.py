"""Damaged files are read correctly or refused with an error that names the file."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from genre import params
from genre.audio import manifest
from genre.errors import DatasetError, GenreError, ModelError, ParamsError, VectorError
from genre.features import arrays
from genre.features.settings import Settings
from genre.models import calibration, cards
from genre.models.cards import ModelCard
from genre.models.vote import vote
from genre.paths import Paths
from tests.made import write_params

SMALL = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHARES = st.floats(0, 1, width=32)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
SETTINGS = Settings(22_050, 3.0, 1.0).to_dict()


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """Return `data` truncated, with changed bytes, or with a piece removed or repeated."""
    at, end = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
    match draw(st.integers(0, 3)):
        case 0:
            return data[:at]
        case 1:
            changed = bytearray(data)
            for _ in range(draw(st.integers(1, 8))):
                changed[draw(st.integers(0, len(data) - 1))] = draw(st.integers(0, 255))
            return bytes(changed)
        case 2:
            return data[:at] + data[end:]
    return data[:end] + data[at:]


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


def _project_params(folder: Path) -> str:
    write_params(folder)
    return (folder / "params.yaml").read_text()


@SMALL
@given(data=st.data())
def test_any_text_is_params_or_refused_by_name(tmp_path: Path, data: st.DataObject) -> None:
    text = _project_params(tmp_path).encode()
    (tmp_path / "params.yaml").write_bytes(data.draw(st.binary(max_size=80) | mutations(text)))
    _value_or_none(lambda: params.load(tmp_path / "params.yaml"), ParamsError, "params.yaml")


@SMALL
@given(data=st.data(), value=NESTED)
def test_any_value_of_any_key_is_accepted_or_refused_by_name(tmp_path: Path, data: st.DataObject, value: Any) -> None:
    found = yaml.safe_load(_project_params(tmp_path))
    section = data.draw(st.sampled_from(sorted(found)))
    key = data.draw(st.sampled_from(sorted(found[section])))
    found[section][key] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(found, allow_unicode=False))
    _value_or_none(lambda: params.load(tmp_path / "params.yaml"), ParamsError, f"{section}.{key}")


# Vectors

ARRAY = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)


@SMALL
@given(data=st.data(), protocol=st.integers(3, 5))
def test_a_mutated_pickle_is_an_array_or_refused_by_name(tmp_path: Path, data: st.DataObject, protocol: int) -> None:
    path = tmp_path / "x.pickle"
    path.write_bytes(data.draw(mutations(pickle.dumps(ARRAY, protocol=protocol))))
    found = _value_or_none(lambda: arrays.read_pickle(path), VectorError, "x.pickle")
    assert found is None or (found.dtype == np.float32 and found.nbytes <= path.stat().st_size)


@SMALL
@given(
    array=st_numpy.arrays(np.float32, st_numpy.array_shapes(min_side=0, max_dims=3), elements=FINITE),
    protocol=st.integers(3, 5),
    turned=st.booleans(),
)
def test_any_array_is_read_back(tmp_path: Path, array: npt.NDArray[np.float32], protocol: int, turned: bool) -> None:
    written = array.T if turned else array
    (tmp_path / "x.pickle").write_bytes(pickle.dumps(written, protocol=protocol))
    found = arrays.read_pickle(tmp_path / "x.pickle")
    np.testing.assert_array_equal(found, written)
    assert found.flags.writeable


# The vote


@SMALL
@given(
    rows=st_numpy.arrays(np.float32, st_numpy.array_shapes(min_dims=2, max_dims=2, max_side=6), elements=SHARES),
    data=st.data(),
)
def test_the_vote_does_not_depend_on_the_order_of_chunks_or_genres(rows: npt.NDArray[np.float32], data: Any) -> None:
    probabilities = (rows + 1e-3) / (rows + 1e-3).sum(axis=1, keepdims=True)
    outcome = vote(probabilities)
    assert sum(outcome.counts) == len(probabilities)
    assert 0 <= outcome.confidence <= 1 + 1e-6
    chunks = data.draw(st.permutations(range(len(probabilities))))
    shuffled = vote(probabilities[chunks])
    assert (shuffled.counts, [outcome.vector[i] for i in chunks]) == (outcome.counts, shuffled.vector)
    assert shuffled.confidence == pytest.approx(outcome.confidence)
    genres = data.draw(st.permutations(range(probabilities.shape[1])))
    turned = vote(probabilities[:, genres])
    if len({tuple(column) for column in probabilities.T}) == probabilities.shape[1] and _no_tie(probabilities):
        assert genres[turned.genre] == outcome.genre
    assert turned.confidence == pytest.approx(outcome.confidence) or not _no_tie(probabilities)


def _no_tie(probabilities: npt.NDArray[np.float32]) -> bool:
    """Return whether no chunk and no mean has two most probable genres."""
    columns = np.concatenate([probabilities, probabilities.mean(axis=0, keepdims=True)]).astype(np.float64)
    gaps = np.abs(columns[:, :, None] - columns[:, None, :]) + np.eye(columns.shape[1])
    return bool((gaps > 1e-6).all())


# Model cards and the index of chunks


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Return a project with the cards of a network and of an ensemble."""
    paths = Paths(tmp_path)
    rates = {"genres": 5, "songs": 9, "rates": [{"false_acceptance": 0.05, "threshold": 0.9, "lost": 0.1}]}
    card = ModelCard("mfcc", "conv1d", ["a", "b"], SETTINGS, inputs={"mfcc_coefficients": [65, 20]}, thresholds=rates)
    cards.write(replace(card, onnx_sha256="0" * 64), paths)
    cards.write(ModelCard("ensemble", "ensemble", ["a", "b"], SETTINGS, models=["mfcc"], default="mfcc"), paths)
    return paths


@pytest.mark.parametrize("name", ["mfcc", "ensemble"])
@SMALL
@given(data=st.data())
def test_a_mutated_card_is_read_or_refused_by_name(paths: Paths, name: str, data: st.DataObject) -> None:
    original = paths.card(name).read_bytes()
    paths.card(name).write_bytes(data.draw(mutations(original)))
    _value_or_none(lambda: cards.read(name, paths), ModelError, name)
    paths.card(name).write_bytes(original)


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
        calibration.threshold(card.thresholds, 0.05)
        assert 8_000 <= card.feature_settings.sample_rate <= 192_000
    paths.card(name).write_text(original)


@pytest.mark.parametrize("column", ["chunk", "source"])
@pytest.mark.parametrize(
    "name",
    [
        "../x.wav",
        "/etc/passwd",
        "train/../../x.wav",
        "dataset/../x.wav",
        "",
        ".",
        "train//x.wav",
        "chunks/x.wav",
        "~/x",
    ],
)
def test_an_index_that_leads_out_of_the_project_is_refused(tmp_path: Path, column: str, name: str) -> None:
    row = manifest.Row("train/a/x-000.wav", "x", "a", "train", 0.0, 3.0, "dataset/t/a/x.mp3", "0" * 64)
    manifest.write(tmp_path, [manifest.Row(**{**asdict(row), column: name})])
    with pytest.raises(DatasetError, match=rf"index\.csv is damaged .*the {column} "):
        manifest.read(tmp_path)


@SMALL
@given(data=st.data())
def test_a_mutated_index_is_read_or_refused_by_name(tmp_path: Path, data: st.DataObject) -> None:
    row = manifest.Row("train/a/x-000.wav", "x", "a", "train", 0.0, 3.0, "dataset/t/a/x.mp3", "0" * 64)
    manifest.write(tmp_path, [row, row])
    path = tmp_path / "index.csv"
    path.write_bytes(data.draw(mutations(path.read_bytes())))
    for found in _value_or_none(lambda: manifest.read(tmp_path), DatasetError, "index.csv") or []:
        for name, folders in ((found.chunk, ("train", "test")), (found.source, ("dataset",))):
            assert Path("root", name).resolve().is_relative_to(Path("root").resolve())
            assert Path(name).parts[0] in folders
