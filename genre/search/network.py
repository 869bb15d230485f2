"""The fingerprint network: a window of 1 to 2 s of a recording to a vector of unit length, through ONNX Runtime.

Two windows of the same music, however spoiled, have vectors that are near each other (Chang et al., "Neural audio
fingerprint for high-specific audio retrieval based on contrastive learning", ICASSP 2021). The front end is a
logarithmic mel spectrogram of the band that a telephone passes.
"""

from __future__ import annotations

import functools
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import ModelError, SearchError
from genre.features import mel
from genre.models import cards, runtime
from genre.search import songs

VERSION = 1  # raised with every change of the front end
SAMPLE_RATE = 8000  # Hz
N_FFT = 1024  # samples, 128 ms
HOP = 250  # samples
FRAMES_PER_S = SAMPLE_RATE // HOP
N_MELS = 128
LOWEST_HZ = 250.0
RANGE = 6.0  # powers of ten of the power below the loudest point: silence
SILENCE = 1e-9  # power that no point is below
BATCH = 256  # windows at once

FRONT_END = {
    "version": VERSION,
    "sample_rate": SAMPLE_RATE,
    "n_fft": N_FFT,
    "hop": HOP,
    "n_mels": N_MELS,
    "lowest_hz": LOWEST_HZ,
    "range": RANGE,
    "silence": SILENCE,
}
MODEL = "fingerprint"  # name of its files
MAKE = "`dvc repro identify/dvc.yaml:fingerprint`"

Floats = npt.NDArray[np.float32]

load = functools.partial(songs.load, sample_rate=SAMPLE_RATE)


@dataclass(frozen=True, slots=True)
class Card:
    """What a user of the network must know."""

    front_end: dict[str, Any]
    window_frames: int
    hop_frames: int  # between the windows of an indexed song
    dimension: int
    background: float  # similarity that one in ten pairs of windows of different songs exceeds
    dataset: dict[str, Any]  # name, and the songs trained on by SHA-256
    training: dict[str, Any]  # the parameters
    versions: dict[str, str]
    onnx_sha256: str

    @property
    def fingerprint(self) -> str:
        """Return a digest of everything that changes a vector or where it lies."""
        return files.digest(self.front_end, self.window_frames, self.hop_frames, self.onnx_sha256)


def columns(samples: Floats) -> Floats:
    """Return the logarithmic mel spectrogram of a recording [shape=(frames, N_MELS)]; frame i begins at sample i * HOP.

    Parameters
    ----------
    samples : npt.NDArray[np.float32] [shape=(n,)]
        Mono at `SAMPLE_RATE`.
    """
    from scipy import fft

    window, filters = _analysis()
    signal = np.pad(samples, (0, max(0, N_FFT - len(samples))))
    frames = np.lib.stride_tricks.sliding_window_view(signal, N_FFT)[::HOP]
    parts = []
    for i in range(0, len(frames), BATCH):
        spectrum = fft.rfft(frames[i : i + BATCH] * window, axis=1)
        parts.append((spectrum.real**2 + spectrum.imag**2) @ filters)
    levels = np.log10(np.maximum(np.concatenate(parts), np.float32(SILENCE)))
    found: Floats = np.maximum(levels, levels.max() - np.float32(RANGE))
    return found


class Network:
    """The network with its card, ready to embed."""

    def __init__(self, onnx: bytes, its_card: Card) -> None:
        """Take an ONNX file and its card.

        Raises
        ------
        SearchError
            If the file is damaged, or this version's front end is another than it was trained with.
        """
        for key, value in FRONT_END.items():
            if its_card.front_end.get(key) != value:
                raise SearchError(
                    f"the fingerprint network was trained with {key} {its_card.front_end.get(key)},"
                    f" this version takes {value}: train it again with {MAKE}"
                )
        self.card = its_card
        try:
            self._session = runtime.session(onnx)
        except ModelError as error:
            raise SearchError(f"the fingerprint network cannot be loaded ({error}): run {MAKE}") from error

    @classmethod
    def load(cls, root: Path = Path()) -> Network:
        """Load the network that the stage `fingerprint` trained.

        Raises
        ------
        SearchError
            If its card or its ONNX file is missing or damaged, or they do not belong together.
        """
        paths = cards.model_files(MODEL, root)
        try:
            its_card = Card(**files.read_json(paths.card))
            sizes = (its_card.window_frames, its_card.hop_frames, its_card.dimension)
            if not isinstance(its_card.front_end, dict) or not all(type(n) is int and 0 < n < 10_000 for n in sizes):
                raise ValueError("front_end, window_frames, hop_frames or dimension")
            if not isinstance(its_card.background, float):
                raise TypeError("background")
            onnx = paths.onnx.read_bytes()
            digest = files.sha256(paths.onnx)
        except FileNotFoundError as error:
            raise SearchError(f"{error.filename} is not there: {MAKE} trains the fingerprint network") from None
        except (OSError, ValueError, TypeError) as error:
            raise SearchError(f"{paths.card} is damaged ({error}): run {MAKE}") from error
        if digest != its_card.onnx_sha256:
            raise SearchError(f"{paths.onnx} is not the file that {paths.card} describes: run `dvc checkout` or {MAKE}")
        return cls(onnx, its_card)

    def embed(self, samples: Floats, *, hop_frames: int | None = None) -> Floats:
        """Return the vectors of a recording's windows [shape=(windows, dimension)].

        Parameters
        ----------
        samples : npt.NDArray[np.float32] [shape=(n,)]
            Mono at `SAMPLE_RATE`. What is shorter than a window is filled up with silence.
        hop_frames : int or None
            Between two windows; None: as songs are indexed.
        """
        spectrogram = columns(samples)
        missing = max(0, self.card.window_frames - len(spectrogram))
        padded = np.pad(spectrogram, ((0, missing), (0, 0)), constant_values=spectrogram.min())
        hop = hop_frames or self.card.hop_frames
        views = np.lib.stride_tricks.sliding_window_view(padded, self.card.window_frames, axis=0)[::hop]
        windows = views.transpose(0, 2, 1)
        parts = [
            self._session.run(None, {"columns": np.ascontiguousarray(windows[i : i + BATCH])})[0]
            for i in range(0, len(windows), BATCH)
        ]
        return np.concatenate(parts)

    def seconds(self, number: int) -> float:
        """Return where a song's window of this number begins, in seconds."""
        return number * self.card.hop_frames / FRAMES_PER_S


def write(onnx: bytes, its_card: Card, root: Path = Path()) -> None:
    """Write the network's ONNX file and its card."""
    paths = cards.model_files(MODEL, root)
    files.write_bytes(paths.onnx, onnx)
    files.write_json(paths.card, asdict(its_card))


@functools.lru_cache(maxsize=1)
def _analysis() -> tuple[Floats, Floats]:
    """Return the window and the mel filters."""
    window = np.hanning(N_FFT + 1)[:-1].astype(np.float32)
    return window, mel.filters(SAMPLE_RATE, N_FFT, N_MELS, LOWEST_HZ).astype(np.float32)
