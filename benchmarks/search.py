"""The vector store at growing sizes: build time, memory, latency, and recall@10 against exact search.

    python -m benchmarks.search [FOLDER] [--sizes 10000 100000 1000000] [--dimension 64]

The vectors are windows of 1 s of log-mel spectrogram, projected on their principal axes and normalised: those of the
songs of FOLDER (every 0.25 s), and synthetic ones, each a noisy point between two real ones. Queries are real vectors
plus noise. Every index is built and searched in its own process with Milvus Lite, as `index` does; latency is that of
one vector per call.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.signal

from genre import params
from genre.audio import chunks, dataset
from genre.cli import integer
from genre.paths import Paths
from genre.search import store
from genre.search.engine import IndexedSong
from genre.search.store import Window

RATE = 8000  # Hz
WINDOW_S, HOP_S = 1.0, 0.25
N_QUERIES = 200
TOP_K = 10
NOISE = 0.5  # of a query, against the vector's length of 1, over all dimensions
INDEXES: tuple[tuple[str, dict[str, int], dict[str, int]], ...] = (
    ("FLAT", {}, {}),
    ("IVF_FLAT", {"nlist": 1024}, {"nprobe": 32}),
    ("IVF_FLAT", {"nlist": 1024}, {"nprobe": 128}),
    ("HNSW", {"M": 16, "efConstruction": 200}, {"ef": 64}),
    ("HNSW", {"M": 32, "efConstruction": 200}, {"ef": 256}),
)
Vectors = npt.NDArray[np.float32]


def main() -> None:
    """Print the table, one line as each index is done."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.search", description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", type=Path, metavar="FOLDER", help="real songs (default: noise bursts)")
    parser.add_argument("--sizes", type=integer(1, 10**8), nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dimension", type=integer(2, 4096), default=64)
    parser.add_argument("--only", nargs="+", metavar="TYPE", help="index types (default: all)")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(_one(**json.loads(options.one))))
        return
    with tempfile.TemporaryDirectory(prefix="search-") as name:
        base = Path(name)
        real = _real(options.folder, options.dimension)
        print(f"{len(real)} real vectors of {options.dimension} dimensions")
        head = ("vectors", "index", "build", "search", "build s", "MB", "recall@10", "p50 ms", "p95 ms")
        print("{:>9} {:<9} {:<30} {:<15} {:>8} {:>7} {:>10} {:>8} {:>8}".format(*head), flush=True)
        for size in options.sizes:
            _prepare(base, real, size)
            for index_type, build, search in INDEXES:
                if options.only and index_type not in options.only:
                    continue
                arguments = {"base": str(base), "index_type": index_type, "build": build, "search": search}
                command = [sys.executable, "-m", "benchmarks.search", "--one", json.dumps(arguments)]
                result = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
                print(
                    f"{size:>9} {index_type:<9} {_listed(build):<30} {_listed(search):<15} {result['build_s']:>8.1f}"
                    f" {result['mb']:>7.0f} {result['recall']:>10.3f} {result['p50_ms']:>8.2f}"
                    f" {result['p95_ms']:>8.2f}",
                    flush=True,
                )


def _prepare(base: Path, real: Vectors, size: int) -> None:
    """Write vectors, queries and the exact neighbours of each query."""
    rng = np.random.default_rng(size)
    vectors = np.empty((size, real.shape[1]), np.float32)
    vectors[: len(real)] = real[:size]
    for first in range(len(real), size, 100_000):
        part = vectors[first : first + 100_000]
        one, other = (real[rng.integers(len(real), size=len(part))] for _ in range(2))
        part[:] = one + rng.random((len(part), 1), np.float32) * (other - one)
        part += _noise(rng, part.shape, 0.3)
        part /= np.linalg.norm(part, axis=1, keepdims=True)
    rows = rng.choice(min(len(real), size), N_QUERIES, replace=False)
    queries = vectors[rows] + _noise(rng, (N_QUERIES, real.shape[1]), NOISE)
    queries /= np.linalg.norm(queries, axis=1, keepdims=True)
    exact = np.argsort(-(queries @ vectors.T), axis=1, kind="stable")[:, :TOP_K]
    np.save(base / "vectors.npy", vectors)
    np.save(base / "queries.npy", queries)
    np.save(base / "exact.npy", exact)


