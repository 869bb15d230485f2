"""A baseline that sees only level, peak, bandwidth, duration and bit rate of a song.

A model that is hardly better may know the recordings and not the music (Sturm 2014, doi:10.1109/TMM.2014.2330697).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from genre.audio import chunks
from genre.audio.manifest import Row
from genre.features.transforms import hann
from genre.paths import Paths

RECORDING = "recording"  # its name among the models
BAND_RATIO = 1e-6  # -60 dB, relative to the strongest bin of the spectrum; what is above is in the band
FRAME = 2048  # samples

Rows = npt.NDArray[np.int64]


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


def _bandwidth_hz(signal: npt.NDArray[np.float64], rate: int) -> float:
    """Return the highest frequency in the band, by Welch's method as in scipy.signal, at half its time."""
    frames = np.lib.stride_tricks.sliding_window_view(signal, FRAME)[:: FRAME // 2]
    spectra = np.fft.rfft((frames - frames.mean(axis=1, keepdims=True)) * hann(FRAME))
    power = (spectra.real**2 + spectra.imag**2).mean(axis=0)
    power[1:-1] *= 2  # of the positive and the negative frequency
    frequencies_hz = np.fft.rfftfreq(FRAME, 1 / rate)
    return float(frequencies_hz[power > BAND_RATIO * power.max()].max(initial=0.0))


def predict(
    values: npt.NDArray[np.float64], labels: Rows, songs: Sequence[str], train: Rows, test: Rows
) -> npt.NDArray[np.float32]:
    """Return genre probabilities of the rows `test` [shape=(n, n_genres)], by a forest of a row per training song."""
    from sklearn.ensemble import RandomForestClassifier

    rows = train[np.unique([songs[row] for row in train], return_index=True)[1]]
    forest = RandomForestClassifier(min_samples_leaf=2, random_state=0).fit(values[rows], labels[rows])
    probabilities = np.zeros((len(test), int(labels.max()) + 1), np.float32)
    probabilities[:, forest.classes_] = forest.predict_proba(values[test])
    return probabilities
