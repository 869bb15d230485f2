"""Any content of a file is read correctly or refused with an error that names the file."""

from __future__ import annotations

import json
import pickle
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from genre import files
from genre.audio import manifest
from genre.errors import DatasetError, FeatureError, GenreError, ModelError, SearchError, VectorError
from genre.features import arrays, csv
from genre.features.settings import Settings
from genre.models import cards, ensemble
from genre.models.vote import vote
from genre.search import embedding_manifest, landmark_index, network
from genre.search.embedding_index import Projection
from genre.search.landmark_index import Fingerprint, Index

SMALL = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHARES = st.floats(0, 1, width=32)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
SETTINGS = Settings(22_050, 3.0, 1.0).to_dict()


@st.composite
def mutations(draw: st.DrawFn, data: bytes) -> bytes:
    """Return `data` cut short, with bytes changed, or with a piece taken out or doubled."""
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


def _answers_or_names(read: Callable[[], Any], kind: type[GenreError], name: str) -> Any:
    """Return what is read, or None where an error of that kind names the file; anything else is a failure."""
    try:
        return read()
    except kind as error:
        assert name in str(error), error
        return None


# Feature CSV

CELLS = st.sampled_from(
    ["0", "1", "-1.5", "1e-3", "1e300", "1e39", "nan", "", "x", " 2", "1_0", "0x1", "[1]", "{}", '"']
)
TABLES = st.lists(st.lists(CELLS | FINITE.map(repr), min_size=1, max_size=5).map(",".join), max_size=5)


@SMALL
@given(
    content=TABLES.map(lambda lines: "".join(line + "\n" for line in lines).encode()) | st.binary(max_size=60),
    columns=st.none() | st.integers(1, 4),
)
def test_a_feature_file_is_read_as_python_reads_it_or_refused_by_name(
    tmp_path: Path, content: bytes, columns: int | None
) -> None:
    path = tmp_path / "f.csv"
    path.write_bytes(content)
    values = _answers_or_names(lambda: csv.read(path, columns=columns), FeatureError, "f.csv")
    if values is None:
        return
    rows = [[float(cell) for cell in line.split(",")][1:] for line in content.decode().splitlines()]
    np.testing.assert_array_equal(values, np.array(rows, np.float32))
    assert columns in (None, values.shape[1])


@SMALL
@given(values=st_numpy.arrays(np.float32, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=FINITE))
def test_a_feature_that_is_written_is_read_back_and_written_the_same(
    tmp_path: Path, values: npt.NDArray[np.float32]
) -> None:
    first, second = tmp_path / "1.csv", tmp_path / "2.csv"
    csv.write(first, values + np.float32(0), sample_rate=22_050, step=512)
    found = csv.read(first, columns=values.shape[1])
    np.testing.assert_allclose(found, values, rtol=5.1e-6, atol=1e-45)
    csv.write(second, found, sample_rate=22_050, step=512)
    assert second.read_bytes() == first.read_bytes()


NESTED = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


# Vectors

ARRAY = np.random.default_rng(0).standard_normal((4, 3, 2)).astype(np.float32)


@SMALL
@given(data=st.data(), protocol=st.integers(3, 5))
def test_a_mutated_pickle_is_an_array_or_refused_by_name(tmp_path: Path, data: st.DataObject, protocol: int) -> None:
    path = tmp_path / "x.pickle"
    path.write_bytes(data.draw(mutations(pickle.dumps(ARRAY, protocol=protocol))))
    found = _answers_or_names(lambda: arrays.read_pickle(path), VectorError, "x.pickle")
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
    if len({tuple(column) for column in probabilities.T}) == probabilities.shape[1] and _no_draw(probabilities):
        assert genres[turned.genre] == outcome.genre
    assert turned.confidence == pytest.approx(outcome.confidence) or not _no_draw(probabilities)


def _no_draw(probabilities: npt.NDArray[np.float32]) -> bool:
    """Return whether no chunk and no mean has two genres in the first place."""
    columns = np.concatenate([probabilities, probabilities.mean(axis=0, keepdims=True)]).astype(np.float64)
    gaps = np.abs(columns[:, :, None] - columns[:, None, :]) + np.eye(columns.shape[1])
    return bool((gaps > 1e-6).all())


# Cards, manifests and the index of chunks


