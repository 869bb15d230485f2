"""The vector store: embeddings of windows of songs in Milvus, from an embedded file to a cluster with the same code.

A collection's name has a digest of the data set's name, and ends in the fingerprint of the settings that made its
vectors: vectors made otherwise are never mixed with them or searched by them. Each vector's key is its song's SHA-256
and the number of its window: writing a song again replaces its vectors and no others.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
import os
import re
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre.errors import SearchError, StoreUnreachableError
from genre.search.settings import INDEX_TYPES, IndexSettings

TIMEOUT_S = 10.0  # for a server to answer
BATCH = 1000  # vectors written or read at once
NAME_LENGTH = 16  # hex digits of the fingerprint in a collection's name
DATA_SET_LENGTH = 8  # and of the data set's digest before it

_FIELDS = ("song_sha256", "song", "genre", "start_s")
_TEXT_BYTES = 1024
_open_files: Counter[str] = Counter()  # stores of this process by the Milvus Lite file they share
_lock = threading.Lock()

log = logging.getLogger(__name__)

Vectors = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Window:
    """A window of a song, without its vector."""

    song_sha256: str
    number: int
    song: str  # name, unique in its genre
    genre: str
    start_s: float


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A window that a search found."""

    window: Window
    similarity: float  # cosine, -1 to 1


def address(uri: str) -> tuple[str, str]:
    """Return where the store is and the token for it: MILVUS_URI and MILVUS_TOKEN override what is asked for.

    Raises
    ------
    SearchError
        If it is neither the path of a .db file nor an http(s) address.
    """
    found = os.environ.get("MILVUS_URI") or uri
    if not re.match(r"https?://", found) and not found.endswith(".db"):
        raise SearchError(
            f"the vector store {found} (index.uri, MILVUS_URI) is neither a .db path nor http(s)://host:port"
        )
    return found, os.environ.get("MILVUS_TOKEN", "")


