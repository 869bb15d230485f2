"""Vectors of songs in Milvus: Milvus Lite (a .db folder), a server or a cluster, with the same code.

The name of a collection consists of the kind of its vectors, a digest of the data set's name and a digest of every
setting that changes a vector, so vectors of different settings are never mixed. The key of a vector is the SHA-256 of
its song and the number of its window: a window that is written again replaces itself.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import SearchError, StoreUnreachableError
from genre.params import Params
from genre.paths import Paths

# Time limits of calls to a server, within which pymilvus repeats a failed call.
CONNECT_S = 10.0
ANSWER_S = 30.0  # to search or count
BUILD_S = 600.0  # to write, index or load a collection
KEEPALIVE_MS = 600_000  # Milvus Lite closes connections with more than one ping in 5 minutes
BATCH = 1000  # vectors written or read at once
DIGEST_LENGTH = 16  # hex digits of the digest of the settings in a collection's name
DATASET_LENGTH = 8  # hex digits of the digest of the data set's name
MADE_BY = "python -m stages.index"
DIGESTS = "digests.json"  # in a .db folder: digest of the files of each complete collection

BUILD_PARAMS: dict[str, dict[str, int]] = {  # of each index type, with their defaults
    "FLAT": {},
    "IVF_FLAT": {"nlist": 128},
    "HNSW": {"M": 16, "efConstruction": 200},
}
SEARCH_PARAMS = {"FLAT": (), "IVF_FLAT": ("nprobe",), "HNSW": ("ef",)}

_FIELDS = ("song_sha256", "song", "genre", "start_s")
_TEXT_BYTES = 1024
_NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EDQUOT)
_LOCK = threading.Lock()
_CONNECTIONS: Counter[str] = Counter()  # of this process, by .db folder

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """A chunk or a shorter window of a song, without its vector."""

    song_sha256: str
    number: int
    song: str  # name, unique in its genre
    genre: str
    start_s: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A window near a query."""

    window: Window
    similarity: float  # cosine, -1 to 1


