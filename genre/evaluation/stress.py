"""Stress test: the middle chunk of each song re-encoded, at another speed or level, or equalised."""

from __future__ import annotations

import functools
import hashlib
import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre import archives, files
from genre.audio import chunks, ffmpeg
from genre.cache import Cache
from genre.evaluation.metrics import accuracy_interval
from genre.features.numpy_engine import compute
from genre.features.transforms import TRANSFORMS
from genre.models.embeddings import Embedder
from genre.parallel import run

STEREO = "pan=stereo|c0=c0|c1=c0"  # as most files are
Options = dict[str, str | int]  # output options of ffmpeg
WAV: Options = {"format": "wav"}

CHANGES: dict[str, tuple[float, Options]] = {  # by name, with the factor of the speed
    "unchanged": (1.0, WAV),
    "mp3 64 kb/s": (1.0, {"format": "mp3", "acodec": "libmp3lame", "b:a": "64k", "ar": 44_100, "af": STEREO}),
    "opus 32 kb/s": (1.0, {"format": "ogg", "acodec": "libopus", "b:a": "32k", "af": STEREO}),
    "speed +2 %": (1.02, WAV),
    "speed -2 %": (0.98, WAV),
    "gain +6 dB": (1.0, {**WAV, "af": "volume=6dB"}),  # clips at full scale
    "gain -6 dB": (1.0, {**WAV, "af": "volume=-6dB"}),
    "bass +6 dB, treble -6 dB": (1.0, {**WAV, "af": "bass=g=6,treble=g=-6"}),
}


def apply(change: str, samples: npt.NDArray[np.int16], sample_rate: int) -> npt.NDArray[np.int16]:
    """Return samples after one of `CHANGES` [shape=(n,)], repeated or cut to the same number."""
    speed, options = CHANGES[change]
    is_wav = options["format"] == "wav"
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        path = Path(folder, f"changed.{options['format']}")
        encoding = {**options, "ar": sample_rate} if is_wav else options
        ffmpeg.encode(path, samples[:, np.newaxis], sample_rate=round(speed * sample_rate), **encoding)
        blocks = [chunks.read(path)[0]] if is_wav else list(ffmpeg.stream_pcm(path, sample_rate=sample_rate))
    return np.resize(np.concatenate(blocks), len(samples))


def inputs(
    paths: Sequence[Path], embedders: Sequence[Embedder], cache: Cache, workers: int | None = None
) -> dict[str, npt.NDArray[np.float32]]:
    """Return features and embeddings by name [shape=(n_chunks * n_changes, ...)] of chunk files, cached by content."""
    function = functools.partial(_inputs, embedders=embedders, cache=cache)
    parts = [files.read_npz(p) for p in run(function, paths, description="stress", workers=workers)]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def rows(
    model: str, probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], n_songs: int
) -> list[dict[str, str | float]]:
    """Return one row per change: model, change, n_songs, accuracy with its interval, loss in points.

    `probabilities` [shape=(n * n_changes, n_genres)] are those of `inputs`, `labels` [shape=(n,)] those of the chunks.
    """
    right = probabilities.argmax(axis=1).reshape(-1, len(CHANGES)) == labels[:, np.newaxis]
    table: list[dict[str, str | float]] = []
    for change, accuracy in zip(CHANGES, right.mean(axis=0).tolist(), strict=True):
        low, high = accuracy_interval(accuracy, n_songs)
        row = {"model": model, "change": change, "n_songs": n_songs, "accuracy": accuracy}
        loss = round(100 * (float(right[:, 0].mean()) - accuracy), 6)  # exactly 5 points are not more than 5
        table.append(row | {"accuracy_low": low, "accuracy_high": high, "loss_points": loss})
    return table


def _inputs(path: Path, embedders: Sequence[Embedder], cache: Cache) -> bytes:
    """Return the arrays of one chunk in NumPy's npz format."""
    described = [CHANGES, ffmpeg.version(), [t.vamp_id for t in TRANSFORMS.values()], [e.describe() for e in embedders]]
    key = files.digest("stress", hashlib.sha256(archives.read_bytes(path)).hexdigest(), described)
    if (kept := cache.recall(key)) is None:
        samples, rate = chunks.read(path)
        pieces = [apply(change, samples, rate) for change in CHANGES]
        features = [compute(piece, rate) for piece in pieces]
        arrays = {name: [of_piece[name] for of_piece in features] for name in TRANSFORMS}
        arrays |= {embedder.name: [embedder.of_audio(piece, rate) for piece in pieces] for embedder in embedders}
        kept = cache.keep(key, files.npz(**arrays))
    return kept
