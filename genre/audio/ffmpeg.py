"""ffmpeg as a subprocess: find it, decode any audio file with it, and say why when it cannot.

Files are treated as hostile: ffmpeg may read only the one file it is given (no playlist, URL or device that the
file names), only audio streams are decoded, and arguments are passed as a list.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
import os
import re
import resource
import select
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from genre.errors import AudioError

log = logging.getLogger(__name__)

# Demuxers that read audio out of the one file they are given. Left out on purpose: everything that follows
# names found inside a file (hls, concat, dash, sdp, rtsp, imf, ...), images, raw and subtitle formats.
DEMUXERS = (
    "aa aac ac3 aiff amr amrnb amrwb ape apc asf au avi caf dsf dts dtshd eac3 flac flv iff ircam kux "
    "libopenmpt libgme lrc matroska,webm mlp mmf mov,mp4,m4a,3gp,3g2,mj2 mp3 mpc mpc8 mpeg mpegts mxf nistsphere "
    "nut ogg oma paf pvf qcp rm rso sbc shn sol sox spdif svx swf tak truehd tta voc vqf w64 wav wsaud wv xa xwma"
).replace(" ", ",")
READ_BYTES = 1 << 20
MAX_SECONDS = 48 * 3600  # of a signal: hours of silence fit into a file of kilobytes
STALL_S = 60  # without a byte from ffmpeg, after which it is ended
MAX_ALLOC_BYTES = 1 << 28  # of one allocation by ffmpeg
MAX_ADDRESS_BYTES = 1 << 32  # of ffmpeg's memory, where the system can limit it
MAX_MESSAGE_BYTES = 1 << 24  # of its messages


@functools.cache
def executable() -> str:
    """Return the path of ffmpeg: the one on PATH, or else the one in imageio-ffmpeg's wheel.

    Raises
    ------
    AudioError
        If there is neither.
    """
    found = shutil.which("ffmpeg")
    if found:
        return found
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise AudioError("ffmpeg is not here: install it, or the package imageio-ffmpeg") from error


@functools.cache
def version() -> str:
    """Return the first line of `ffmpeg -version`: what decodes the same file alike."""
    result = subprocess.run([executable(), "-version"], capture_output=True, text=True, check=False)
    return result.stdout.partition(" Copyright")[0]


def stream_pcm(
    path: Path, *, sample_rate: int, start: float = 0.0, duration: float | None = None
) -> Iterator[npt.NDArray[np.int16]]:
    """Decode the first audio stream of a file to mono at `sample_rate`, block by block.

    Parameters
    ----------
    path : Path
        Any file that ffmpeg reads.
    sample_rate : int
        Hz; ffmpeg's resampler is used where the file's rate differs.
    start, duration : float
        Seconds to skip, and seconds to decode after that (None: to the end).

    Yields
    ------
    npt.NDArray[np.int16] [shape=(n,)]
        Samples, PCM 16 bit; concatenated they are the signal.

    Raises
    ------
    AudioError
        If the file is not there, ffmpeg cannot decode it to its end, or it holds no audio.
    """
    output = ("-f", "s16le", "-acodec", "pcm_s16le", "-ac", "1", "-ar", str(sample_rate))
    n_bytes = 0
    rest = b""
    for data in _run(path, output, start=start, duration=duration):
        data = rest + data
        whole = len(data) - len(data) % 2
        rest = data[whole:]
        n_bytes += whole
        if n_bytes >= 2 * sample_rate * MAX_SECONDS:
            raise AudioError(f"{path}: is longer than {MAX_SECONDS // 3600} hours")
        yield np.frombuffer(data[:whole], dtype="<i2")
    # Asked for what is behind its end, an Ogg file gives its last page: what is short may be that.
    short = start and (duration is None or n_bytes < 2 * round(duration * sample_rate))
    if not n_bytes or (short and start >= (seconds_of(path) or math.inf)):
        raise AudioError(f"{path}: holds no audio" + (f" after {start:g} s" if start else ""))


def stream_native(path: Path) -> tuple[int, Iterator[npt.NDArray[np.float32]]]:
    """Decode a file at its own sample rate, mixed to mono as sonic-annotator does.

    Returns
    -------
    sample_rate : int
        Hz.
    blocks : iterator of npt.NDArray[np.float32] [shape=(n,)]
        Consecutive samples. Full scale is 1.0; each channel is clipped to [-1, 1], the mix is their arithmetic mean.

    Raises
    ------
    AudioError
        As `stream_pcm`; also while the blocks are read.
    """
    parts = _run(path, ("-f", "wav", "-acodec", "pcm_f32le", "-bitexact"))
    head = b""
    while (layout := _parse_wav_header(head)) is None:
        if not (part := next(parts, b"")):
            raise AudioError(f"{path}: holds no audio")
        head += part
    n_channels, sample_rate, offset = layout
    return sample_rate, _mono_blocks(path, itertools.chain([head[offset:]], parts), n_channels)


def seconds_of(path: Path) -> float | None:
    """Return the seconds that a file lasts, or None if ffmpeg cannot tell (it is not there, or not audio).

    Most headers say it, and the time that this takes does not depend on the file's length. Where ffmpeg would only
    estimate it from the bit rate (a raw AAC stream, an MP3 without a Xing header), it is counted: the whole file is
    read, but nothing is decoded.

    Raises
    ------
    AudioError
        If ffmpeg does not come to an end.
    """
    told = _told(path)[1]
    found = re.search(r"^  Duration: (\d+):(\d\d):(\d\d\.\d+), ", told, re.MULTILINE)
    if found and "Estimating duration" not in told:
        hours, minutes, seconds = found.groups()
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    counted = _told(path, "-map", "0:a:0", "-c", "copy", "-f", "null", "-progress", "pipe:1", "-")[0]
    times = re.findall(r"^out_time_us=(\d+)$", counted, re.MULTILINE)
    return int(times[-1]) / 1e6 if times else None


def stream_hash(path: Path) -> str:
    """Return the SHA-256 of the first audio stream's encoded packets: what stays equal when only tags change.

    Raises
    ------
    AudioError
        If ffmpeg cannot read the file to its end.
    """
    return b"".join(_run(path, ("-f", "hash", "-acodec", "copy"))).decode().strip().removeprefix("SHA256=").lower()


def _mono_blocks(path: Path, parts: Iterator[bytes], n_channels: int) -> Iterator[npt.NDArray[np.float32]]:
    rest = b""
    empty = True
    for part in parts:
        data = rest + part
        whole = len(data) - len(data) % (4 * n_channels)
        rest = data[whole:]
        samples = np.frombuffer(data[:whole], dtype="<f4").reshape(-1, n_channels)
        empty = empty and not len(samples)
        yield np.clip(samples, -1.0, 1.0).sum(axis=1, dtype=np.float32) / np.float32(n_channels)
    if empty:
        raise AudioError(f"{path}: holds no audio")


def _run(path: Path, output: Sequence[str], *, start: float = 0.0, duration: float | None = None) -> Iterator[bytes]:
    """Yield what ffmpeg writes to its standard output for one input file, with the options of the output."""
    if not path.is_file():
        raise AudioError(f"{path}: " + ("is not a file" if path.exists() else "is not there"))
    seek = ["-ss", f"{start:.6f}"] if start else []
    length = ["-t", f"{duration:.6f}"] if duration else []
    whole_blocks = ("-flush_packets", "0")  # not a write, and a read here, for each packet of the file
    command = [*_reading(path, seek), "-map", "0:a:0", "-vn", "-sn", "-dn", *output, *length, *whole_blocks, "pipe:"]
    with tempfile.TemporaryFile() as errors:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors, bufsize=0)
        assert process.stdout is not None
        try:
            _limit(process.pid)
            while data := _read(process.stdout, path):
                yield data
            status = process.wait()
        finally:
            process.kill()
            process.wait()
            process.stdout.close()
        reasons = _reasons(errors)
    if status:
        raise AudioError(f"{path}: cannot be decoded ({reasons[-1] if reasons else f'ffmpeg exit {status}'})")
    if reasons:
        log.warning("%s: decoded, with damaged parts (%s)", path, reasons[0])


def _reading(path: Path, seek: Sequence[str] = (), level: str = "error") -> list[str]:
    """Return the start of a command line that reads one file, and nothing that the file names."""
    # 'file:' keeps names with ':' or a leading '-' from being taken for a protocol or an option.
    safe = ["-protocol_whitelist", "file", "-format_whitelist", DEMUXERS, "-max_alloc", str(MAX_ALLOC_BYTES)]
    quiet = ["-hide_banner", "-nostdin", "-nostats", "-loglevel", level]
    return [executable(), *quiet, *safe, *seek, "-i", f"file:{path}"]


def _told(path: Path, *output: str) -> tuple[str, str]:
    """Return what ffmpeg says of a file on its two outputs."""
    command = [*_reading(path, level="error" if output else "info"), *output]
    with subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="replace",
    ) as process:
        try:
            _limit(process.pid)
            return process.communicate(timeout=STALL_S)
        except subprocess.TimeoutExpired:
            process.kill()
            raise AudioError(f"{path}: cannot be decoded (ffmpeg took more than {STALL_S} s to read it)") from None
        except BaseException:
            process.kill()
            raise


def _limit(pid: int) -> None:
    """Limit the memory and the messages of a process, where the system can (Linux)."""
    if not hasattr(resource, "prlimit"):
        return
    with contextlib.suppress(ProcessLookupError, PermissionError):
        resource.prlimit(pid, resource.RLIMIT_AS, (MAX_ADDRESS_BYTES, MAX_ADDRESS_BYTES))
        resource.prlimit(pid, resource.RLIMIT_FSIZE, (MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES))


def _read(stream: IO[bytes], path: Path) -> bytes:
    """Return what is there of up to `READ_BYTES`, or nothing at the end."""
    poller = select.poll()
    poller.register(stream, select.POLLIN | select.POLLHUP)
    if not poller.poll(1000 * STALL_S):
        raise AudioError(f"{path}: cannot be decoded (ffmpeg has been silent for {STALL_S} s)")
    return os.read(stream.fileno(), READ_BYTES)


def _reasons(stream: IO[bytes]) -> list[str]:
    """Return ffmpeg's messages in order, without addresses, without the ones that only repeat the outcome."""
    stream.seek(0)
    lines = stream.read(1 << 16).decode("utf-8", errors="replace").splitlines()
    cleaned = (re.sub(r"^(\[[^\]]*\] *)+", "", line).strip() for line in lines)
    return [line for line in cleaned if line and not line.startswith(("Error opening input file", "Conversion failed"))]


def _parse_wav_header(data: bytes) -> tuple[int, int, int] | None:
    """Return channels, sample rate and where the samples start, or None if the header is not complete."""
    offset = 12
    n_channels = sample_rate = 0
    while offset + 8 <= len(data):
        name, size = data[offset : offset + 4], struct.unpack_from("<I", data, offset + 4)[0]
        if name == b"data":
            return n_channels, sample_rate, offset + 8
        if name == b"fmt " and offset + 18 <= len(data):
            n_channels, sample_rate = struct.unpack_from("<HI", data, offset + 10)
        offset += 8 + size + size % 2
    return None
