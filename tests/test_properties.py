"""Whatever stands in a file: what is read is right, or the error is ours and names the file."""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

from genre import files, params
from genre.audio import manifest
from genre.errors import DatasetError, FeatureError, GenreError, ModelError, ParamsError, SearchError, VectorError
from genre.features import arrays, csv
from genre.features.settings import Settings
from genre.models import baselines, cards, ensemble
from genre.models.vote import vote
from genre.search import embedding_manifest, landmark_index, network
from genre.search.embedding_index import Projection
from genre.search.landmark_index import Fingerprint, Index
from tests.conftest import ROOT, write_params

SMALL = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
SHARES = st.floats(0, 1, width=32)
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)
SETTINGS = Settings(22_050, 3.0, 1.0).to_dict()
MAX_MB = 400  # of a process that reads a bomb


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


def _most_memory_mb(code: str, *arguments: object) -> float:
    """Return the most memory that a process with this code took; what it raises is a failure."""
    measured = f"{code}\nprint(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    command = [sys.executable, "-c", measured, *map(str, arguments)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    return int(result.stdout) / 1024


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


@pytest.mark.parametrize("text", ["0,1,2\n1,3,4,1e300,2,5,6\n", "0,1,2,1e300,1,3,4\n2,5,6\n"])
def test_the_number_that_stands_for_a_line_end_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "f.csv").write_text(text)
    with pytest.raises(FeatureError, match=r"f\.csv, line \d: 6 values after the time, not 2"):
        csv.read(tmp_path / "f.csv", columns=2)


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
    _answers_or_names(lambda: params.load(tmp_path / "params.yaml"), ParamsError, "params.yaml")


@SMALL
@given(data=st.data(), value=NESTED)
def test_any_value_of_any_key_is_taken_or_refused_by_its_name(tmp_path: Path, data: st.DataObject, value: Any) -> None:
    found = yaml.safe_load(_project_params(tmp_path))
    section = data.draw(st.sampled_from(sorted(found)))
    key = data.draw(st.sampled_from(sorted(found[section])))
    found[section][key] = value
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(found, allow_unicode=False))
    _answers_or_names(lambda: params.load(tmp_path / "params.yaml"), ParamsError, f"{section}.{key}")


def _laughs(each: str) -> str:
    """Return lines of which each holds nine times what the one before it holds."""
    pairs = zip("abcdefghi", "bcdefghij", strict=True)
    return "".join(f"{name}: &{name} {each.format(', '.join(['*' + before] * 9))}\n" for before, name in pairs)


BOMBS = {
    "deep": "[" * 20_000,
    "deep and closed": "a: " + "[" * 5_000 + "]" * 5_000,
    "laughs": "a: &a [x, x, x]\n" + _laughs("[{}]"),
    "merged laughs": "a: &a {x: 1}\n" + _laughs("{{<<: [{}]}}"),
    "laughs at a known key": "dataset: &a [x, x]\n" + _laughs("[{}]") + "train: *j\n",
    "itself": "dataset: &a [*a]\n",
    "digits": "train: {epochs: " + "9" * 5_000 + "}\n",
    "hexadecimal": "train: {epochs: 0x" + "f" * 6_000 + "}\n",
    "sixties": "train: {epochs: " + ":".join(["59"] * 3_000) + "}\n",
    "month": "train: {epochs: 2001-99-99}\n",
    "tags": "train: !!int x\n",
    "tag of truth": "train: !!bool x\n",
    "tag of time": "train: !!timestamp x\n",
    "empty number": 'train: !!int ""\n',
    "code": "train: !!python/object/apply:os.system [false]\n",
    "infinity": "train: {epochs: .inf}\n",
    "not a number": "split: {test_fraction: .nan}\n",
    "surrogate": 'dataset: {name: "\\ud800"}\n',
    "nul": 'dataset: {name: "\\0"}\n',
    "long": "dataset: {name: " + "x" * 100_000 + "}\n",
}


