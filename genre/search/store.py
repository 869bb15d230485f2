"""Vectors of songs in Milvus: Milvus Lite (a .db folder), a server or a cluster, with the same code.

The name of a collection consists of the kind of its vectors, a digest of the data set's name and a digest of every
setting that changes a vector, so vectors of different settings are never mixed. The key of a vector is the SHA-256 of
its song and the start of its window: of two with one key, the last is kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

from genre import files
from genre.errors import SearchError
from genre.models.embeddings import Vectors
from genre.params import CommandParams
from genre.paths import Paths
from genre.search.engine import IndexedSong

# Time limits of calls to a server, within which pymilvus repeats a failed call.
CONNECT_S = 10.0
ANSWER_S = 30.0  # to search or count
BUILD_S = 600.0  # to write, index or load a collection
KEEPALIVE_MS = 600_000  # Milvus Lite closes connections with more than one ping in 5 minutes
BATCH = 1000  # vectors written or read at once
DIGEST_LENGTH = 16  # hex digits of the digest of the settings in a collection's name
DATASET_LENGTH = 8  # hex digits of the digest of the data set's name
MADE_BY = "python -m stages.index"

# Parameters of each index type, those of building with their defaults
BUILD_PARAMS = {"FLAT": {}, "IVF_FLAT": {"nlist": 128}, "HNSW": {"M": 16, "efConstruction": 200}}
SEARCH_PARAMS = {"FLAT": (), "IVF_FLAT": ("nprobe",), "HNSW": ("ef",)}

_FIELDS = ("song_sha256", "song", "genre", "start_s")
_TEXT_BYTES = 1024
_LOCK = threading.Lock()
_CONNECTIONS: Counter[str] = Counter()  # of this process, by .db folder or address


@dataclass(frozen=True, slots=True)
class Window:
    """A chunk or a shorter window of a song, without its vector."""

    song: IndexedSong
    start_s: float


@dataclass(frozen=True, slots=True)
class Neighbour(Window):
    """A window near a query."""

    similarity: float  # cosine, -1 to 1


@contextlib.contextmanager
def connect(params: CommandParams, paths: Paths, *, kind: str, digest: str, dimension: int) -> Iterator[VectorStore]:
    """Connect to the store and yield one collection, which `VectorStore.write` or `VectorStore.open` makes usable.

    `digest` is the hex digest of every setting that changes a vector, and `dimension` the number of its values. A .db
    folder, relative to the project's root, belongs to this process while it is connected.

    Raises SearchError if the address or a parameter is not valid, the store cannot be opened, another process has it
    open, or the server does not answer.
    """
    index = params.index
    uri = os.environ.get("MILVUS_URI") or (index.uri if "://" in index.uri else str(paths.root / index.uri))
    if not re.match(r"https?://", uri) and not uri.endswith(".db"):
        raise SearchError(f"the vector store {uri} (index.uri, MILVUS_URI) is no .db path and no http(s)://host:port")
    search_params = params.search.index_params
    for key, given, allowed in (
        ("index.build_params", index.build_params, BUILD_PARAMS[index.index_type]),
        ("search.index_params", search_params, SEARCH_PARAMS[index.index_type]),
    ):
        for name in set(given) - set(allowed):  # Milvus Lite would ignore it
            raise SearchError(f"{key}.{name} is no parameter of this index_type: use {', '.join(allowed) or '{}'}")
    build_params = BUILD_PARAMS[index.index_type] | index.build_params
    if index.index_type == "IVF_FLAT":  # with its own default, Milvus finds 3 to 4 of 10 neighbours
        search_params = {"nprobe": max(1, build_params["nlist"] // 4)} | search_params
    prefix = f"{kind}_{hashlib.sha256(params.dataset.name.encode()).hexdigest()[:DATASET_LENGTH]}_"
    name = f"{prefix}{digest[:DIGEST_LENGTH]}"
    # nested twice: pymilvus sends the inner mapping as "params", the only name that Milvus Lite reads
    index_params = {"index_type": index.index_type, "metric_type": "COSINE", "params": {"params": build_params}}
    with _client(uri) as client:
        collection = VectorStore(client, uri, prefix, name, dimension, index_params, search_params)
        yield collection
    if collection.is_written and uri.endswith(".db"):  # after closing, its files do not change
        files.write_text(_digest_path(uri, name), _digest_of_files(uri, name))


@dataclass(slots=True)
class VectorStore:
    """A collection of vectors. `connect` makes it."""

    client: Any  # pymilvus.MilvusClient
    uri: str
    prefix: str  # of all collections of this kind and data set
    collection: str
    dimension: int
    index_params: dict[str, Any]  # of building
    search_params: dict[str, int]
    is_written: bool = False

    def write(self, windows: Sequence[Window], vectors: Vectors) -> None:
        """Replace the collection by windows with their vectors [shape=(windows, dimension)].

        Collections of other settings are dropped from a .db folder, which belongs to one project, but not from a
        server, where they may belong to another project.
        """
        with _named_errors(self.uri):
            for name in self._collections():
                if name == self.collection or self.uri.endswith(".db"):
                    self.client.drop_collection(name, timeout=BUILD_S)
                    _digest_path(self.uri, name).unlink(missing_ok=True)
            self._create()
            # released meanwhile: in the background, Milvus Lite would write the index that is loaded below
            self.client.release_collection(self.collection, timeout=BUILD_S)
            for first in range(0, len(windows), BATCH):
                rows = map(_row, windows[first : first + BATCH], vectors[first : first + BATCH])
                self.client.upsert(self.collection, list(rows), timeout=BUILD_S)
            # the index is used for vectors that are flushed and then loaded
            self.client.flush(self.collection, timeout=BUILD_S)
            self.client.load_collection(self.collection, timeout=BUILD_S)
        self.is_written = True

    def open(self, n_vectors: int) -> None:
        """Load the collection for searching.

        Raises SearchError if there is no such collection, its files in a .db folder differ from those that were
        written, or the number of its vectors is not `n_vectors`.
        """
        with _named_errors(self.uri):
            names = self._collections()
            if self.collection not in names:
                others = f"; {names[0]} was made of other songs or with other settings" if names else ""
                raise SearchError(f"{self.uri} has no collection {self.collection}{others}: run `{MADE_BY}`")
            path = _digest_path(self.uri, self.collection)
            digest = path.read_bytes() if path.is_file() else b""
            if self.uri.endswith(".db") and digest != _digest_of_files(self.uri, self.collection).encode():
                raise SearchError(f"{self.uri}: files of {self.collection} are damaged or incomplete: run `{MADE_BY}`")
            self.client.load_collection(self.collection, timeout=BUILD_S)
            (row,) = self.client.query(
                self.collection, filter="", output_fields=["count(*)"], consistency_level="Strong", timeout=ANSWER_S
            )
        if (n_stored := row["count(*)"]) != n_vectors:
            others = ", also those of songs that are not in the data set" if n_stored > n_vectors else ""
            fault = f"{self.collection} has {n_stored} of {n_vectors} vectors{others}"
            raise SearchError(f"{self.uri}: {fault}: run `{MADE_BY}`")

    def search(self, vectors: Vectors, top_k: int, *, without: Collection[str] = ()) -> list[list[Neighbour]]:
        """Return the `top_k` windows nearest to each vector [shape=(n, dimension)], by decreasing cosine similarity.

        Songs of the SHA-256 in `without` are left out.
        """
        # a server refuses an ef (of HNSW) below the limit
        parameters = {name: max(value, top_k) if name == "ef" else value for name, value in self.search_params.items()}
        with _named_errors(self.uri):
            results = self.client.search(
                self.collection,
                data=list(vectors),
                anns_field="vector",
                limit=top_k,
                filter=f"song_sha256 not in {json.dumps(sorted(without))}" if without else "",
                output_fields=list(_FIELDS),
                search_params={"metric_type": "COSINE", "params": parameters},
                consistency_level="Strong",
                timeout=ANSWER_S,
            )
        return [[_neighbour(hit) for hit in hits] for hits in results]

    def _collections(self) -> list[str]:
        names: list[str] = self.client.list_collections(timeout=ANSWER_S)
        return sorted(name for name in names if name.startswith(self.prefix))

    def _create(self) -> None:
        from pymilvus import DataType

        schema = self.client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=80)
        for name, n_bytes in (("song_sha256", 64), ("song", _TEXT_BYTES), ("genre", _TEXT_BYTES)):
            schema.add_field(name, DataType.VARCHAR, max_length=n_bytes)
        schema.add_field("start_s", DataType.DOUBLE)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.dimension)
        index = self.client.prepare_index_params()
        index.add_index("vector", **self.index_params)
        self.client.create_collection(
            self.collection, schema=schema, index_params=index, consistency_level="Strong", timeout=BUILD_S
        )


@contextlib.contextmanager
def _client(uri: str) -> Iterator[Any]:
    """Yield a connected pymilvus.MilvusClient; closing the last one of a .db folder ends Milvus Lite's server."""
    address = os.environ.pop("MILVUS_URI", "")  # pymilvus reads it when it is imported, and refuses a .db path
    from pymilvus import MilvusClient

    os.environ |= {"MILVUS_URI": address} if address else {}
    for name in ("pymilvus", "milvus_lite", "grpc"):  # they log the errors that they raise, with tracebacks
        logging.getLogger(name).setLevel(logging.CRITICAL)
    is_folder = uri.endswith(".db")
    target = str(Path(uri).resolve()) if is_folder else uri
    with _LOCK, _named_errors(uri):
        if is_folder and not _CONNECTIONS[target]:
            _check_folder(uri)
        client = MilvusClient(
            target,
            token=os.environ.get("MILVUS_TOKEN", ""),
            timeout=CONNECT_S,
            dedicated=True,  # the connection is closed with its client
            grpc_options={"grpc.keepalive_time_ms": KEEPALIVE_MS},
        )
        _CONNECTIONS[target] += 1
    try:
        yield client
    finally:
        client.close()
        with _LOCK:
            _CONNECTIONS[target] -= 1
            if is_folder and not _CONNECTIONS[target]:
                from milvus_lite import server_manager_instance

                server_manager_instance.release_server(target)