def _noise(rng: np.random.Generator, shape: tuple[int, int], size: float) -> Vectors:
    return rng.standard_normal(shape, np.float32) * np.float32(size / np.sqrt(shape[1]))


def _real(folder: Path | None, dimension: int) -> Vectors:
    """Return the windows of all songs on their principal axes [shape=(windows, dimension)], each of length 1."""
    windows = np.concatenate(list(_windows(folder)))
    windows -= windows.mean(axis=0)
    axes = np.linalg.svd(windows[:: max(1, len(windows) // 5000)], full_matrices=False)[2][:dimension]
    projected = windows @ axes.T
    projected /= projected.std(axis=0) ** 0.5  # tempered: the first axes are mostly loudness
    normalised: Vectors = (projected / np.linalg.norm(projected, axis=1, keepdims=True)).astype(np.float32)
    return np.random.default_rng(0).permutation(normalised)


def _windows(folder: Path | None) -> Iterator[Vectors]:
    hop = round(HOP_S * RATE / 4)  # four columns an HOP_S
    for samples in _songs(folder):
        _, _, spectrum = scipy.signal.stft(samples, RATE, nperseg=4 * hop, noverlap=3 * hop)
        bands = np.array([band.mean(axis=0) for band in np.array_split(np.abs(spectrum[1:]) ** 2, 32)])
        columns = np.log10(bands + 1e-7).T
        n_columns = round(WINDOW_S / HOP_S) * 4
        yield np.lib.stride_tricks.sliding_window_view(columns, n_columns, axis=0)[::4].reshape(-1, 32 * n_columns)


def _songs(folder: Path | None) -> Iterator[npt.NDArray[np.float64]]:
    if folder is None:
        rng = np.random.default_rng(0)
        for _ in range(100):
            envelope = np.repeat(rng.random(120), RATE // 4)
            yield envelope * rng.standard_normal(len(envelope))
        return
    for path in dataset.walk(folder, follow_links=True)[0]:
        for chunk in chunks.iterate(path, sample_rate=RATE, chunk_seconds=30.0, min_seconds=5.0):
            yield chunk.samples / 32768


def _one(*, base: str, index_type: str, build: dict[str, int], search: dict[str, int]) -> dict[str, float]:
    """Return build time, memory, recall and latency of one index."""
    vectors: Vectors = np.load(Path(base) / "vectors.npy", mmap_mode="r")
    queries, exact = np.load(Path(base) / "queries.npy"), np.load(Path(base) / "exact.npy")
    with tempfile.TemporaryDirectory(dir=base) as name:
        settings = params.load()
        index = settings.index.model_copy(
            update={"uri": f"{name}/vectors.db", "index_type": index_type, "build_params": build}
        )
        search_section = settings.search.model_copy(update={"index_params": search})
        settings = settings.model_copy(update={"index": index, "search": search_section})
        before = _resident_mb()
        started = time.monotonic()
        with store.connect(settings, Paths(), kind="bench", digest="0" * 64, dimension=vectors.shape[1]) as collection:
            collection.write(
                [Window(IndexedSong("0" * 64, "song", "genre"), float(n)) for n in range(len(vectors))], vectors
            )
            collection.search(queries[:1], TOP_K)  # the first search completes the index
            build_s = time.monotonic() - started
            latencies, n_right = [], 0
            for query, right in zip(queries, exact, strict=True):
                began = time.monotonic()
                (neighbours,) = collection.search(query[np.newaxis], TOP_K)
                latencies.append(time.monotonic() - began)
                n_right += len({hit.start_s for hit in neighbours} & set(right.tolist()))
            mb = _resident_mb() - before
    p50, p95 = (1000 * float(np.percentile(latencies, q)) for q in (50, 95))
    return {"build_s": build_s, "mb": mb, "recall": n_right / exact.size, "p50_ms": p50, "p95_ms": p95}


def _resident_mb() -> float:
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("RssAnon:")) / 1000


def _listed(parameters: dict[str, int]) -> str:
    return " ".join(f"{name}={value}" for name, value in parameters.items())


if __name__ == "__main__":
    main()