class VectorStore:
    """The vectors of one kind, made with one set of settings. A context manager."""

    def __init__(
        self,
        settings: IndexSettings,
        *,
        kind: str,
        fingerprint: str,
        dimension: int,
        made_by: str = "python -m stages.index",
    ) -> None:
        """Connect.

        Parameters
        ----------
        settings : IndexSettings
            Address of the store, type and parameters of its index, name of the data set.
        kind : str
            What the vectors are of: the first part of the collection's name.
        fingerprint : str
            Hex digest of every setting that changes a vector.
        dimension : int
            Of the vectors.
        made_by : str
            The command that writes them, for messages.

        Raises
        ------
        SearchError
            If the address or the index type is not known.
        StoreUnreachableError
            If another process has the file open, or the server does not answer.
        """
        check_index(settings)
        self.uri, token = address(settings.uri)
        self.dimension = dimension
        data_set = hashlib.sha256(settings.data_set.encode()).hexdigest()[:DATA_SET_LENGTH]
        self._prefix = f"{kind}_{data_set}_"
        self.collection = f"{self._prefix}{fingerprint[:NAME_LENGTH]}"
        self._kind, self._settings, self._made_by = kind, settings, made_by
        self._client: Any = _connect(self.uri, token)

    def __enter__(self) -> VectorStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of the store, and of the file if no other store of this process uses it."""
        self._client.close()
        if _is_file(self.uri):
            _release(self.uri)

    def create(self) -> None:
        """Make the collection if it is not there.

        In a file, which belongs to one project, those that other settings made of this data set are dropped. On a
        server they stay: they may be another project's.
        """
        with self._errors():
            for other in self._collections():
                if other == self.collection:
                    continue
                if _is_file(self.uri):
                    self._client.drop_collection(other)
                else:
                    log.info("%s has vectors of other settings in %s, which nobody here drops", self.uri, other)
            if self.collection not in self._collections():
                self._client.create_collection(
                    self.collection,
                    schema=self._schema(),
                    index_params=self._index(),
                    consistency_level="Strong",
                )
        self.open()

    def open(self, n_vectors: int | None = None) -> None:
        """Make the collection ready to be searched.

        Parameters
        ----------
        n_vectors : int or None
            That must be there; None: any number.

        Raises
        ------
        SearchError
            If there is none, it was made with other settings, or it has vectors of another dimension or number.
        """
        with self._errors():
            names = self._collections()
            if self.collection not in names:
                if names:
                    raise SearchError(
                        f"the vectors in {self.uri} were made with other settings ({names[0]}) than are asked for"
                        f" ({self.collection}): run `{self._made_by}`"
                    )
                raise SearchError(f"there are no {self._kind} vectors in {self.uri}: run `{self._made_by}`")
            self._client.load_collection(self.collection)
            fields = self._client.describe_collection(self.collection)["fields"]
        found = next(int(field["params"]["dim"]) for field in fields if field["name"] == "vector")
        if found != self.dimension:
            raise SearchError(f"the vectors in {self.uri} have {found} dimensions, not {self.dimension}")
        if n_vectors is not None and (there := self._count()) != n_vectors:
            raise SearchError(
                f"the collection {self.collection} in {self.uri} has {there} of {n_vectors} vectors:"
                f" run `{self._made_by}`"
            )

    def write(self, items: Iterable[tuple[Window, Vectors]]) -> int:
        """Write windows with their vectors [shape=(dimension,)], replacing those of the same keys; return how many.

        Raises
        ------
        SearchError
            If a vector has another dimension or is not finite.
        """
        n_written = 0
        waiting = iter(items)
        while batch := list(itertools.islice(waiting, BATCH)):
            rows = [{**_row(window), "vector": self._checked(vector, 1)} for window, vector in batch]
            with self._errors():
                self._client.upsert(self.collection, rows)
            n_written += len(rows)
        with self._errors():
            self._client.flush(self.collection)  # what is not sealed has no index: a search compares it one by one
        return n_written

    def replace_song(self, sha256: str, items: Sequence[tuple[Window, Vectors]]) -> None:
        """Write all windows of a song, and remove those it had beyond them."""
        self.write(items)
        last = _key(sha256, max((window.number for window, _ in items), default=-1))
        with self._errors():
            self._client.delete(self.collection, filter=f'song_sha256 == "{_hex(sha256)}" and id > "{last}"')

    def remove_songs(self, digests: Iterable[str]) -> None:
        """Remove the windows of songs by SHA-256."""
        waiting = iter(sorted(digests))
        while batch := list(itertools.islice(waiting, BATCH)):
            with self._errors():
                self._client.delete(self.collection, filter=f"song_sha256 in {_listed(batch)}")

    def songs(self) -> Counter[str]:
        """Return the number of windows of every song, by SHA-256."""
        found: Counter[str] = Counter()
        with self._errors():
            pages = self._client.query_iterator(self.collection, batch_size=BATCH, output_fields=["song_sha256"])
            while page := pages.next():
                found.update(row["song_sha256"] for row in page)
            pages.close()
        return found

    def search(self, vectors: Vectors, top_k: int, *, without: Collection[str] = ()) -> list[list[Neighbour]]:
        """Return the nearest windows to each vector, nearest first.

        Parameters
        ----------
        vectors : npt.NDArray[np.float32] [shape=(n, dimension)]
        top_k : int
            Windows for each; fewer are found where there are no more.
        without : collection of str
            SHA-256 of songs that do not count.

        Raises
        ------
        SearchError
            If the vectors have another dimension, or the collection is empty.
        """
        queries = self._checked(vectors, 2)
        parameters = dict(self._settings.search)
        if "nprobe" not in parameters and self._settings.index_type == "IVF_FLAT":
            parameters["nprobe"] = max(1, int(self._settings.build.get("nlist", 128)) // 4)
        with self._errors():
            found = self._client.search(
                self.collection,
                data=list(queries),
                anns_field="vector",
                limit=top_k,
                filter=f"song_sha256 not in {_listed(without)}" if without else "",
                output_fields=list(_FIELDS),
                search_params={"metric_type": "COSINE", "params": parameters},
                consistency_level="Strong",
            )
        if len(queries) and not any(found) and not self._count():
            raise SearchError(f"the collection {self.collection} in {self.uri} is empty: run `{self._made_by}`")
        return [[_neighbour(hit) for hit in hits] for hits in found]

    def vectors(self, windows: Iterable[tuple[str, int]]) -> dict[tuple[str, int], Vectors]:
        """Return the vectors [shape=(dimension,) each] of windows by SHA-256 and number, where they are there."""
        wanted = {_key(sha256, number): (sha256, number) for sha256, number in windows if number >= 0}
        found: dict[tuple[str, int], Vectors] = {}
        waiting = iter(wanted)
        with self._errors():
            while batch := list(itertools.islice(waiting, BATCH)):
                for row in self._client.get(self.collection, ids=batch, output_fields=["vector"]):
                    found[wanted[row["id"]]] = np.asarray(row["vector"], np.float32)
        return found

    def _count(self) -> int:
        with self._errors():
            (row,) = self._client.query(
                self.collection, filter="", output_fields=["count(*)"], consistency_level="Strong"
            )
        return int(row["count(*)"])

    def _checked(self, vectors: Vectors, n_axes: int) -> Vectors:
        array = np.asarray(vectors, np.float32)
        if array.ndim != n_axes or array.shape[-1] != self.dimension:
            raise SearchError(
                f"a vector of shape {array.shape} was given to {self.collection}, which has {self.dimension} dimensions"
            )
        if not np.isfinite(array).all():
            raise SearchError(f"a vector for {self.collection} has values that are not finite")
        return array

    def _collections(self) -> list[str]:
        pattern = rf"{re.escape(self._prefix)}[0-9a-f]{{{NAME_LENGTH}}}"
        return sorted(name for name in self._client.list_collections() if re.fullmatch(pattern, name))

    def _schema(self) -> Any:
        from pymilvus import DataType

        schema = self._client.create_schema(auto_id=False, enable_dynamic_field=False)
        schema.add_field("id", DataType.VARCHAR, is_primary=True, max_length=80)
        schema.add_field("song_sha256", DataType.VARCHAR, max_length=64)
        schema.add_field("song", DataType.VARCHAR, max_length=_TEXT_BYTES)
        schema.add_field("genre", DataType.VARCHAR, max_length=_TEXT_BYTES)
        schema.add_field("start_s", DataType.DOUBLE)
        schema.add_field("vector", DataType.FLOAT_VECTOR, dim=self.dimension)
        return schema

    def _index(self) -> Any:
        index = self._client.prepare_index_params()
        index.add_index(
            "vector",
            index_type=self._settings.index_type,
            metric_type="COSINE",
            params=dict(_DEFAULT_BUILD.get(self._settings.index_type, {}), **self._settings.build),
        )
        return index

    def _errors(self) -> contextlib.AbstractContextManager[None]:
        return _clear_errors(self.uri)


_DEFAULT_BUILD: Mapping[str, dict[str, int]] = {
    "IVF_FLAT": {"nlist": 128},
    "HNSW": {"M": 16, "efConstruction": 200},
}


def check_index(settings: IndexSettings) -> None:
    """Check the index type and its parameters; Milvus Lite takes an unknown type for brute force and says nothing.

    Raises
    ------
    SearchError
        Naming what is known.
    """
    known = INDEX_TYPES.get(settings.index_type)
    if known is None:
        raise SearchError(f"index.index_type {settings.index_type} is not known: use one of {', '.join(INDEX_TYPES)}")
    for section in ("build", "search"):
        for name, value in getattr(settings, section).items():
            if name not in known[section]:
                takes = ", ".join(known[section]) or "none"
                raise SearchError(f"index.{section} has {name}, which {settings.index_type} does not take ({takes})")
            if value < 1:
                raise SearchError(f"index.{section}.{name} is {value}: it must be 1 or more")


def _connect(uri: str, token: str) -> Any:
    from pymilvus import MilvusClient

    for name in ("pymilvus", "milvus_lite", "grpc"):  # they log the errors that they raise, with tracebacks
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if not _is_file(uri):
        with _clear_errors(uri):
            return MilvusClient(uri, token=token, timeout=TIMEOUT_S)
    path = Path(uri)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SearchError(f"the vector store {uri} cannot be made: {error}") from error
    with _lock:
        try:
            client = MilvusClient(uri)
        except Exception as error:  # pymilvus tells no more than that it failed
            if _locked_by_other(path):
                raise StoreUnreachableError(
                    f"the vector store {uri} is in use by another process: end that, or run a server"
                    " (`milvus-lite server`) and set MILVUS_URI"
                ) from None
            raise SearchError(
                f"the vector store {uri} cannot be opened ({error}): is it a Milvus Lite folder?"
            ) from error
        _open_files[str(path.resolve())] += 1
    return client


def _release(uri: str) -> None:
    """Free the lock on a Milvus Lite file: pymilvus keeps it until the process ends."""
    from milvus_lite.server_manager import server_manager_instance

    with _lock:
        name = str(Path(uri).resolve())
        _open_files[name] -= 1
        if _open_files[name] <= 0:
            del _open_files[name]
            server_manager_instance.release_server(uri)


def _locked_by_other(path: Path) -> bool:
    try:
        import fcntl
    except ImportError:  # no such locks here
        return False
    try:
        with (path / "LOCK").open("rb+") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_file(uri: str) -> bool:
    return uri.endswith(".db") and not re.match(r"https?://", uri)


@contextlib.contextmanager
def _clear_errors(uri: str) -> Iterator[None]:
    """Turn what pymilvus raises into a sentence."""
    from grpc import RpcError
    from pymilvus.exceptions import MilvusException

    try:
        yield
    except (MilvusException, RpcError) as error:
        reason = getattr(error, "message", "") or str(error)
        if re.search(r"connect|unavailable|deadline|timeout|closed channel", reason, re.IGNORECASE):
            raise StoreUnreachableError(
                f"the vector store {uri} does not answer ({reason}): is the server up?"
            ) from error
        raise SearchError(f"the vector store {uri}: {reason}") from error


def _row(window: Window) -> dict[str, Any]:
    return {
        "id": _key(window.song_sha256, window.number),
        "song_sha256": _hex(window.song_sha256),
        "song": _plain(window.song),
        "genre": _plain(window.genre),
        "start_s": float(window.start_s),
    }


def _neighbour(hit: Any) -> Neighbour:
    sha256, song, genre, start_s = (hit["entity"][name] for name in _FIELDS)
    return Neighbour(Window(sha256, int(hit["id"].partition(":")[2]), song, genre, start_s), float(hit["distance"]))


def _key(sha256: str, number: int) -> str:
    return f"{_hex(sha256)}:{number:08d}" if number >= 0 else f"{_hex(sha256)}:"


def _hex(digest: str) -> str:
    """Return the digest; it goes into filter expressions, so nothing but hex digits may pass."""
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise SearchError(f"{digest!r} is not a SHA-256")
    return digest


def _listed(digests: Iterable[str]) -> str:
    return "[" + ", ".join(f'"{_hex(digest)}"' for digest in digests) + "]"


def _plain(text: str) -> str:
    """Return a name as UTF-8 text; bytes of file names that are not become escapes."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")
