"""Embeddings: a chunk as one vector, made of its features or of its samples, for classifiers that take vectors."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre import files
from genre.audio import chunks
from genre.cache import Cache
from genre.errors import ModelError
from genre.features.numpy_engine import compute
from genre.features.transforms import CONTRAST_FLOOR, CONTRAST_PEAKS, CONTRAST_VALLEYS, MFCC, TRANSFORMS
from genre.models import musicnn
from genre.models.musicnn import MusiCNN

Features = Mapping[str, npt.NDArray[np.float32]]  # of one chunk, by name, shape (frames, columns)
Samples = npt.NDArray[np.int16]  # of one chunk, shape (n,)
Vector = npt.NDArray[np.float32]  # shape (values,)
Vectors = npt.NDArray[np.float32]  # shape (chunks, values)

PERCENTILES = (5, 50, 95)


@dataclass(frozen=True, slots=True)
class Embedding:
    """How long an embedding is, and what it is made of: exactly one of the two functions is there."""

    n_values: int
    version: int  # raised with every change of the numbers
    of_features: Callable[[Features], Vector] | None = None
    of_samples: Callable[[Samples, int], Vector] | None = None  # takes samples and their rate in Hz
    prepare: Callable[[], object] | None = None  # loads what it needs, where that takes time


def get(name: str) -> Embedding:
    """Return the embedding of that name.

    Raises
    ------
    ModelError
        If there is none.
    """
    if name not in EMBEDDINGS:
        raise ModelError(f"there is no embedding {name}: use one of {', '.join(EMBEDDINGS)}")
    return EMBEDDINGS[name]


def prepare(name: str) -> None:
    """Load what an embedding needs, so that its first vector takes no longer, and threads do not load it twice.

    Raises
    ------
    ModelError
        If there is no such embedding, or a package that it needs is not installed.
    """
    load = get(name).prepare
    if load is not None:
        load()


def embed(
    name: str,
    *,
    features: Iterable[Features] = (),
    audio: Iterable[tuple[Samples, int]] = (),
    cache: Cache | None = None,
) -> Vectors:
    """Return the vectors of chunks.

    Parameters
    ----------
    name : str
        Which embedding: a key of `EMBEDDINGS`.
    features : iterable of mapping of npt.NDArray[np.float32] [shape=(frames, columns)]
        The features of each chunk, by name.
    audio : iterable of tuple of npt.NDArray[np.int16] [shape=(n,)] and int
        The samples of each chunk, mono, and their rate in Hz. Only what the embedding is made of, features or audio,
        is read; the other may be missing, or a generator that is left alone.
    cache : Cache or None
        Where vectors that are made of samples are looked up and kept.

    Returns
    -------
    npt.NDArray[np.float32] [shape=(chunks, values)]

    Raises
    ------
    ModelError
        If there is no such embedding, or a package that it needs is not installed.
    """
    embedding = get(name)
    if embedding.of_features is not None:
        rows = [embedding.of_features(chunk) for chunk in features]
    else:
        rows = [of_samples(name, samples, sample_rate, cache) for samples, sample_rate in audio]
    return _stacked(name, rows)


def of_samples(name: str, samples: Samples, sample_rate: int, cache: Cache | None = None) -> Vector:
    """Return the vector of one chunk; an embedding of features takes those of the built-in engine.

    Parameters, errors
    ------------------
    As for `embed`.
    """
    if cache is None:
        return _made(name, samples, sample_rate)
    key = _key(name, samples, sample_rate)
    data = cache.recall(key) or cache.keep(key, _made(name, samples, sample_rate).tobytes())
    return np.frombuffer(data, np.float32)


def of_files(
    name: str, paths: Sequence[Path], *, cache: Cache, workers: int | None = None, scheduler: str | None = None
) -> Vectors:
    """Return the vectors of chunk files, each made once and kept.

    Parameters
    ----------
    name, cache
        As for `embed`.
    paths : sequence of Path
        As `chunks.write` makes them.
    workers, scheduler
        As for `parallel.run`.

    Returns
    -------
    npt.NDArray[np.float32] [shape=(chunks, values)]

    Raises
    ------
    ModelError
        As for `embed`.
    AudioError
        If a file is no chunk.
    """
    from genre.parallel import all_or_error, run

    prepare(name)  # what it takes is made once, here, and not by every worker
    made = functools.partial(_of_file, name, cache)
    recalled = functools.partial(_known_of_file, name, cache)
    rows = run(made, paths, description=name, unit="chunk", workers=workers, scheduler=scheduler, known=recalled)
    return _stacked(name, all_or_error(rows))


def each_chunk(inputs: Mapping[str, npt.NDArray[np.float32]]) -> Iterator[Features]:
    """Return the features of one chunk after the other from arrays [shape=(chunks, frames, columns)] by name."""
    n_chunks = len(next(iter(inputs.values()))) if inputs else 0
    return ({feature: values[row] for feature, values in inputs.items()} for row in range(n_chunks))


def describe(name: str) -> dict[str, Any]:
    """Return what tells the vectors of one embedding from those of another, ready for JSON."""
    embedding = get(name)
    return {"name": name, "n_values": embedding.n_values, "version": embedding.version}


def statistics(features: Features) -> Vector:
    """Return statistics over time of the MFCC and of the logarithm of the spectral contrast.

    Of each of 41 columns (20 MFCC, 7 peaks, 7 valleys, 7 differences of the two): mean, standard deviation, 5th, 50th
    and 95th percentile, and mean and standard deviation of the absolute change from frame to frame. Frames of digital
    silence, whose MFCC are exact zeros, do not count for the MFCC.

    Returns
    -------
    npt.NDArray[np.float32] [shape=(287,)]
    """
    mfcc = features[MFCC.feature].astype(np.float64)
    sounding = mfcc.any(axis=1)
    high, low = (
        np.log(np.maximum(features[t.feature], CONTRAST_FLOOR, dtype=np.float64))
        for t in (CONTRAST_PEAKS, CONTRAST_VALLEYS)
    )
    parts = (mfcc[sounding] if sounding.any() else mfcc, high, low, high - low)
    return np.concatenate([_over_time(part) for part in parts]).astype(np.float32)


def librosa_ranges(samples: Samples, sample_rate: int) -> Vector:
    """Return the least, mean and greatest value over time of librosa's MFCC, mel spectrogram, chroma and tonnetz.

    Returns
    -------
    npt.NDArray[np.float32] [shape=(498,)]
        3 times 20 + 128 + 12 + 6.

    Raises
    ------
    ModelError
        If librosa is not installed.
    """
    try:
        from librosa import feature
    except ImportError:
        raise ModelError("the package librosa is not installed: run `uv pip install librosa`") from None
    signal = samples.astype(np.float32) / 32768
    chroma = feature.chroma_stft(y=signal, sr=sample_rate)
    tables = (
        feature.mfcc(y=signal, sr=sample_rate, n_mfcc=20),
        feature.melspectrogram(y=signal, sr=sample_rate, n_mels=128),
        chroma,
        feature.tonnetz(chroma=chroma),
    )
    ranges = [statistic(table, axis=1) for table in tables for statistic in (np.min, np.mean, np.max)]
    return np.concatenate(ranges).astype(np.float32)


def _made(name: str, samples: Samples, sample_rate: int) -> Vector:
    embedding = get(name)
    if embedding.of_samples is not None:
        return embedding.of_samples(samples, sample_rate)
    assert embedding.of_features is not None
    return embedding.of_features(compute(samples, sample_rate))


def _stacked(name: str, rows: Sequence[Vector]) -> Vectors:
    return np.stack(rows) if rows else np.empty((0, get(name).n_values), np.float32)


def _of_file(name: str, cache: Cache, path: Path) -> Vector:
    return of_samples(name, *chunks.read(path), cache)


def _known_of_file(name: str, cache: Cache, path: Path) -> Vector | None:
    data = cache.recall(_key(name, *chunks.read(path)))
    return None if data is None else np.frombuffer(data, np.float32)


def _key(name: str, samples: Samples, sample_rate: int) -> str:
    table = [[t.vamp_id, t.block, t.step] for t in TRANSFORMS.values()] if get(name).of_features is not None else []
    digest = hashlib.sha256(np.ascontiguousarray(samples).data).hexdigest()
    return files.digest("embedding", describe(name), table, sample_rate, digest)


def _over_time(columns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    change = np.abs(np.diff(columns, axis=0)) if len(columns) > 1 else np.zeros_like(columns)
    rows = [columns.mean(axis=0), columns.std(axis=0), *np.percentile(columns, PERCENTILES, axis=0)]
    return np.concatenate([*rows, change.mean(axis=0), change.std(axis=0)])


def _musicnn(checkpoint: str, vector: str, samples: Samples, sample_rate: int) -> Vector:
    return _loaded(checkpoint).embed(samples, sample_rate)[musicnn.VECTORS[vector]]


@functools.lru_cache(maxsize=len(musicnn.CHECKPOINTS))
def _loaded(checkpoint: str) -> MusiCNN:
    return MusiCNN(checkpoint)


EMBEDDINGS: dict[str, Embedding] = {
    "statistics": Embedding(287, 1, of_features=statistics),
    "librosa": Embedding(498, 1, of_samples=librosa_ranges),
    **{
        f"{checkpoint}_{vector}": Embedding(
            part.stop - part.start,
            musicnn.VERSION,
            of_samples=functools.partial(_musicnn, checkpoint, vector),
            prepare=functools.partial(_loaded, checkpoint),
        )
        for checkpoint in musicnn.CHECKPOINTS
        for vector, part in musicnn.VECTORS.items()
    },
}
