"""Synthesiser of the demo songs: plucked, wavetable, FM and drum voices, room reverberation and recording noise.

Plucked strings: Karplus and Strong, "Digital Synthesis of Plucked-String and Drum Timbres" (Computer Music Journal
7(2), 1983). FM: Chowning, "The Synthesis of Complex Audio Spectra by Means of Frequency Modulation" (JAES 21(7), 1973).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
import yaml

Signal = npt.NDArray[np.float32]

TABLE_SAMPLES: Final = 4096  # one period of a wavetable
MAX_HARMONICS: Final = 64
PEAK: Final = 0.97  # highest level, as a fraction of full scale
FADE_OUT_S: Final = 2.5
MAINS_HZ: Final = 50


class Voice(NamedTuple):
    """The timbre of an instrument."""

    kind: str  # a key of _SOUNDS
    bright: float  # 0 dull .. 1 bright
    attack_s: float  # from silence to full level
    decay_s: float  # time constant of the decay
    release_s: float  # time to fade after the note's end
    color: float  # wave: share of odd harmonics; fm: frequency ratio; drums: share of noise
    spread: float  # cents; vibrato and detuning


class Note(NamedTuple):
    """A note or drum hit."""

    start_s: float
    seconds: float
    pitch: int  # MIDI number; 69 is 440 Hz
    level: float  # 0 .. 1


class Track(NamedTuple):
    """The part of an instrument."""

    voice: Voice
    gain: float
    pan: float  # -1 left .. 1 right
    notes: Sequence[Note]


class Recording(NamedTuple):
    """The duration, the room and the recording equipment."""

    seconds: float
    sample_rate: int  # Hz
    channels: int  # 1 or 2
    rms_db: float  # loudness, dB of full scale
    reverb_s: float  # time to fall by 60 dB
    reverb_level: float  # energy of the reverberation, as a fraction of the direct sound's
    low_cut_hz: float
    high_cut_hz: float
    tilt_db: float  # treble relative to bass
    hiss_db: float  # background noise, dB of the music's RMS
    hum_db: float  # mains hum, dB of the music's RMS
    crackles_per_s: float  # clicks, as of a worn record


_INSTRUMENTS: Final = yaml.safe_load(Path(__file__).with_name("instruments.yaml").read_text(encoding="utf-8"))


def draw_voice(name: str, rng: np.random.Generator) -> Voice:
    """Return a voice of an instrument, with every property drawn from its range."""
    kind, ranges = _INSTRUMENTS[name]
    return Voice(kind, *(rng.uniform(*range_) for range_ in ranges))


def render(tracks: Iterable[Track], recording: Recording, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Return a song as PCM [shape=(n, channels)]; equal states of `rng` give equal samples."""
    n_samples = round(recording.seconds * recording.sample_rate)
    mix = np.zeros((recording.channels, n_samples), np.float32)
    for track in tracks:
        _play(track, mix, recording.sample_rate, rng)
    return _master(_reverberated(mix, recording, rng), recording, rng)


def _play(track: Track, mix: Signal, sample_rate: int, rng: np.random.Generator) -> None:
    """Add a track to `mix` [shape=(channels, n)]; notes of equal pitch and length have equal samples."""
    angle = (track.pan + 1) * np.pi / 4
    gains = np.array([np.cos(angle), np.sin(angle)] if len(mix) == 2 else [1.0], np.float32) * track.gain
    sounds: dict[tuple[int, int], Signal] = {}
    for note in track.notes:
        key = (note.pitch, round(note.seconds * 50))
        if key not in sounds:
            sounds[key] = _sound(track.voice, note, sample_rate, rng)
        start = max(0, round(note.start_s * sample_rate))
        part = sounds[key][: max(0, mix.shape[1] - start)]
        mix[:, start : start + len(part)] += np.outer(gains * np.float32(note.level), part)


def _sound(voice: Voice, note: Note, sample_rate: int, rng: np.random.Generator) -> Signal:
    """Return the samples of one note [shape=(n,)] at unit peak, including its release."""
    hz = 440.0 * 2.0 ** ((note.pitch - 69) / 12)
    t = np.arange(round((note.seconds + voice.release_s) * sample_rate)) / sample_rate
    envelope = np.minimum(t / voice.attack_s, 1.0) * np.exp(-t / voice.decay_s)
    envelope *= np.clip((note.seconds + voice.release_s - t) / voice.release_s, 0.0, 1.0) ** 2
    sound = _SOUNDS[voice.kind](voice, hz, t, rng) * envelope
    return np.asarray(sound / (np.abs(sound).max() + 1e-9), np.float32)


