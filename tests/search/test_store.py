"""The vector store returns what was written, keeps settings and data sets apart, and names its errors."""

from __future__ import annotations

import dataclasses
import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from milvus_lite import MilvusLite

from genre.errors import SearchError
from genre.search import embedding_index, store
from genre.search.engine import IndexedSong
from tests.made import ROOT, python, start
from tests.search.conftest import DIMENSION, SHA, connected, windows_of

pytestmark = pytest.mark.slow


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return str(tmp_path / "songs.db")


def test_a_search_returns_the_window_of_the_nearest_vector(uri: str) -> None:
    windows, vectors = windows_of(1)
    windows[2] = dataclasses.replace(windows[2], song=IndexedSong(SHA[1], "café", "ro\"ck'"))
    with connected(uri) as collection:
        collection.write(windows, vectors)
        best = collection.search(vectors[2:], 2)[0][0]
        (other,) = collection.search(vectors[2:], 2, without=[SHA[1]])
    assert (best.song, best.start_s) == (IndexedSong(SHA[1], "café", "ro\"ck'"), 60.0)
    assert best.similarity == pytest.approx(1.0, abs=1e-5)
    assert other == []


def test_writing_adds_replaces_and_removes_windows(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store, "BATCH", 4)
    with connected(uri) as collection:
        collection.write(*windows_of(0, 1, 2, n=5))
        collection.write(*windows_of(1, 3, n=2))
    with connected(uri) as collection:
        collection.open(4)
        neighbours = collection.search(windows_of(3)[1][:1], 100)[0]
    assert {(hit.song.sha256, hit.start_s) for hit in neighbours} == {
        (SHA[song], start_s) for song in (1, 3) for start_s in (0.0, 30.0)
    }


def test_two_connections_of_one_process_share_the_store_and_the_last_one_leaves_nothing(uri: str) -> None:
    threads = set(threading.enumerate())
    with connected(uri) as first:
        first.write(*windows_of(1, 1))  # written twice, they replace themselves
    with connected(uri) as second, connected(uri) as third:
        second.open(3)
        third.open(3)
    MilvusLite(uri).close()  # raises DataDirLockedError while a server has the folder
    gc.collect()
    for thread in set(threading.enumerate()) - threads:
        thread.join(10)
        assert not thread.is_alive(), thread


def test_a_byte_that_changed_in_any_file_and_an_interrupted_writing_are_found(uri: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), connected(uri) as collection:
        collection.write(*windows_of(1, 2))
        raise KeyboardInterrupt
    with pytest.raises(SearchError, match="damaged or incomplete: run"), connected(uri) as collection:
        collection.open(6)
    with connected(uri) as collection:
        collection.write(*windows_of(1, 2))
    paths = [path for path in Path(uri).rglob("*") if path.is_file() and path.stat().st_size]
    assert {path.suffix for path in paths} >= {".idx", ".parquet", ".json"}
    for n, path in enumerate(paths):
        damaged = Path(shutil.copytree(uri, tmp_path / f"{n}.db"))  # Milvus Lite removes files when it opens one
        data = path.read_bytes()
        (damaged / path.relative_to(uri)).write_bytes(data[:-9] + bytes([data[-9] ^ 1]) + data[-8:])
        with pytest.raises(SearchError, match=rf"{n}\.db"), connected(str(damaged)) as collection:
            collection.open(6)


def test_a_read_only_folder_is_named(uri: str) -> None:
    with connected(uri) as collection:
        collection.write(*windows_of(1))
    code = f"from tests.search.conftest import connected\nwith connected({uri!r}): pass"
    mount = f"mount --bind {uri} {uri} && mount -o remount,bind,ro {uri}"
    namespace = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if subprocess.run([*namespace, mount], capture_output=True).returncode:
        pytest.skip("mount namespaces are not allowed here")
    command = [*namespace, f'{mount} && exec "$@"', "sh", sys.executable, "-c", code]
    error = subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stderr.splitlines()[-1]
    assert f"{uri} cannot be written (Read-only file system)" in error


def test_vectors_of_other_settings_are_refused_and_dropped_by_the_next_index(uri: str) -> None:
    with connected(uri) as collection:
        collection.write(*windows_of(1))
    with connected(uri, dataset="jazz") as collection:
        collection.write(*windows_of(2))
    with connected(uri, digest="f" * 64) as collection:
        with pytest.raises(SearchError, match=r"of other songs or with other settings: run `python -m stages\.index`"):
            collection.open(3)
        collection.write(*windows_of(1))
    with connected(uri) as collection, pytest.raises(SearchError, match="other settings"):
        collection.open(3)
    with connected(uri, dataset="jazz") as collection:  # other data sets keep their vectors
        collection.open(3)
        with pytest.raises(SearchError, match=r"3 of 2 vectors, also those of songs that are not in the data set: run"):
            collection.open(2)