def _cards(root: Path) -> dict[str, tuple[Path, Callable[[], Any], type[GenreError]]]:
    """Write a card of every kind; return where it is, what reads it and what that may raise."""
    paths = cards.model_files("mfcc", root)
    files.write_bytes(paths.onnx, b"not read here")
    digest, rates = files.sha256(paths.onnx), {"genres": 4, "songs": 9, "rates": [{"far": 0.05, "threshold": 0.9}]}
    inputs, dataset = {"mfcc_coefficients": [65, 20]}, {"name": "t"}
    genres, scores = ["a", "b"], {"loss": 0.1}
    cards.write(
        cards.Card("mfcc", "conv1d", genres, inputs, SETTINGS, dataset, {}, scores, {}, digest, rates),
        root,
    )
    one = ensemble.EnsembleCard("ensemble", ["mfcc"], 1.0, "mfcc", {"mfcc": scores}, genres, SETTINGS, rates, 0.05)
    ensemble.write(one, root)
    net = network.Card(network.FRONT_END, 32, 8, 16, 0.1, {"name": "t"}, {}, {}, digest)
    network.write(b"not read here", net, root)
    path = root / "index.json"
    embedding_manifest.write(
        embedding_manifest.Manifest("statistics", SETTINGS, 8, "0" * 64),
        songs=1,
        windows=1,
        contents="",
        scores={},
        path=path,
    )
    return {
        "card": (paths.card, lambda: cards.read("mfcc", root), ModelError),
        "ensemble": (ensemble.card_path(root), lambda: ensemble.read(root), ModelError),
        "network": (cards.model_files("fingerprint", root).card, lambda: network.Network.load(root), SearchError),
        "manifest": (path, lambda: embedding_manifest.read(path), SearchError),
    }


CARDS = ("card", "ensemble", "network", "manifest")


@pytest.mark.parametrize("kind", CARDS)
@SMALL
@given(data=st.data())
def test_a_mutated_card_is_read_or_refused_by_name(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    path, read, error = _cards(tmp_path)[kind]
    path.write_bytes(data.draw(mutations(path.read_bytes())))
    _answers_or_names(read, error, {"network": "fingerprint", "card": "mfcc"}.get(kind, path.name))


@pytest.mark.parametrize("kind", CARDS)
@SMALL
@given(data=st.data(), value=NESTED)
def test_any_value_in_a_card_is_taken_or_refused(tmp_path: Path, kind: str, data: st.DataObject, value: Any) -> None:
    path, read, error = _cards(tmp_path)[kind]
    found = json.loads(path.read_text())
    found[data.draw(st.sampled_from(sorted(found)))] = value
    path.write_text(json.dumps(found))
    its_card = _answers_or_names(read, error, "")
    if its_card is not None and kind in ("card", "ensemble"):
        assert all(isinstance(genre, str) for genre in its_card.genres)
        ensemble.unknown_threshold(its_card.unknown, tmp_path)
        assert 8_000 <= its_card.feature_settings.sample_rate <= 192_000


@pytest.mark.parametrize("kind", CARDS)
@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "null", "{}", "1" * 5_000, '{"settings": []}'])
def test_json_that_is_no_card_is_refused_by_name(tmp_path: Path, kind: str, text: str) -> None:
    path, read, error = _cards(tmp_path)[kind]
    path.write_text(text)
    with pytest.raises(error, match=re.escape(path.name)):
        read()


def _npz_files(folder: Path) -> dict[str, tuple[Path, Callable[[], Any], type[GenreError]]]:
    rng = np.random.default_rng(0)
    paths = {name: folder / f"{name}.npz" for name in ("projection", "landmarks")}
    ones = np.ones(6, np.float32)
    Projection(ones, ones, rng.standard_normal((6, 3)).astype(np.float32)).save(paths["projection"])
    five = np.arange(5, dtype=np.uint32)
    prints = Fingerprint(five, five, five, ones[:5], 40)
    song = landmark_index.Song("0" * 64, "x", "rock")
    Index.empty().with_songs([(song, prints)]).save(paths["landmarks"])
    return {
        "projection": (paths["projection"], lambda: Projection.load(paths["projection"]), SearchError),
        "landmarks": (paths["landmarks"], lambda: Index.load(paths["landmarks"]), SearchError),
    }


@pytest.mark.parametrize("kind", ["projection", "landmarks"])
@SMALL
@given(data=st.data())
def test_mutated_arrays_are_read_or_refused_by_name(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    path, read, error = _npz_files(tmp_path)[kind]
    path.write_bytes(data.draw(mutations(path.read_bytes())))
    _answers_or_names(read, error, path.name)


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
    for found in _answers_or_names(lambda: manifest.read(tmp_path), DatasetError, "index.csv") or []:
        for name, folders in ((found.chunk, ("train", "test")), (found.source, ("dataset",))):
            assert Path("root", name).resolve().is_relative_to(Path("root").resolve())
            assert Path(name).parts[0] in folders