@contextlib.contextmanager
def connect(params: Params, paths: Paths, *, kind: str, digest: str, dimension: int) -> Iterator[VectorStore]:
    """Connect to the store and yield one collection, which `VectorStore.create` or `VectorStore.open` makes usable.

    `digest` is the hex digest of every setting that changes a vector, and `dimension` the number of its values. A .db
    folder, relative to the project's root, belongs to this process while it is connected.

    Raises SearchError if the address or a parameter is not valid, or the store cannot be opened; StoreUnreachableError
    if another process has the store open, or the server does not answer.
    """
    index = params.index
    uri = os.environ.get("MILVUS_URI") or (index.uri if "://" in index.uri else str(paths.root / index.uri))
    if not re.match(r"https?://", uri) and not uri.endswith(".db"):
        raise SearchError(
            f"the vector store {uri} (index.uri, MILVUS_URI) is neither a .db path nor http(s)://host:port"
        )
    search_params = params.search.index_params
    _check_names("index.build_params", index.build_params, BUILD_PARAMS[index.index_type])
    _check_names("search.index_params", search_params, SEARCH_PARAMS[index.index_type])
    build_params = BUILD_PARAMS[index.index_type] | index.build_params
    if index.index_type == "IVF_FLAT":  # with its own default, Milvus finds 3 to 4 of 10 neighbours
        search_params = {"nprobe": max(1, build_params["nlist"] // 4)} | search_params
    prefix = f"{kind}_{hashlib.sha256(params.dataset.name.encode()).hexdigest()[:DATASET_LENGTH]}_"
    collection = f"{prefix}{digest[:DIGEST_LENGTH]}"
    index_params = {"index_type": index.index_type, "metric_type": "COSINE", "params": build_params}
    with _client(uri) as client:
        yield VectorStore(client, uri, prefix, collection, dimension, index_params, search_params)
    if uri.endswith(".db") and not _digests(uri).get(collection):  # after closing, its files do not change
        files.write_json(Path(uri, DIGESTS), _digests(uri) | {collection: _digest_of_files(uri, collection)})


@dataclass(frozen=True, slots=True)
class VectorStore:
    """A collection of vectors. `connect` makes it."""

    client: Any  # pymilvus.MilvusClient
    uri: str
    prefix: str  # of all collections of this kind and data set
    collection: str
    dimension: int
    index_params: dict[str, Any]  # of building
    search_params: dict[str, int]

    def create(self) -> None:
        """Create the collection if it does not exist.

        Collections of other settings, and a damaged one, are dropped from a .db folder, which belongs to one project,
        but not from a server, where they may belong to another project.
        """
        with _named_errors(self.uri):
            names = self._collections()
            for name in names:
                if self.uri.endswith(".db") and (name != self.collection or not self._is_intact()):
                    self.client.drop_collection(name, timeout=BUILD_S)
            self._clear_digest()
            if self.collection not in self._collections():
                index = self.client.prepare_index_params()
                index.add_index("vector", **self.index_params)
                schema = self._schema()
                self.client.create_collection(
                    self.collection, schema=schema, index_params=index, consistency_level="Strong", timeout=BUILD_S
                )
            self.client.load_collection(self.collection, timeout=BUILD_S)

    def open(self, n_vectors: int | None = None) -> None:
        """Load the collection for searching, and check that it has `n_vectors` vectors (None: any number).

        Raises SearchError if there is no such collection, its files in a .db folder differ from those that were
        written, or it has another number of vectors.
        """
        with _named_errors(self.uri):
            names = self._collections()
            if self.collection not in names:
                others = f"; {names[0]} was made of other songs or with other settings" if names else ""
                raise SearchError(f"{self.uri} has no collection {self.collection}{others}: run `{MADE_BY}`")
            if not self._is_intact():
                raise SearchError(
                    f"the files of {self.collection} in {self.uri} are damaged or incomplete: run `{MADE_BY}`"
                )
            self.client.load_collection(self.collection, timeout=BUILD_S)
            (row,) = self.client.query(
                self.collection, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=ANSWER_S
            )
        if n_vectors is not None and (n_stored := row["count(*)"]) != n_vectors:
            others = ", also those of songs that are not in the data set" if n_stored > n_vectors else ""
            raise SearchError(
                f"the collection {self.collection} in {self.uri} has {n_stored} of {n_vectors} vectors{others}:"
                f" run `{MADE_BY}`"
            )

    def write(self, items: Iterable[tuple[Window, Vectors]]) -> None:
        """Write windows with their vectors [shape=(dimension,)]; windows that exist are replaced."""
        rows = ({**_row(window), "vector": vector} for window, vector in items)
        self._clear_digest()
        with _named_errors(self.uri):
            while batch := list(itertools.islice(rows, BATCH)):
                self.client.upsert(self.collection, batch, timeout=BUILD_S)
            # vectors that are not flushed are searched without the index
            self.client.flush(self.collection, timeout=BUILD_S)

    def remove_songs(self, digests: Iterable[str]) -> None:
        """Remove the windows of songs by SHA-256."""
        self._clear_digest()
        with _named_errors(self.uri):
            self.client.delete(self.collection, filter=f"song_sha256 in {_listed(digests)}", timeout=BUILD_S)

    def songs(self) -> Counter[str]:
        """Return the number of windows of every song, by SHA-256."""
        counts: Counter[str] = Counter()
        with _named_errors(self.uri):
            pages = self.client.query_iterator(
                self.collection, batch_size=BATCH, output_fields=["song_sha256"], timeout=ANSWER_S
            )
            while page := pages.next():
                counts.update(row["song_sha256"] for row in page)
            pages.close()
        return counts

    def synchronize(self, items: Iterable[tuple[Window, Vectors]], n_windows: dict[str, int]) -> None:
        """Make the collection contain exactly these windows, of songs with these numbers of windows by SHA-256."""
        self.create()
        self.remove_songs(sha256 for sha256, n in self.songs().items() if n > n_windows.get(sha256, 0))
        self.write(items)

    def search(self, vectors: Vectors, top_k: int, *, without: Collection[str] = ()) -> list[list[Neighbour]]:
        """Return the `top_k` windows nearest to each vector [shape=(n, dimension)], by decreasing cosine similarity.

        Songs of the SHA-256 in `without` are left out.
        """
        with _named_errors(self.uri):
            results = self.client.search(
                self.collection,
                data=list(vectors),
                anns_field="vector",
                limit=top_k,
                filter=f"song_sha256 not in {_listed(without)}" if without else "",
                output_fields=list(_FIELDS),
                search_params={"metric_type": "COSINE", "params": self.search_params},
                consistency_level="Strong",
                timeout=ANSWER_S,
            )
        return [[_neighbour(hit) for hit in hits] for hits in results]

    def _collections(self) -> list[str]:
        pattern = rf"{re.escape(self.prefix)}[0-9a-f]{{{DIGEST_LENGTH}}}"
        return sorted(name for name in self.client.list_collections(timeout=ANSWER_S) if re.fullmatch(pattern, name))

    def _is_intact(self) -> bool:
        """Return whether the digest of the collection's files is the recorded one; True for a server."""
        if not self.uri.endswith(".db"):
            return True
        return _digests(self.uri).get(self.collection) == _digest_of_files(self.uri, self.collection)

    def _clear_digest(self) -> None:
        """Remove the digest of the collection before it is changed; `connect` stores it when the folder is closed."""
        if self.uri.endswith(".db"):
            files.write_json(Path(self.uri, DIGESTS), _digests(self.uri) | {self.collection: None})

    def _schema(self) -> Any:
        from pymilvus import DataType

        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=80)
        for name, n_bytes in (("song_sha256", 64), ("song", _TEXT_BYTES), ("genre", _TEXT_BYTES)):
            schema.add_field(name, DataType.VARCHAR, max_length=n_bytes)
        schema.add_field("start_s", DataType.DOUBLE)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.dimension)
        return schema