@pytest.mark.parametrize(
    ("changes", "least", "most"),
    [
        ({"index_type": "FLAT"}, 1.0, 1.0),
        ({"index_type": "IVF_FLAT", "build_params": {"nlist": 16}, "index_params": {"nprobe": 16}}, 1.0, 1.0),
        ({"index_type": "IVF_FLAT", "build_params": {"nlist": 16}, "index_params": {"nprobe": 1}}, 0.3, 0.9),
        ({"index_type": "HNSW", "build_params": {"M": 2, "efConstruction": 2}, "index_params": {"ef": 1}}, 0.0, 0.9),
        ({"index_type": "IVF_FLAT"}, 0.8, 1.0),
        ({"index_type": "HNSW", "build_params": {"M": 8, "efConstruction": 64}, "index_params": {"ef": 64}}, 0.9, 1.0),
    ],
)
def test_every_index_type_finds_a_vector_again_and_its_recall_is_measured(
    changes: dict[str, Any], least: float, most: float, uri: str
) -> None:
    windows, vectors = windows_of(1, n=2000)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    with connected(uri, **changes) as collection:
        collection.write(windows, vectors)
        neighbours = collection.search(vectors[:20], 1)
        recall = embedding_index.recall(collection, vectors)
    assert sum(nearest[0].start_s == 30.0 * k for k, nearest in enumerate(neighbours)) >= (19 if least >= 0.8 else 0)
    assert recall is not None
    assert least <= recall <= most


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"index_type": "FLAT", "build_params": {"nlist": 4}}, r"index\.build_params\.nlist is no parameter"),
        ({"index_type": "HNSW", "index_params": {"nprobe": 4}}, r"search\.index_params\.nprobe is no parameter"),
        ({"uri": "songs.sqlite"}, "is no .db path"),
        ({}, "is not a Milvus Lite folder"),
    ],
)
def test_settings_that_milvus_ignores_and_a_file_as_folder_are_refused(
    changes: dict[str, Any], message: str, uri: str
) -> None:
    Path(uri).write_text("something else")
    with pytest.raises(SearchError, match=message), connected(**{"uri": uri, **changes}):
        pass


def test_the_store_of_the_environment_is_used_and_refused_to_another_process(
    uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MILVUS_URI", uri)
    with connected("https://unused:1") as collection:
        assert collection.uri == uri
        assert "in use by another process" in _write_in_other_process(uri, status=1)


def test_two_processes_share_a_server_and_name_it_when_it_hangs_or_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = str(probe.getsockname()[1])  # free
    address = ["--host", "127.0.0.1", "--port", port, "--data-dir", str(tmp_path / "served")]
    server = start(tmp_path, sys.executable, "-m", "milvus_lite", "server", *address)
    uri = f"http://127.0.0.1:{port}"
    try:
        grpc.channel_ready_future(grpc.insecure_channel(f"127.0.0.1:{port}")).result(60)
        with connected(uri) as collection:
            collection.write(*windows_of(1))
            with connected(uri, digest="f" * 64) as other:  # another project with the same data set
                other.write(*windows_of(2))
            collection.open(3)
            _write_in_other_process(uri)
            assert collection.search(windows_of(2)[1][:1], 1)[0][0].song.song == "song 2"
            monkeypatch.setattr(store, "ANSWER_S", 1.0)
            server.send_signal(signal.SIGSTOP)
            os.waitpid(server.pid, os.WUNTRACED)  # until it has stopped
            with pytest.raises(SearchError, match="does not answer"):
                collection.search(np.ones((1, DIMENSION), np.float32), 1)
            server.send_signal(signal.SIGCONT)
            server.terminate()
            server.wait(20)
            with pytest.raises(SearchError):
                collection.search(np.ones((1, DIMENSION), np.float32), 1)
    finally:
        server.kill()
        server.wait()


def _write_in_other_process(uri: str, status: int = 0) -> str:
    """Write windows of song 2; return what is printed to stderr."""
    code = f"""from tests.search.conftest import connected, windows_of
with connected({uri!r}) as collection:
    collection.write(*windows_of(2))"""
    return python(ROOT, "-c", code, status=status).stderr