def _pluck(voice: Voice, hz: float, t: npt.NDArray[np.float64], rng: np.random.Generator) -> Signal:
    """Return a plucked string (Karplus-Strong): a noise burst, low-pass filtered in every period."""
    period = max(2, round(1 / (hz * t[1])))
    burst = rng.uniform(-1, 1, period)
    smooth = 1 + round((1 - voice.bright) * 8)
    burst = np.convolve(np.concatenate([burst, burst]), np.ones(smooth) / smooth)[period : 2 * period]
    blend = 0.05 + 0.45 * (1 - voice.bright)
    periods = np.empty((int(hz * t[-1]) + 3, period))
    for row in periods:
        row[:] = burst
        burst = (1 - blend) * burst + blend * np.roll(burst, 1)
    # a period is a whole number of samples: interpolation corrects the pitch
    return np.asarray(np.interp(t * hz * period, np.arange(periods.size), periods.ravel()), np.float32)


def _wave(voice: Voice, hz: float, t: npt.NDArray[np.float64], rng: np.random.Generator) -> Signal:
    """Return two detuned wavetables with delayed vibrato; higher harmonics decay faster."""
    n_harmonics = int(np.clip(0.45 / (hz * t[1]), 1, MAX_HARMONICS))
    harmonics = np.arange(1, n_harmonics + 1)
    amplitudes = harmonics ** -(3.0 - 2.0 * voice.bright)
    amplitudes *= np.where(harmonics % 2, voice.color, 1 - voice.color)
    rich = _table(amplitudes)
    dull = _table(amplitudes * np.exp(-0.25 * harmonics))
    cents = 2.0 ** (voice.spread / 1200) - 1
    vibrato = cents * np.minimum(t, 0.5) * np.sin(2 * np.pi * 5.5 * t) / (2 * np.pi * 5.5)
    richness = np.exp(-t / min(voice.decay_s, 2.0)).astype(np.float32)
    out = np.zeros(len(t), np.float32)
    for detune in (-cents / 2, cents / 2):
        phase = hz * ((1 + detune) * t + vibrato) + rng.random()
        index = (phase * TABLE_SAMPLES).astype(np.int64) % TABLE_SAMPLES
        out += dull[index] + richness * (rich[index] - dull[index])
    return out


