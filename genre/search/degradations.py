"""The ways in which the world spoils a recording: noise, other music, bands, rooms, codecs and other speeds.

The conditions are what `identify` is measured under; their parts, at random strengths, are what the fingerprint
network is trained against.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre.audio import chunks, ffmpeg
from genre.errors import AudioError

SAMPLE_RATE = 22_050  # Hz of the snippets
TELEPHONE_HZ = (300.0, 3400.0)
ROOM_S = 0.4  # reverberation time

Signal = npt.NDArray[np.float32]  # mono, shape (n,); full scale is 1.0
Generator = np.random.Generator


@dataclass(frozen=True, slots=True)
class Condition:
    """A way to spoil a snippet."""

    name: str
    apply: Callable[[Signal, Signal, Generator], Signal]  # to the snippet, with a piece of another song
    speed: float = 1.0
    codec: tuple[str, ...] = ("-f", "wav")  # how ffmpeg writes the file

    @property
    def of_music(self) -> bool:
        """Whether another song is heard in the snippet."""
        return self.name.startswith("music")


def pink_noise(n_samples: int, rng: Generator) -> Signal:
    """Return noise whose power falls with frequency [shape=(n_samples,)]."""
    spectrum = np.fft.rfft(rng.standard_normal(n_samples))
    pink = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), n_samples)
    return np.asarray(pink, np.float32)


def mix(signal: Signal, noise: Signal, snr_db: float) -> Signal:
    """Return a signal with noise of the same length, at this ratio of their powers."""
    power = float(np.mean(signal**2) / (np.mean(noise**2) + 1e-12))
    return signal + np.float32(np.sqrt(power) * 10 ** (-snr_db / 20)) * noise


def band_pass(signal: Signal, low_hz: float, high_hz: float, sample_rate: int) -> Signal:
    """Return what a Butterworth band-pass of the fourth order leaves."""
    from scipy.signal import butter, sosfilt

    band: Signal = sosfilt(butter(4, (low_hz, high_hz), "bandpass", fs=sample_rate, output="sos"), signal)
    return band.astype(np.float32)


def in_room(signal: Signal, seconds: float, sample_rate: int, rng: Generator) -> Signal:
    """Return a signal as heard in a room of this reverberation time; direct and reverberated sound are equally loud."""
    from scipy.signal import oaconvolve

    n = round(seconds * sample_rate)
    response = rng.standard_normal(n) * 10.0 ** (-3 * np.arange(n) / n)
    response /= np.sqrt(np.sum(response**2))
    response[0] = 1.0
    echoed: Signal = oaconvolve(signal, response)[: len(signal)].astype(np.float32)
    return echoed


def played(signal: Signal, speed: float) -> Signal:
    """Return a signal at another speed, as a turntable or a tape changes it: 1.02 is 2 % faster and higher."""
    from scipy.signal import resample_poly

    resampled: Signal = signal if speed == 1.0 else resample_poly(signal, 1000, round(1000 * speed)).astype(np.float32)
    return resampled


def write_snippet(path: Path, snippet: Signal, codec: tuple[str, ...]) -> None:
    """Write a snippet as `Condition.codec` says, scaled down where it is louder than full scale.

    Raises
    ------
    AudioError
        If ffmpeg cannot write it: its build may lack the codec.
    """
    loudest = max(1.0, float(np.abs(snippet).max()))
    samples: npt.NDArray[np.int16] = np.rint(snippet / loudest * 32767).astype(np.int16)
    wav = path.with_suffix(".wav")
    chunks.write(wav, samples, sample_rate=SAMPLE_RATE)
    command = [ffmpeg.executable(), "-v", "error", "-y", "-i", str(wav), *codec, str(path)]
    try:
        subprocess.run(command, check=True, stdin=subprocess.DEVNULL, capture_output=True)
    except subprocess.CalledProcessError as error:
        reason = error.stderr.decode(errors="replace").strip().splitlines()
        raise AudioError(f"ffmpeg cannot write {' '.join(codec)}: {reason[-1] if reason else error}") from error


def _as_it_is(signal: Signal, _other: Signal, _rng: Generator) -> Signal:
    return signal


def _with_pink(snr_db: float) -> Callable[[Signal, Signal, Generator], Signal]:
    return lambda signal, _, rng: mix(signal, pink_noise(len(signal), rng), snr_db)


def _with_music(snr_db: float) -> Callable[[Signal, Signal, Generator], Signal]:
    return lambda signal, other, _: mix(signal, other, snr_db)


def _telephone(signal: Signal, _other: Signal, _rng: Generator) -> Signal:
    return band_pass(signal, *TELEPHONE_HZ, SAMPLE_RATE)


def _room(signal: Signal, _other: Signal, rng: Generator) -> Signal:
    return in_room(signal, ROOM_S, SAMPLE_RATE, rng)


CONDITIONS = [
    Condition("clean", _as_it_is),
    Condition("mp3 64 kb/s", _as_it_is, codec=("-c:a", "libmp3lame", "-b:a", "64k", "-f", "mp3")),
    Condition("opus 32 kb/s", _as_it_is, codec=("-c:a", "libopus", "-b:a", "32k", "-f", "ogg")),
    Condition("telephone", _telephone),
    Condition("room", _room),
    *(Condition(f"pink {db} dB", _with_pink(db)) for db in (10, 5, 0, -5)),
    *(Condition(f"music {db} dB", _with_music(db)) for db in (10, 5, 0, -5)),
    *(Condition(f"speed {change:+g} %", _as_it_is, speed=1 + change / 100) for change in (2, -2, 1.5, -1.5, 3, -3)),
]
BEYOND = ["pink -5 dB", "music -5 dB", "speed +1.5 %", "speed -1.5 %", "speed +3 %", "speed -3 %"]
