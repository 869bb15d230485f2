"""Degradations of snippets, to measure identification: noise, other music, rooms, codecs, other speeds and pitches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre.audio import ffmpeg

SAMPLE_RATE = 22_050  # Hz
TELEPHONE_HZ = (300.0, 3400.0)
ROOM_S = 0.4  # reverberation time

Signal = npt.NDArray[np.float32]  # mono, shape (n,); full scale is 1.0
Generator = np.random.Generator


def _unchanged(signal: Signal, _noise: Signal, _rng: Generator) -> Signal:
    return signal


@dataclass(frozen=True, slots=True)
class Condition:
    """A degradation of a snippet."""

    name: str
    apply: Callable[[Signal, Signal, Generator], Signal] = _unchanged  # of the snippet and as long a piece of music
    speed: float = 1.0  # of tempo and pitch
    tempo: float = 1.0  # alone, after `speed`
    codec: Mapping[str, str] = field(default_factory=lambda: {"format": "wav"})

    @property
    def options(self) -> dict[str, str]:
        """Return the options of ffmpeg."""
        return {**self.codec, "af": f"atempo={self.tempo}"} if self.tempo != 1 else dict(self.codec)

    @property
    def with_music(self) -> bool:
        """Return whether other music is mixed in."""
        return self.name.startswith("music") or self.is_crossfade

    @property
    def is_crossfade(self) -> bool:
        """Return whether a snippet fades from one indexed song into another."""
        return self.name == "crossfade"


def mix(signal: Signal, noise: Signal, snr_db: float) -> Signal:
    """Return a signal plus noise of the same length, at a signal-to-noise ratio in dB."""
    power = float(np.mean(signal**2) / (np.mean(noise**2) + 1e-12))
    return signal + np.float32(np.sqrt(power) * 10 ** (-snr_db / 20)) * noise


def pink_noise(n_samples: int, rng: Generator) -> Signal:
    """Return noise whose power is inversely proportional to frequency [shape=(n_samples,)]."""
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), n_samples)
    return np.asarray(pink, np.float32)


def telephone(signal: Signal, _noise: Signal, _rng: Generator) -> Signal:
    """Return a signal after a Butterworth band-pass of fourth order."""
    from scipy.signal import butter, sosfilt

    filtered: Signal = sosfilt(butter(4, TELEPHONE_HZ, "bandpass", fs=SAMPLE_RATE, output="sos"), signal)
    return filtered.astype(np.float32)


def room(signal: Signal, _noise: Signal, rng: Generator) -> Signal:
    """Return a signal with reverberation as loud as the direct sound."""
    from scipy.signal import oaconvolve

    n = round(ROOM_S * SAMPLE_RATE)
    response = rng.standard_normal(n) * 10.0 ** (-3 * np.arange(n) / n)
    response /= np.sqrt(np.sum(response**2))
    response[0] = 1.0
    convolved: Signal = oaconvolve(signal, response)[: len(signal)].astype(np.float32)
    return convolved


def change_speed(signal: Signal, speed: float) -> Signal:
    """Return a signal at another playing speed; 1.02 is 2 % faster and higher."""
    from scipy.signal import resample_poly

    resampled: Signal = signal if speed == 1.0 else resample_poly(signal, 1000, round(1000 * speed)).astype(np.float32)
    return resampled


def crossfade(signal: Signal, other: Signal, _rng: Generator) -> Signal:
    """Return a signal, then another of the same length; in the middle third both, at constant power."""
    angle = np.pi / 2 * np.clip(np.linspace(-1, 2, len(signal), dtype=np.float32), 0, 1)
    mixed: Signal = np.cos(angle) * signal + np.sin(angle) * other
    return mixed


def write_snippet(path: Path, snippet: Signal, options: Mapping[str, str]) -> None:
    """Write a snippet with options of `Condition`, scaled down if it is louder than full scale; raise AudioError."""
    peak = max(1.0, float(np.abs(snippet).max()))
    samples: npt.NDArray[np.int16] = np.rint(snippet / peak * 32767).astype(np.int16)
    ffmpeg.encode(path, samples[:, np.newaxis], sample_rate=SAMPLE_RATE, **options)


def _pink(snr_db: float) -> Callable[[Signal, Signal, Generator], Signal]:
    return lambda signal, _noise, rng: mix(signal, pink_noise(len(signal), rng), snr_db)


def _music(snr_db: float) -> Callable[[Signal, Signal, Generator], Signal]:
    return lambda signal, noise, _rng: mix(signal, noise, snr_db)


CONDITIONS = [
    Condition("clean"),
    Condition("mp3 64 kb/s", codec={"format": "mp3", "acodec": "libmp3lame", "audio_bitrate": "64k"}),
    Condition("opus 32 kb/s", codec={"format": "ogg", "acodec": "libopus", "audio_bitrate": "32k"}),
    Condition("telephone", telephone),
    Condition("room", room),
    *(Condition(f"pink {snr_db} dB", _pink(snr_db)) for snr_db in (10, 5, 0)),
    *(Condition(f"music {snr_db} dB", _music(snr_db)) for snr_db in (10, 5, 0)),
    *(Condition(f"speed {change:+g} %", speed=1 + change / 100) for change in (2, -2, 5, -5, 7, -7)),
    *(Condition(f"tempo {change:+g} %", tempo=1 + change / 100) for change in (5, -5)),
    *(Condition(f"pitch {n:+d} semitone", speed=2 ** (n / 12), tempo=2 ** (-n / 12)) for n in (1, -1)),
    Condition("crossfade", crossfade),
]