def _check_folder(uri: str) -> None:
    """Create a Milvus Lite folder, or raise a SearchError if it cannot be opened: pymilvus does not say why."""
    from milvus_lite import DataDirLockedError, MilvusLite

    try:
        MilvusLite(uri).close()
    except DataDirLockedError:
        reason = "is in use by another process: stop it, or start a server (`milvus-lite server`) and set MILVUS_URI"
    except OSError as error:
        reason = (
            f"cannot be written ({error.strerror}), which Milvus Lite needs for its lock: give write permission, remove"
            " it if it is not a Milvus Lite folder, or start a server and set MILVUS_URI"
        )
    except Exception as error:  # milvus_lite documents no common error of a damaged folder
        reason = f"is not a Milvus Lite folder ({error}): remove it"
    else:
        return
    raise SearchError(f"the vector store {uri} {reason}")


def _digest_path(uri: str, collection: str) -> Path:
    """Return the file with the digest of a complete collection in a .db folder."""
    return Path(uri, f"{collection}.sha256")


def _digest_of_files(uri: str, collection: str) -> str:
    """Return a digest of the names and contents of the files of a collection in a .db folder."""
    paths = sorted(path for path in Path(uri).rglob("*") if collection in path.parts and path.is_file())
    return files.digest([[str(path.relative_to(uri)), files.sha256(path)] for path in paths])


@contextlib.contextmanager
def _named_errors(uri: str) -> Iterator[None]:
    """Turn errors of pymilvus into errors that name the store."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, RpcError) as error:
        reason = getattr(error, "message", "") or str(error)
        fault = f": {reason}"
        if re.search(r"connect|unavailable|deadline|timeout|closed channel", reason, re.IGNORECASE):
            fault = f" does not answer ({reason}): check that the server runs"
        elif uri.endswith(".db"):
            fault += f"; unless another process uses it, remove it and run `{MADE_BY}`"
        raise SearchError(f"the vector store {uri}{fault}") from error


def _row(window: Window, vector: Vectors) -> dict[str, Any]:
    fields = zip(_FIELDS, (*astuple(window.song), window.start_s), strict=True)
    return {"id": f"{window.song.sha256}:{window.start_s:.3f}", **dict(fields), "vector": vector}


def _neighbour(hit: Any) -> Neighbour:
    *song, start_s = (hit["entity"][name] for name in _FIELDS)
    return Neighbour(IndexedSong(*song), start_s, float(hit["distance"]))