def _table(amplitudes: npt.NDArray[np.floating]) -> Signal:
    spectrum = np.zeros(TABLE_SAMPLES // 2 + 1, np.complex128)
    spectrum[1 : len(amplitudes) + 1] = -1j * amplitudes
    table = np.fft.irfft(spectrum)
    return np.asarray(table / np.abs(table).max(), np.float32)


def _fm(voice: Voice, hz: float, t: npt.NDArray[np.float64], _rng: np.random.Generator) -> Signal:
    """Return a sine, phase-modulated by another one with a decaying index."""
    index = 6.0 * voice.bright * np.exp(-t * 2 / voice.decay_s)
    carrier = 2 * np.pi * hz * (1 + voice.spread / 1200) * t
    return np.sin(carrier + index * np.sin(2 * np.pi * hz * voice.color * t)).astype(np.float32)


def _kick(voice: Voice, hz: float, t: npt.NDArray[np.float64], rng: np.random.Generator) -> Signal:
    """Return a sine that sweeps down to `hz`, with a click."""
    sweep_s = 0.02 + 0.03 * voice.bright
    phase = hz * (t + 4 * voice.bright * sweep_s * (1 - np.exp(-t / sweep_s)))
    click = voice.color * rng.standard_normal(len(t)) * np.exp(-t / 0.004)
    return (np.sin(2 * np.pi * phase) + click).astype(np.float32)


def _snare(voice: Voice, hz: float, t: npt.NDArray[np.float64], rng: np.random.Generator) -> Signal:
    """Return noise mixed with a short tone."""
    noise = _noise(len(t), voice.bright, rng)
    tone = np.sin(2 * np.pi * hz * t) * np.exp(-t / (0.5 * voice.decay_s))
    return (voice.color * noise + (1 - voice.color) * tone).astype(np.float32)


def _hat(voice: Voice, _hz: float, t: npt.NDArray[np.float64], rng: np.random.Generator) -> Signal:
    """Return high-pass filtered noise."""
    return np.diff(_noise(len(t), voice.bright, rng), prepend=np.float32(0))


def _noise(n_samples: int, bright: float, rng: np.random.Generator) -> Signal:
    """Return white noise, low-pass filtered by a moving average."""
    width = 1 + round((1 - bright) * 6)
    noise = rng.standard_normal(n_samples + width - 1)
    return np.convolve(noise, np.ones(width) / np.sqrt(width), "valid").astype(np.float32)


_SOUNDS: Final = {"pluck": _pluck, "wave": _wave, "fm": _fm, "kick": _kick, "snare": _snare, "hat": _hat}


def _reverberated(mix: Signal, recording: Recording, rng: np.random.Generator) -> Signal:
    """Return `mix` convolved with an impulse response of room and equipment, one per channel."""
    tail = round(recording.reverb_s * recording.sample_rate)
    t = np.arange(tail) / recording.sample_rate
    response = rng.standard_normal((len(mix), tail)) * 10.0 ** (-3 * t / recording.reverb_s)
    response *= np.sqrt(recording.reverb_level / np.sum(response**2, axis=1, keepdims=True))
    response[:, 0] += 1.0
    length = tail + recording.sample_rate // 10  # 0.1 s for the filters of the equipment
    padded = 2 ** length.bit_length()
    spectrum = np.fft.rfft(response, padded) * _equipment(recording, padded)
    return _convolve(mix, np.fft.irfft(spectrum)[:, :length].astype(np.float32))


def _convolve(signal: Signal, response: Signal) -> Signal:
    """Return each channel convolved with its response by overlap-add, truncated to the length of `signal`."""
    n_samples, length = signal.shape[1], response.shape[1]
    size = 2 ** (2 * length).bit_length()
    step = size - length + 1
    spectrum = np.fft.rfft(response, size)
    out = np.zeros((len(signal), n_samples + size), np.float32)
    for start in range(0, n_samples, step):
        out[:, start : start + size] += np.fft.irfft(np.fft.rfft(signal[:, start : start + step], size) * spectrum)
    return out[:, :n_samples]


def _equipment(recording: Recording, n_samples: int) -> npt.NDArray[np.complex128]:
    """Return the frequency response of a low cut, a high cut (12 dB an octave each) and a treble shelf."""
    hz = np.fft.rfftfreq(n_samples, 1 / recording.sample_rate)
    low, high = 1j * hz / recording.low_cut_hz, 1j * hz / recording.high_cut_hz
    tilt = 10.0 ** (recording.tilt_db / 40)
    shelf = (1 + 1j * hz / 1000 * tilt) / (1 + 1j * hz / 1000 / tilt)
    response: npt.NDArray[np.complex128] = shelf * low**2 / (1 + 2**0.5 * low + low**2)
    return response / (1 + 2**0.5 * high + high**2)


def _master(music: Signal, recording: Recording, rng: np.random.Generator) -> npt.NDArray[np.int16]:
    """Return PCM [shape=(n, channels)]: background noise added, loudness set, peaks limited, faded out."""
    n_samples = music.shape[1]
    music /= np.sqrt(np.vdot(music, music) / music.size) + 1e-9
    music += _background(n_samples, recording, rng)
    music += rng.standard_normal(music.shape, np.float32) * np.float32(10 ** (recording.hiss_db / 20))
    music *= 10 ** (recording.rms_db / 20) / PEAK
    np.tanh(music, out=music)
    fade = round(FADE_OUT_S * recording.sample_rate)
    music[:, -fade:] *= np.linspace(1, 0, fade, dtype=np.float32)
    music *= PEAK * 32767
    return np.rint(music.T, order="C").astype(np.int16)


def _background(n_samples: int, recording: Recording, rng: np.random.Generator) -> Signal:
    """Return mains hum and crackle [shape=(n_samples,)], the same for all channels."""
    turn = 2 * np.pi * np.arange(recording.sample_rate // MAINS_HZ) * MAINS_HZ / recording.sample_rate
    period = np.sin(turn) + np.sin(2 * turn) / 2 + np.sin(3 * turn) / 3
    background = np.resize(period * 10 ** (recording.hum_db / 20), n_samples).astype(np.float32)
    n_crackles = rng.poisson(recording.crackles_per_s * n_samples / recording.sample_rate)
    clicks = rng.integers(0, n_samples - 1, n_crackles)
    heights = rng.exponential(1.0, n_crackles) * rng.choice([-1, 1], n_crackles)
    background[clicks] += heights
    background[clicks + 1] -= 0.5 * heights
    return background