@pytest.mark.parametrize("text", BOMBS.values(), ids=BOMBS)
def test_a_bomb_in_params_is_refused_at_once_in_a_short_sentence(tmp_path: Path, text: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    began = time.process_time()
    with pytest.raises(ParamsError, match=r"params\.yaml") as caught:
        params.load(tmp_path / "params.yaml")
    assert time.process_time() - began < 5
    assert len(str(caught.value)) < 3_000


def test_a_key_that_stands_twice_is_named(tmp_path: Path) -> None:
    text = _project_params(tmp_path)
    (tmp_path / "params.yaml").write_text(text.replace("  epochs: 2\n", "  epochs: 2\n  epochs: 3\n"))
    with pytest.raises(ParamsError, match="epochs is there twice"):
        params.load(tmp_path / "params.yaml")


def test_an_alias_of_a_value_is_read(tmp_path: Path) -> None:
    text = _project_params(tmp_path)
    changed = re.sub(r"(split:\n(?:.*\n)*?  seed: )\d+", r"\1&seed 7", text, count=1)
    changed = re.sub(r"(train:\n(?:.*\n)*?  seed: )\d+", r"\1*seed", changed, count=1)
    (tmp_path / "params.yaml").write_text(changed)
    assert params.load(tmp_path / "params.yaml").train.seed == 7


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


def _zipped(parts: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return stream.getvalue()


def _npy(shape: str, kind: str = "'<f4'", data: bytes = b"") -> bytes:
    head = f"{{'descr': {kind}, 'fortran_order': False, 'shape': {shape}, }}".encode()
    head += b" " * (64 - (len(head) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(head)) + head + data


@pytest.mark.parametrize("kind", ["projection", "landmarks"])
@SMALL
@given(data=st.data())
def test_mutated_arrays_are_read_or_refused_by_name(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    path, read, error = _npz_files(tmp_path)[kind]
    path.write_bytes(data.draw(mutations(path.read_bytes())))
    _answers_or_names(read, error, path.name)


@pytest.mark.parametrize("kind", ["projection", "landmarks"])
@SMALL
@given(data=st.data())
def test_arrays_of_any_shape_and_kind_are_read_or_refused_by_name(
    tmp_path: Path, kind: str, data: st.DataObject
) -> None:
    path, read, error = _npz_files(tmp_path)[kind]
    with zipfile.ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    stream = io.BytesIO()
    dtypes = st.sampled_from(["f4", "f8", "u4", "i1", "?", "c8", "S3", "M8[s]"])
    shape = data.draw(st_numpy.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=6))
    np.save(stream, np.full(shape, data.draw(st.integers(0, 99))).astype(data.draw(dtypes)))
    parts[data.draw(st.sampled_from(sorted(parts)))] = stream.getvalue()
    path.write_bytes(_zipped(parts))
    _answers_or_names(read, error, path.name)


def _npz_bombs() -> dict[str, bytes]:
    stream = io.BytesIO()
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        archive.open("mean.npy", "w") as member,
    ):
        member.write(_npy("(250000000,)"))
        for _ in range(1_000):
            member.write(b"\0" * 1_000_000)
    names = ("mean", "scale", "axes", "head", "keys", "places", "peak_places", "peak_bins")
    return {
        "a gigabyte of zeros in a megabyte": stream.getvalue(),
        "1 TB": _zipped({f"{name}.npy": _npy("(250000000000,)") for name in names}),
        "objects": _zipped({f"{name}.npy": _npy("(1,)", "'|O'", pickle.dumps([1])) for name in names}),
        "a bare array": _npy("(2,)", data=b"\0" * 8),
        "a pickle": pickle.dumps({"mean": 1}),
        "text": b"mean",
        "another member": _zipped({"mean.txt": b"1"}),
    }


def test_arrays_that_are_bombs_or_objects_are_refused_by_name_without_taking_memory(tmp_path: Path) -> None:
    code = """
import sys
from pathlib import Path
from genre.errors import SearchError
from genre.search.landmark_index import Index
from genre.search.embedding_index import Projection
for path in map(Path, sys.argv[1:]):
    for kind in (Projection, Index):
        try:
            kind.load(path)
            raise SystemExit(f"{path} was read")
        except SearchError as error:
            assert path.name in str(error)
"""
    paths = []
    for name, data in _npz_bombs().items():
        paths.append(tmp_path / f"{name}.npz")
        paths[-1].write_bytes(data)
    assert _most_memory_mb(code, *paths) < MAX_MB


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


def test_a_bomb_in_the_cards_of_baselines_is_refused(tmp_path: Path) -> None:
    files.write_text(baselines.card_path("stats_svm", tmp_path), "[" * 100_000)
    with pytest.raises(ModelError, match="nested too deeply"):
        baselines.read_card("stats_svm", tmp_path)


def test_memory_is_measured() -> None:
    """The bombs above would be seen: a process that takes 600 MB is measured as such."""
    assert _most_memory_mb("x = bytearray(600_000_000)") > MAX_MB