@contextlib.contextmanager
def _client(uri: str) -> Iterator[Any]:
    """Yield a connected pymilvus.MilvusClient; closing the last one of a .db folder ends Milvus Lite's server."""
    from pymilvus import MilvusClient

    for name in ("pymilvus", "milvus_lite", "grpc"):  # they log the errors that they raise, with tracebacks
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # a dedicated connection is closed with its client
    options = {"dedicated": True, "grpc_options": {"grpc.keepalive_time_ms": KEEPALIVE_MS}, "timeout": CONNECT_S}
    if not uri.endswith(".db"):
        with _named_errors(uri):
            client = MilvusClient(uri, token=os.environ.get("MILVUS_TOKEN", ""), **options)
        with contextlib.closing(client):
            yield client
        return
    from milvus_lite.server_manager import server_manager_instance

    folder = str(Path(uri).resolve())
    with _LOCK:
        client = _lite_client(folder, uri, options)
        _CONNECTIONS[folder] += 1
    try:
        yield client
    finally:
        client.close()
        with _LOCK:
            _CONNECTIONS[folder] -= 1
            if not _CONNECTIONS[folder]:
                server_manager_instance.release_server(folder)


def _lite_client(folder: str, uri: str, options: dict[str, Any]) -> Any:
    from pymilvus import MilvusClient
    from pymilvus.exceptions import ConnectionConfigException

    try:
        Path(folder).parent.mkdir(parents=True, exist_ok=True)
        return MilvusClient(folder, **options)
    except ConnectionConfigException as error:  # pymilvus does not say why
        raise _reason(uri) from error
    except OSError as error:
        raise SearchError(f"the vector store {uri} cannot be created: {error.strerror}") from error


def _digests(uri: str) -> dict[str, str | None]:
    """Return the recorded digests of a .db folder by collection; None for one that is being written."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return dict(files.read_json(Path(uri, DIGESTS)))
    return {}


def _digest_of_files(uri: str, collection: str) -> str:
    """Return a digest of the names and contents of the files of a collection in a .db folder."""
    paths = sorted(path for path in Path(uri).rglob("*") if collection in path.parts and path.is_file())
    return files.digest([[str(path.relative_to(uri)), files.sha256(path)] for path in paths])


def _check_names(key: str, given: Iterable[str], allowed: Collection[str]) -> None:
    """Refuse parameters that the index type does not have, which Milvus Lite ignores."""
    for name in given:
        if name not in allowed:
            raise SearchError(f"{key}.{name} is no parameter of this index_type: use {', '.join(allowed) or '{}'}")


def _reason(uri: str) -> SearchError:
    """Return an error with the reason why a Milvus Lite folder cannot be opened."""
    from milvus_lite import DataDirLockedError, MilvusLite

    try:
        MilvusLite(uri).close()
        reason = ""
    except DataDirLockedError:
        return StoreUnreachableError(
            f"the vector store {uri} is in use by another process: stop it, or start a server (`milvus-lite server`)"
            " and set MILVUS_URI"
        )
    except Exception as error:  # milvus_lite documents no common error of a damaged folder
        if isinstance(error, OSError) and error.errno in _NOT_WRITABLE:
            return SearchError(
                f"the vector store {uri} cannot be written ({error.strerror}), which Milvus Lite needs for its lock:"
                " give write permission, or start a server and set MILVUS_URI"
            )
        reason = f" ({error})"
    return SearchError(f"the vector store {uri} is not a Milvus Lite folder{reason}: remove it")


@contextlib.contextmanager
def _named_errors(uri: str) -> Iterator[None]:
    """Turn errors of pymilvus into errors that name the store."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, RpcError) as error:
        reason = getattr(error, "message", "") or str(error)
        if re.search(r"connect|unavailable|deadline|timeout|closed channel", reason, re.IGNORECASE):
            raise StoreUnreachableError(
                f"the vector store {uri} does not answer ({reason}): check that the server runs"
            ) from error
        remedy = f"; if it is damaged, remove it and run `{MADE_BY}`" if uri.endswith(".db") else ""
        raise SearchError(f"the vector store {uri}: {reason}{remedy}") from error


def _row(window: Window) -> dict[str, Any]:
    return {
        "id": f"{window.song_sha256}:{window.number:08d}",
        "song_sha256": window.song_sha256,
        "song": _utf8(window.song),
        "genre": _utf8(window.genre),
        "start_s": float(window.start_s),
    }


def _neighbour(hit: Any) -> Neighbour:
    sha256, song, genre, start_s = (hit["entity"][name] for name in _FIELDS)
    return Neighbour(Window(sha256, int(hit["id"].partition(":")[2]), song, genre, start_s), float(hit["distance"]))


def _listed(digests: Iterable[str]) -> str:
    """Return a list of SHA-256 for a filter expression, which must contain nothing else."""
    listed = sorted(digests)
    for digest in listed:
        if not re.fullmatch(r"[0-9a-f]{64}", digest):
            raise SearchError(f"{digest!r} is not a SHA-256")
    return json.dumps(listed)


def _utf8(text: str) -> str:
    """Return a name with escapes in place of bytes that are not UTF-8."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")
