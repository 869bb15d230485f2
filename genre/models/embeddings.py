"""Embeddings: a chunk as one vector, from its features or from its audio, for classifiers and for search."""

from __future__ import annotations

import functools
import hashlib
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from genre import files
from genre.audio import chunks
from genre.cache import Cache
from genre.errors import ModelError
from genre.features import numpy_engine
from genre.features.transforms import CONTRAST_FLOOR, CONTRAST_PEAKS, CONTRAST_VALLEYS, MFCC, TRANSFORMS
from genre.models import musicnn
from genre.parallel import run
from genre.paths import Paths

Features = Mapping[str, npt.NDArray[np.float32]]  # by name [shape=(frames, columns) or (chunks, frames, columns)]
Samples = npt.NDArray[np.int16]  # of one chunk [shape=(n,)]
Vector = npt.NDArray[np.float32]  # [shape=(values,)]
Vectors = npt.NDArray[np.float32]  # [shape=(chunks, values)]

PERCENTILES = (5, 50, 95)


class Embedding(NamedTuple):
    """Definition of an embedding."""

    n_values: int
    version: int  # raised with every change of the numbers
    of_audio: Callable[[Samples, int, Paths], Vector]  # of samples, sample rate in Hz, project
    of_features: Callable[[Features], Vector] | None = None  # of one chunk, if features are enough
    checkpoint: str | None = None  # of the MusiCNN network that `of_audio` needs


class Embedder(NamedTuple):
    """Computes one embedding; thread-safe, and can be pickled."""

    name: str  # a key of `EMBEDDINGS`
    paths: Paths
    cache: Cache | None = None  # of embeddings computed from audio

    @property
    def embedding(self) -> Embedding:
        """Return its kind."""
        return EMBEDDINGS[self.name]

    @property
    def needs_audio(self) -> bool:
        """Return whether it is computed from audio; otherwise features are enough."""
        return self.embedding.of_features is None

    def of_audio(self, samples: Samples, sample_rate: int) -> Vector:
        """Return the embedding [shape=(values,)] of a chunk's samples; features are computed if it needs them.

        Raises ModelError if the converted network is missing.
        """
        compute = functools.partial(self.embedding.of_audio, samples, sample_rate, self.paths)
        if self.cache is None:
            return compute()
        key = self._key(samples, sample_rate)
        data = self.cache.recall(key) or self.cache.keep(key, compute().tobytes())
        return np.frombuffer(data, np.float32)

    def of_features(self, inputs: Features) -> Vectors:
        """Return the embeddings [shape=(chunks, values)] of features by name [shape=(chunks, frames, columns)]."""
        function = self.embedding.of_features
        assert function is not None
        rows = range(len(next(iter(inputs.values()), ())))
        vectors = [function({feature: values[row] for feature, values in inputs.items()}) for row in rows]
        return np.array(vectors, np.float32).reshape(-1, self.embedding.n_values)

    def of_files(self, chunk_files: Sequence[Path], *, gains_db: Sequence[float] = (0.0,), **parallel: Any) -> Vectors:
        """Return the embeddings [shape=(gains * chunks, values)] of chunk files, in parallel and through the cache.

        Each of `gains_db` changes the level of all chunks, whose samples are clipped at full scale. `parallel` are the
        workers and the scheduler of `parallel.run`. Raises AudioError if a file is not a chunk.
        """
        items = list(itertools.product(gains_db, chunk_files))
        recall = None if parallel.get("scheduler") else self._recall  # whose reading of all files is left to a cluster
        rows = run(self._of_file, items, description=self.name, unit="chunk", recall=recall, **parallel)
        return np.array(list(rows), np.float32).reshape(-1, self.embedding.n_values)

    def of_chunks(self, inputs: Features, chunk_files: Sequence[Path], workers: int | None) -> Vectors:
        """Return `of_features` of chunks, or `of_files` if these are needed."""
        return self.of_files(chunk_files, workers=workers) if self.needs_audio else self.of_features(inputs)

    def describe(self) -> dict[str, Any]:
        """Return name, length and version, ready for JSON: vectors are comparable if these are equal."""
        return {"name": self.name, "n_values": self.embedding.n_values, "version": self.embedding.version}

    def _of_file(self, item: tuple[float, Path]) -> Vector:
        return self.of_audio(*_read(*item))

    def _recall(self, item: tuple[float, Path]) -> Vector | None:
        """Return the embedding of a file from the cache: no process is started where it has all."""
        data = self.cache.recall(self._key(*_read(*item))) if self.cache else None
        return None if data is None else np.frombuffer(data, np.float32)

    def _key(self, samples: Samples, sample_rate: int) -> str:
        table = [] if self.needs_audio else [[t.vamp_id, t.block, t.step] for t in TRANSFORMS.values()]
        digest = hashlib.sha256(np.ascontiguousarray(samples).data).hexdigest()
        return files.digest("embedding", self.describe(), table, sample_rate, digest)


