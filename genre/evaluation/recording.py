"""Whether scores come from the recordings and not from the music (Sturm 2014, doi:10.1109/TMM.2014.2330697).

A baseline that sees only level, peak, bandwidth, duration and bit rate of a song, and a stress test: the middle chunk
of each song re-encoded, at another speed or level, or equalised.
"""

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
from genre.audio.manifest import Row
from genre.cache import Cache
from genre.evaluation.metrics import accuracy_interval
from genre.features.numpy_engine import compute
from genre.features.transforms import TRANSFORMS, hann
from genre.models.calibration import Probabilities, Rows
from genre.models.embeddings import Embedder
from genre.paths import Paths

RECORDING = "recording"  # name of the baseline among the models
BAND_RATIO = 1e-6  # -60 dB, relative to the strongest bin of the spectrum; what is above is in the band
FRAME = 2048  # samples
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


def properties(rows: Sequence[Row], paths: Paths) -> npt.NDArray[np.float64]:
    """Return the properties of each chunk's song [shape=(n_chunks, 5)]; the bit rate of a missing file is 0.

    Level and peak are fractions of full scale, the others in Hz, s and bytes/s. Raises AudioError for a damaged chunk.
    """
    import pandas as pd

    table = []
    for row in rows:
        samples, rate = chunks.read(paths.chunks / row.chunk)
        signal = samples / 32768
        table.append((np.sqrt(np.mean(signal**2)), np.abs(signal).max(), _bandwidth_hz(signal, rate), row.seconds))
    songs = [row.song_id for row in rows]
    by_song = pd.DataFrame(table).groupby(songs).agg({0: "mean", 1: "max", 2: "max", 3: "sum"})
    values = by_song.loc[songs].to_numpy()
    n_bytes = [path.stat().st_size if (path := paths.root / row.source).is_file() else 0 for row in rows]
    return np.column_stack([values, n_bytes / values[:, 3]])


def predict(values: npt.NDArray[np.float64], rows: Sequence[Row], train: Rows, test: Rows) -> Probabilities:
    """Return genre probabilities of the chunks `test` [shape=(n, n_genres)], by a forest of a row per training song.

    `values` are the properties of `rows`; `train` and `test` are positions of chunks.
    """
    from sklearn.ensemble import RandomForestClassifier

    genres, labels = np.unique([row.genre for row in rows], return_inverse=True)
    firsts = train[np.unique([rows[position].song_id for position in train], return_index=True)[1]]
    forest = RandomForestClassifier(min_samples_leaf=2, random_state=0).fit(values[firsts], labels[firsts])
    probabilities = np.zeros((len(test), len(genres)), np.float32)
    probabilities[:, forest.classes_] = forest.predict_proba(values[test])
    return probabilities


def changed(change: str, samples: npt.NDArray[np.int16], sample_rate: int) -> npt.NDArray[np.int16]:
    """Return samples after one of `CHANGES` [shape=(n,)], repeated or cut to the same number."""
    speed, options = CHANGES[change]
    is_wav = options["format"] == "wav"
    with tempfile.TemporaryDirectory(prefix="stress-") as folder:
        path = Path(folder, f"changed.{options['format']}")
        encoding = {**options, "ar": sample_rate} if is_wav else options
        ffmpeg.encode(path, samples[:, np.newaxis], sample_rate=round(speed * sample_rate), **encoding)
        blocks = [chunks.read(path)[0]] if is_wav else list(ffmpeg.stream_pcm(path, sample_rate=sample_rate))
    return np.resize(np.concatenate(blocks), len(samples))


def changed_inputs(
    paths: Sequence[Path], embedders: Sequence[Embedder], cache: Cache, workers: int | None
) -> dict[str, npt.NDArray[np.float32]]:
    """Return features and embeddings by name [shape=(n_chunks * n_changes, ...)] of chunk files, cached by content."""
    described = [CHANGES, ffmpeg.version(), [t.vamp_id for t in TRANSFORMS.values()], [e.describe() for e in embedders]]
    digests = [hashlib.sha256(archives.read_bytes(path)).hexdigest() for path in paths]
    items = [(files.digest("stress", digest, described), path) for digest, path in zip(digests, paths, strict=True)]
    computed = cache.run(functools.partial(_inputs, embedders), items, description="stress", workers=workers)
    parts = [files.read_npz(data) for data in computed]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def stress_rows(model: str, probabilities: Probabilities, labels: Rows, n_songs: int) -> list[dict[str, str | float]]:
    """Return one row per change: model, change, n_songs, accuracy with its interval, loss in points.

    `probabilities` [shape=(n * n_changes, n_genres)] are those of `changed_inputs`, `labels` [shape=(n,)] those of the
    chunks.
    """
    right = probabilities.argmax(axis=1).reshape(-1, len(CHANGES)) == labels[:, np.newaxis]
    table: list[dict[str, str | float]] = []
    for change, accuracy in zip(CHANGES, right.mean(axis=0).tolist(), strict=True):
        low, high = accuracy_interval(accuracy, n_songs)
        row = {"model": model, "change": change, "n_songs": n_songs, "accuracy": accuracy}
        loss = round(100 * (float(right[:, 0].mean()) - accuracy), 6)  # exactly 5 points are not more than 5
        table.append(row | {"accuracy_low": low, "accuracy_high": high, "loss_points": loss})
    return table


def _bandwidth_hz(signal: npt.NDArray[np.float64], rate: int) -> float:
    """Return the highest frequency in the band, by Welch's method as in scipy.signal, at half its time."""
    frames = np.lib.stride_tricks.sliding_window_view(signal, FRAME)[:: FRAME // 2]
    spectra = np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * hann(FRAME))
    power = (spectra.real**2 + spectra.imag**2).mean(axis=0)
    power[1:-1] *= 2  # of the positive and the negative frequency
    frequencies_hz = np.fft.rfftfreq(FRAME, 1 / rate)
    return float(frequencies_hz[power > BAND_RATIO * power.max()].max(initial=0.0))


def _inputs(embedders: Sequence[Embedder], path: Path) -> bytes:
    """Return the arrays of one chunk in NumPy's npz format."""
    samples, rate = chunks.read(path)
    pieces = [changed(change, samples, rate) for change in CHANGES]
    features = [compute(piece, rate) for piece in pieces]
    arrays = {name: [of_piece[name] for of_piece in features] for name in TRANSFORMS}
    arrays |= {embedder.name: [embedder.of_audio(piece, rate) for piece in pieces] for embedder in embedders}
    return files.npz(**arrays)
