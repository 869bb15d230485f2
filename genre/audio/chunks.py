"""Cut songs into chunks, mono pieces of equal length; read and write chunks as wav files."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from genre import archives
from genre.audio.ffmpeg import pieces, stream_pcm
from genre.audio.process import warn
from genre.errors import AudioError
from genre.files import atomic_path

MIN_SOUND_S = 0.25  # the shortest excerpt whose genre listeners recognise (Gjerdingen and Perrott, 2008)
SILENCE_RMS = 10.4  # -70 dB, the level at or below which a block is silent (the absolute gate of EBU R 128)
BLOCK_S = 0.05  # length of the blocks whose level is measured
SILENT_MESSAGE = f"is silent, or has less than {MIN_SOUND_S:g} s of sound"
VERSION = 2  # part of the cache key: raise it when the samples of a chunk change


class Chunk(NamedTuple):
    """One piece of a song."""

    start_s: float  # position in the song
    seconds: float  # length before repetition
    samples: npt.NDArray[np.int16]  # shape (round(chunk_seconds * sample_rate),)
    is_silent: bool


def iterate(
    path: Path,
    *,
    sample_rate: int,
    chunk_seconds: float,
    min_seconds: float,
    start: float = 0.0,
    duration: float | None = None,
) -> Iterator[Chunk]:
    """Yield the chunks of a file of any format, with one chunk in memory at a time.

    A last piece shorter than `min_seconds` is dropped unless it is the only one; any other incomplete piece is repeated
    to fill a chunk.

    `sample_rate` is that of the chunks in Hz; `start` and `duration` select an excerpt, in seconds; `duration` None: to
    the end. Raises AudioError if the file cannot be decoded.
    """
    length = round(chunk_seconds * sample_rate)
    blocks = stream_pcm(path, sample_rate=sample_rate, start=start, duration=duration)
    for index, piece in enumerate(pieces(blocks, length)):
        if not index or len(piece) >= min(length, min_seconds * sample_rate):
            start_s = start + index * length / sample_rate
            yield Chunk(start_s, len(piece) / sample_rate, np.resize(piece, length), is_silent(piece, sample_rate))


def audible(chunks: Iterable[Chunk], path: Path) -> Iterator[Chunk]:
    """Yield the chunks of a file that are not silent, and warn about the others.

    Raises AudioError if all are silent.
    """
    silent: list[bool] = []
    for chunk in chunks:
        silent.append(chunk.is_silent)
        if not chunk.is_silent:
            yield chunk
    if silent and all(silent):
        raise AudioError(f"{path}: {SILENT_MESSAGE}")
    if any(silent):
        warn(path, f"{sum(silent)} of {len(silent)} chunks are silent and left out")


def is_silent(samples: npt.NDArray[np.int16], sample_rate: int) -> bool:
    """Return whether mono samples [shape=(n,)], without DC offset, exceed `SILENCE_RMS` for less than `MIN_SOUND_S`."""
    length = round(BLOCK_S * sample_rate)
    blocks = samples[: len(samples) // length * length].reshape(-1, length)
    return bool(np.count_nonzero(blocks.std(axis=1) > SILENCE_RMS) * BLOCK_S < MIN_SOUND_S)


def write(path: Path, samples: npt.NDArray[np.int16], *, sample_rate: int) -> None:
    """Write mono PCM 16 bit samples [shape=(n,)] as a wav file, atomically."""
    with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as stream:
        stream.setparams((1, 2, sample_rate, len(samples), "NONE", ""))
        stream.writeframes(np.ascontiguousarray(samples, dtype="<i2").data)


def read(path: Path) -> tuple[npt.NDArray[np.int16], int]:
    """Return the samples [shape=(n,)] and the sample rate in Hz of a mono PCM 16 bit wav file, in an archive or not.

    Raises AudioError if the file cannot be read or has another format, DatasetError if its archive is damaged.
    """
    try:
        with wave.open(io.BytesIO(archives.read_bytes(path))) as stream:
            if (stream.getnchannels(), stream.getsampwidth()) != (1, 2):
                raise AudioError(f"{path}: is not mono PCM 16 bit")
            data = stream.readframes(stream.getnframes())
            return np.frombuffer(data[: len(data) // 2 * 2], dtype="<i2"), stream.getframerate()  # may be cut
    except (OSError, EOFError, RuntimeError, wave.Error) as error:
        reason = str(error) or "a chunk is longer than the file"  # wave's RuntimeError has no message
        raise AudioError(f"{path}: cannot be read as a wav file ({reason})") from error