class Batch:
    """Features and samples of chunks, with their embeddings, each computed once."""

    def __init__(self, features: Features, audio: Sequence[tuple[Samples, int]] = ()) -> None:
        """Use features [shape=(chunks, frames, columns)] and embeddings [shape=(chunks, values)] by name.

        `audio` has samples and sample rate in Hz of each chunk: for embeddings of audio that are missing.
        """
        self.features, self._audio = features, audio
        self._embeddings: dict[str, Vectors] = {name: array for name, array in features.items() if array.ndim == 2}

    def embedding(self, embedder: Embedder) -> Vectors:
        """Return an embedding [shape=(chunks, values)]."""
        if embedder.name not in self._embeddings:
            self._embeddings[embedder.name] = (
                np.stack([embedder.of_audio(*chunk) for chunk in self._audio])
                if embedder.needs_audio
                else embedder.of_features(self.features)
            )
        return self._embeddings[embedder.name]


def load(name: str, paths: Paths, *, cache: Cache | None = None) -> Embedder:
    """Return the embedder of a name, with its network loaded.

    Raises ModelError if the name is unknown, or the converted network is missing.
    """
    if name not in EMBEDDINGS:
        raise ModelError(f"unknown embedding {name}; choose from {', '.join(EMBEDDINGS)}")
    if (checkpoint := EMBEDDINGS[name].checkpoint) is not None:
        musicnn.network(paths.musicnn(checkpoint))
    return Embedder(name, paths, cache)


def statistics(features: Features) -> Vector:
    """Return statistics over time of the MFCC and of the logarithm of the spectral contrast [shape=(287,)].

    Of each of 41 columns (20 MFCC, 7 peaks, 7 valleys, 7 differences of the two): mean, standard deviation, 5th, 50th
    and 95th percentile, and mean and standard deviation of the absolute change from frame to frame. Frames of digital
    silence, whose MFCC are exact zeros, are excluded from the MFCC.
    """
    mfcc = features[MFCC.feature].astype(np.float64)
    not_silent = mfcc.any(axis=1)
    high, low = (
        np.log(np.maximum(features[t.feature], CONTRAST_FLOOR, dtype=np.float64))
        for t in (CONTRAST_PEAKS, CONTRAST_VALLEYS)
    )
    parts = (mfcc[not_silent] if not_silent.any() else mfcc, high, low, high - low)
    return np.concatenate([_over_time(part) for part in parts]).astype(np.float32)


def _statistics(samples: Samples, sample_rate: int, _paths: Paths) -> Vector:
    return statistics(numpy_engine.compute(samples, sample_rate))


def librosa_ranges(samples: Samples, sample_rate: int, _paths: Paths) -> Vector:
    """Return minimum, mean and maximum over time of librosa's MFCC, mel spectra, chroma and tonnetz [shape=(498,)]."""
    from librosa import feature

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


def _read(gain_db: float, path: Path) -> tuple[Samples, int]:
    """Return the samples of a chunk file at another level, and their sample rate in Hz."""
    samples, sample_rate = chunks.read(path)
    if gain_db:
        samples = np.rint(samples * 10 ** (gain_db / 20)).clip(-32768, 32767).astype(np.int16)
    return samples, sample_rate


def _over_time(columns: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    change = np.abs(np.diff(columns, axis=0)) if len(columns) > 1 else np.zeros_like(columns)
    rows = [columns.mean(axis=0), columns.std(axis=0), *np.percentile(columns, PERCENTILES, axis=0)]
    return np.concatenate([*rows, change.mean(axis=0), change.std(axis=0)])


def _musicnn(checkpoint: str, part: slice, samples: Samples, sample_rate: int, paths: Paths) -> Vector:
    return musicnn.embed(paths.musicnn(checkpoint), samples, sample_rate)[part]


EMBEDDINGS: dict[str, Embedding] = {
    "statistics": Embedding(287, 1, _statistics, statistics),
    "librosa": Embedding(498, 1, librosa_ranges),
    **{
        f"{checkpoint}_{vector}": Embedding(
            part.stop - part.start,
            musicnn.VERSION,
            of_audio=functools.partial(_musicnn, checkpoint, part),
            checkpoint=checkpoint,
        )
        for checkpoint in musicnn.CHECKPOINTS
        for vector, part in musicnn.VECTORS.items()
    },
}
