"""The vector store: what is written is found, nothing is mixed, and every failure is a sentence."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from genre.errors import SearchError, StoreUnreachableError
from genre.search.settings import IndexSettings
from genre.search.store import VectorStore, Window
from tests.conftest import ROOT

DIMENSION = 8
PRINT = "0123456789abcdef" * 4
SHA = [f"{i:064x}" for i in range(6)]

Item = tuple[Window, npt.NDArray[np.float32]]


@pytest.fixture(autouse=True)
def _no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MILVUS_URI", raising=False)
    monkeypatch.delenv("MILVUS_TOKEN", raising=False)


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "songs.db")


@contextlib.contextmanager
def _store(uri: str, fingerprint: str = PRINT, dimension: int = DIMENSION, **settings: object) -> Iterator[VectorStore]:
    chosen = IndexSettings(uri=uri, **settings)  # type: ignore[arg-type]
    with VectorStore(chosen, kind="chunks", fingerprint=fingerprint, dimension=dimension) as store:
        yield store


def _items(song: int, n_windows: int = 3) -> list[Item]:
    rng = np.random.default_rng(song)
    windows = [Window(SHA[song], k, f"song {song}", "rock", 30.0 * k) for k in range(n_windows)]
    return [(window, rng.standard_normal(DIMENSION).astype(np.float32)) for window in windows]


def test_a_vector_is_found_with_all_that_is_known_of_it(uri: str) -> None:
    items = _items(1)
    with _store(uri) as store:
        store.create()
        assert store.write(items) == 3
        best = store.search(np.stack([items[2][1]]), 2)[0][0]
    assert best.window == items[2][0]
    assert best.similarity == pytest.approx(1.0, abs=1e-5)


def test_writing_a_song_again_changes_nothing(uri: str) -> None:
    with _store(uri) as store:
        store.create()
        for _ in range(2):
            store.replace_song(SHA[1], _items(1))
        assert store.songs() == {SHA[1]: 3}


def test_a_song_with_fewer_windows_loses_the_rest_and_others_lose_none(uri: str) -> None:
    with _store(uri) as store:
        store.create()
        store.replace_song(SHA[1], _items(1, 5))
        store.replace_song(SHA[2], _items(2, 5))
        store.replace_song(SHA[1], _items(1, 2))
        assert store.songs() == {SHA[1]: 2, SHA[2]: 5}
        store.replace_song(SHA[2], [])
        assert store.songs() == {SHA[1]: 2}


def test_songs_can_be_removed(uri: str) -> None:
    with _store(uri) as store:
        store.create()
        store.write([item for song in range(4) for item in _items(song)])
        store.remove_songs([SHA[0], SHA[3], SHA[5]])
        assert set(store.songs()) == {SHA[1], SHA[2]}


def test_more_songs_than_one_page_are_all_listed(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("genre.search.store.BATCH", 4)
    with _store(uri) as store:
        store.create()
        store.write([item for song in range(6) for item in _items(song)])
        assert store.songs() == dict.fromkeys(SHA, 3)


def test_songs_that_do_not_count_are_not_found(uri: str) -> None:
    with _store(uri) as store:
        store.create()
        store.write([item for song in range(4) for item in _items(song)])
        found = store.search(np.stack([_items(1)[0][1]]), 12, without=[SHA[1], SHA[2]])[0]
    assert {neighbour.window.song_sha256 for neighbour in found} == {SHA[0], SHA[3]}


def test_the_store_outlives_its_process_of_writing(uri: str) -> None:
    with _store(uri) as store:
        store.create()
        store.write(_items(1))
    with _store(uri) as store:
        store.open()
        assert len(store.search(np.stack([_items(1)[0][1]]), 5)[0]) == 3


def test_two_stores_of_one_process_share_the_file(uri: str) -> None:
    with _store(uri) as first:
        first.create()
        first.write(_items(1))
        with _store(uri) as second:
            second.open()
            assert second.songs() == {SHA[1]: 3}
        assert first.songs() == {SHA[1]: 3}


def test_vectors_of_other_settings_are_refused_and_replaced_on_the_next_build(uri: str) -> None:
    with _store(uri) as store:
        store.create()
    with _store(uri, fingerprint="f" * 64) as store:
        with pytest.raises(SearchError, match="other settings"):
            store.open()
        store.create()
    with _store(uri) as store, pytest.raises(SearchError, match="other settings"):
        store.open()


def test_data_sets_share_a_file_and_keep_each_to_its_own(uri: str) -> None:
    with _store(uri, data_set="jazz") as store:
        store.create()
        store.write(_items(1))
    with _store(uri, data_set="rock", fingerprint="f" * 64) as store:
        with pytest.raises(SearchError, match="there are no chunks vectors"):
            store.open()
        store.create()
        store.write(_items(2))
    with _store(uri, data_set="jazz") as store:
        store.open(3)
        assert store.songs() == {SHA[1]: 3}


def test_a_collection_with_fewer_vectors_than_were_written_is_refused(uri: str) -> None:
    with _store(uri) as store:
        store.create()
        store.write(_items(1))
        store.write(_items(1))  # again: no more than before
        store.open(3)
        store.remove_songs([SHA[1]])
        with pytest.raises(SearchError, match=r"has 0 of 3 vectors: run `python -m stages\.index`"):
            store.open(3)


def test_an_empty_collection_says_so_whatever_does_not_count(uri: str) -> None:
    query = np.ones((1, DIMENSION), np.float32)
    with _store(uri) as store:
        store.create()
        with pytest.raises(SearchError, match="empty"):
            store.search(query, 3, without=[SHA[2]])
        store.write(_items(1))
        assert store.search(query, 3, without=[SHA[1]]) == [[]]


def test_an_index_that_was_never_built_says_what_builds_it(uri: str) -> None:
    with _store(uri) as store, pytest.raises(SearchError, match="python -m"):
        store.open()


def test_an_empty_collection_says_so(uri: str) -> None:
    with _store(uri) as store:
        store.create()
        assert store.songs() == {}
        with pytest.raises(SearchError, match="empty"):
            store.search(np.ones((1, DIMENSION), np.float32), 3)


@pytest.mark.parametrize("shape", [(1, 7), (1, 9), (DIMENSION,)])
def test_a_wrong_dimension_is_refused_when_searching(shape: tuple[int, ...], uri: str) -> None:
    with _store(uri) as store:
        store.create()
        with pytest.raises(SearchError, match="8 dimensions"):
            store.search(np.ones(shape, np.float32), 3)


def test_a_wrong_dimension_is_refused_when_writing_and_when_opening(uri: str) -> None:
    with _store(uri) as store:
        store.create()
        with pytest.raises(SearchError, match="8 dimensions"):
            store.write([(_items(1)[0][0], np.ones(7, np.float32))])
        with pytest.raises(SearchError, match="not finite"):
            store.write([(_items(1)[0][0], np.full(DIMENSION, np.nan, np.float32))])
    with _store(uri, dimension=9) as store, pytest.raises(SearchError, match="have 8 dimensions, not 9"):
        store.open()


@pytest.mark.parametrize(
    ("index_type", "build", "search"),
    [
        ("FLAT", {}, {}),
        ("IVF_FLAT", {"nlist": 16}, {"nprobe": 16}),
        ("IVF_FLAT", {}, {}),
        ("HNSW", {"M": 8, "efConstruction": 64}, {"ef": 64}),
    ],
)
def test_every_index_type_finds_a_vector_again(
    index_type: str, build: dict[str, int], search: dict[str, int], uri: str
) -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((2000, DIMENSION)).astype(np.float32)
    with _store(uri, index_type=index_type, build=build, search=search) as store:
        store.create()
        store.write((Window(SHA[1], k, "song", "rock", float(k)), vector) for k, vector in enumerate(vectors))
        found = store.search(vectors[:20], 1)
    assert sum(hits[0].window.number == k for k, hits in enumerate(found)) >= 19


@pytest.mark.parametrize(
    ("settings", "named"),
    [
        ({"index_type": "DISKANN"}, "DISKANN is not known"),
        ({"index_type": "hnsw"}, "hnsw is not known"),
        ({"index_type": "FLAT", "build": {"nlist": 4}}, "index.build has nlist"),
        ({"index_type": "HNSW", "search": {"nprobe": 4}}, "index.search has nprobe"),
        ({"index_type": "IVF_FLAT", "search": {"nprobe": 0}}, "1 or more"),
        ({"uri": "songs.sqlite"}, "neither"),
    ],
)
def test_settings_that_milvus_would_swallow_are_refused(settings: dict[str, object], named: str, uri: str) -> None:
    with pytest.raises(SearchError, match=named), _store(**{"uri": uri, **settings}):  # type: ignore[arg-type]
        pass


def test_the_environment_overrides_the_address(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MILVUS_URI", uri)
    with _store("https://never.asked:1") as store:
        assert store.uri == uri


def test_what_is_no_milvus_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "songs.db").write_text("something else")
    with pytest.raises(SearchError, match="cannot be opened"), _store(str(tmp_path / "songs.db")):
        pass


def test_names_that_are_not_utf8_are_kept_as_escapes(uri: str) -> None:
    vector = np.ones(DIMENSION, np.float32)
    with _store(uri) as store:
        store.create()
        store.write([(Window(SHA[1], 0, "caf\udce9", "ro\"ck'", 0.0), vector)])
        window = store.search(vector[None], 1)[0][0].window
    assert (window.song, window.genre) == ("caf\\udce9", "ro\"ck'")


def test_only_digests_get_into_a_filter(uri: str) -> None:
    with _store(uri) as store:
        store.create()
        with pytest.raises(SearchError, match="not a SHA-256"):
            store.remove_songs(['"] or id != ""'])


def test_a_file_that_another_process_has_open_is_told(uri: str) -> None:
    with _store(uri) as store:
        store.create()
        result = _in_other_process(uri)
    assert "in use by another process" in result.stderr
    assert _in_other_process(uri).returncode == 0


def test_a_server_that_is_down_is_told() -> None:
    began = time.monotonic()
    with pytest.raises(StoreUnreachableError, match="does not answer"), _store(f"http://127.0.0.1:{_free_port()}"):
        pass
    assert time.monotonic() - began < 20


def test_two_processes_share_a_server_and_are_told_when_it_goes(tmp_path: Path) -> None:
    port = _free_port()
    command = [sys.executable, "-m", "milvus_lite", "server", "--host", "127.0.0.1", "--port", str(port)]
    server = subprocess.Popen(
        [*command, "--data-dir", str(tmp_path / "served")], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    uri = f"http://127.0.0.1:{port}"
    try:
        _wait_for(port)
        with _store(uri) as store:
            store.create()
            store.write(_items(1))
            with _store(uri, fingerprint="f" * 64) as other:  # another project of the same name
                other.create()
                other.write(_items(3))
            store.open(3)
            result = _in_other_process(uri, "store.write(_items(2)); print(len(store.songs()))")
            assert (result.returncode, result.stdout.strip()) == (0, "2"), result.stderr
            assert store.songs() == {SHA[1]: 3, SHA[2]: 3}
            server.terminate()
            server.wait(20)
            with pytest.raises(SearchError):
                store.search(np.ones((1, DIMENSION), np.float32), 1)
    finally:
        server.kill()
        server.wait()


def _in_other_process(uri: str, work: str = "pass") -> subprocess.CompletedProcess[str]:
    code = f"""from tests.search.test_store import _items, _store
with _store({uri!r}) as store:
    store.create()
    {work}"""
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, timeout=60
    )


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_for(port: int) -> None:
    for _ in range(300):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.1)
    raise TimeoutError("the Milvus Lite server did not start")
