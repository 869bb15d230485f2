"""Chunks: fixed-length mono pieces of a song, the unit that everything after the split works on."""

from __future__ import annotations

import wave
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre.audio.ffmpeg import stream_pcm
from genre.errors import AudioError
from genre.files import atomic_path

VERSION = 1  # raised with every change of what a chunk holds


@dataclass(frozen=True, slots=True)
class Chunk:
    """One piece of a song."""

    start_s: float  # where it starts in the song
    seconds: float  # seconds of it that come from the song; the rest is repeated to fill the chunk
    samples: npt.NDArray[np.int16]  # shape (round(chunk_seconds * sample_rate),)


def iterate(
    path: Path,
    *,
    sample_rate: int,
    chunk_seconds: float,
    min_seconds: float,
    start: float = 0.0,
    duration: float | None = None,
) -> Iterator[Chunk]:
    """Cut a file of any format into chunks of equal length, in memory bounded by one chunk.

    A last piece of at least `min_seconds` is repeated until it fills a chunk; a shorter one is dropped, unless it is
    the only one.

    Parameters
    ----------
    path : Path
        An audio file that ffmpeg reads.
    sample_rate : int
        Hz of the chunks.
    chunk_seconds, min_seconds : float
        Length of a chunk, and the shortest last piece that is kept.
    start, duration : float
        The part of the file to cut, in seconds.

    Raises
    ------
    AudioError
        If the file cannot be decoded.
    """
    length = round(chunk_seconds * sample_rate)
    buffer = np.empty(length, dtype=np.int16)
    filled = index = 0
    for block in stream_pcm(path, sample_rate=sample_rate, start=start, duration=duration):
        while len(block):
            taken = min(length - filled, len(block))
            buffer[filled : filled + taken] = block[:taken]
            filled += taken
            block = block[taken:]
            if filled == length:
                yield Chunk(start + index * length / sample_rate, length / sample_rate, buffer.copy())
                index += 1
                filled = 0
    if filled and (not index or filled >= min_seconds * sample_rate):
        piece = np.resize(buffer[:filled], length)  # np.resize repeats
        yield Chunk(start + index * length / sample_rate, filled / sample_rate, piece)


def write(path: Path, samples: npt.NDArray[np.int16], *, sample_rate: int) -> None:
    """Write mono PCM 16 bit samples as a wav file, atomically."""
    with atomic_path(path) as temporary, wave.open(str(temporary), "wb") as stream:
        stream.setparams((1, 2, sample_rate, len(samples), "NONE", ""))
        stream.writeframes(np.ascontiguousarray(samples, dtype="<i2").data)


def read(path: Path) -> tuple[npt.NDArray[np.int16], int]:
    """Read a mono PCM 16 bit wav file; return samples [shape=(n,)] and sample rate in Hz.

    Raises
    ------
    AudioError
        If the file is something else.
    """
    try:
        with wave.open(str(path), "rb") as stream:
            if (stream.getnchannels(), stream.getsampwidth()) != (1, 2):
                raise AudioError(f"{path}: is not mono PCM 16 bit")
            return np.frombuffer(stream.readframes(stream.getnframes()), dtype="<i2"), stream.getframerate()
    except (OSError, EOFError, wave.Error) as error:
        raise AudioError(f"{path}: is not a wav file that can be read ({error})") from error
