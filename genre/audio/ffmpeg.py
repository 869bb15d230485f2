"""Decode audio files of any format with ffmpeg, and encode samples; ffmpeg-python builds the command lines.

Files are treated as hostile: ffmpeg opens only the one file that it is given (no playlist, URL or device that the file
names), decodes only audio streams, and is limited in time and memory.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import logging
import math
import os
import re
import select
import shutil
import struct
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt

from genre.errors import AudioError
from genre.files import atomic_path

log = logging.getLogger(__name__)

Options = dict[str, str | int | None]  # of an output of ffmpeg, without dashes; None for a flag

# Demuxers that read audio from the one file they are given. Left out: those that open files named inside a file (hls,
# concat, dash, sdp, rtsp, imf, ...), images, raw and subtitle formats.
DEMUXERS = (
    "aa aac ac3 aiff amr amrnb amrwb ape apc asf au avi caf dsf dts dtshd eac3 flac flv iff ircam kux "
    "libopenmpt libgme lrc matroska,webm mlp mmf mov,mp4,m4a,3gp,3g2,mj2 mp3 mpc mpc8 mpeg mpegts mxf nistsphere "
    "nut ogg oma paf pvf qcp rm rso sbc shn sol sox spdif svx swf tak truehd tta voc vqf w64 wav wsaud wv xa xwma"
).replace(" ", ",")
READ_BYTES = 1 << 20
MAX_SECONDS = 48 * 3600  # length of a signal: hours of silence fit into a file of kilobytes
STALL_S = 60  # longest wait for a byte from ffmpeg, or for a probe to end
MAX_ALLOC_BYTES = 1 << 28  # one allocation by ffmpeg
MAX_ADDRESS_BYTES = 1 << 32  # address space of ffmpeg
MAX_MESSAGE_BYTES = 1 << 24  # messages of ffmpeg


@functools.cache
def executable() -> str:
    """Return the path of ffmpeg: the one on PATH, or else the one in the package imageio-ffmpeg.

    Raises
    ------
    AudioError
        If there is neither.
    """
    if on_path := shutil.which("ffmpeg"):
        return on_path
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise AudioError("ffmpeg is missing: install it, or the package imageio-ffmpeg") from error


@functools.cache
def version() -> str:
    """Return the first line of `ffmpeg -version` without the copyright."""
    result = subprocess.run([executable(), "-version"], capture_output=True, text=True, check=False)
    return result.stdout.partition(" Copyright")[0]


@functools.cache
def encoders() -> frozenset[str]:
    """Return the names of the encoders of this ffmpeg."""
    command = [executable(), "-hide_banner", "-encoders"]
    listing = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
    return frozenset(words[1] for line in listing.splitlines() if len(words := line.split()) > 1)


def stream_pcm(
    path: Path, *, sample_rate: int, start: float = 0.0, duration: float | None = None
) -> Iterator[npt.NDArray[np.int16]]:
    """Decode the first audio stream of a file to mono at `sample_rate`, block by block.

    Parameters
    ----------
    path : Path
        Any file that ffmpeg reads.
    sample_rate : int
        Hz; ffmpeg resamples if the file has another rate.
    start, duration : float
        First second to decode, and number of seconds (None: to the end).

    Yields
    ------
    npt.NDArray[np.int16] [shape=(n,)]
        Consecutive samples, PCM 16 bit.

    Raises
    ------
    AudioError
        If the file is missing, cannot be decoded to its end, or holds no audio.
    """
    length = {} if duration is None else {"t": f"{duration:.6f}"}
    n_bytes = 0
    rest = b""
    for data in _output_of(path, start, format="s16le", acodec="pcm_s16le", ac=1, ar=sample_rate, **length):
        data = rest + data
        whole = len(data) - len(data) % 2
        rest = data[whole:]
        n_bytes += whole
        if n_bytes >= 2 * sample_rate * MAX_SECONDS:
            raise AudioError(f"{path}: is longer than {MAX_SECONDS // 3600} hours")
        yield np.frombuffer(data[:whole], dtype="<i2")
    # Seeking behind the end of an Ogg file yields its last page, so a short result is checked against the duration.
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
    parts = _output_of(path, format="wav", acodec="pcm_f32le", bitexact=None)
    head = b""
    while (layout := _parse_wav_header(head)) is None:
        if not (part := next(parts, b"")):
            raise AudioError(f"{path}: holds no audio")
        head += part
    n_channels, sample_rate, offset = layout
    return sample_rate, _mono_blocks(path, itertools.chain([head[offset:]], parts), n_channels)


def seconds_of(path: Path) -> float | None:
    """Return the duration of a file in seconds, or None if it is missing or not audio.

    Most headers state it. Where ffmpeg would estimate it from the bit rate (raw AAC, MP3 without a Xing header), the
    whole file is read, but not decoded.

    Raises
    ------
    AudioError
        If ffmpeg does not end in time.
    """
    if not path.is_file():
        return None
    header = _messages_of(path, "info", t=0)[1]
    duration = re.search(r"^  Duration: (\d+):(\d\d):(\d\d\.\d+), ", header, re.MULTILINE)
    if duration and "Estimating duration" not in header:
        hours, minutes, seconds = duration.groups()
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    progress = _messages_of(path, "error", progress="pipe:1")[0]
    times = re.findall(r"^out_time_us=(\d+)$", progress, re.MULTILINE)
    return int(times[-1]) / 1e6 if times else None


def stream_hash(path: Path) -> str:
    """Return the SHA-256 of the encoded packets of the first audio stream, which does not depend on tags.

    Raises
    ------
    AudioError
        If ffmpeg cannot read the file to its end.
    """
    return b"".join(_output_of(path, format="hash", acodec="copy")).decode().strip().removeprefix("SHA256=").lower()


def encode(path: Path, samples: npt.NDArray[np.int16], *, sample_rate: int, **options: str | int | None) -> None:
    """Write samples in any format, atomically; the same samples, options and ffmpeg give the same bytes.

    Parameters
    ----------
    path : Path
        The file to write.
    samples : npt.NDArray[np.int16] [shape=(n, channels)]
        PCM 16 bit.
    sample_rate : int
        Hz.
    **options
        Output options of ffmpeg without their dash, such as format="flac" and acodec="flac"; None for an option
        without a value.

    Raises
    ------
    AudioError
        If ffmpeg cannot write the format.
    """
    import ffmpeg

    exact = {"map_metadata": -1, "fflags": "+bitexact", "flags:a": "+bitexact", "threads": 1}
    with atomic_path(path) as temporary:
        source = ffmpeg.input("pipe:", format="s16le", ar=sample_rate, ac=samples.shape[1])
        output = source.output(f"file:{temporary.name}", **exact, **options)
        command = output.global_args("-hide_banner", "-loglevel", "error", "-y").compile(cmd=executable())
        data = samples.astype("<i2").tobytes()
        result = subprocess.run(command, cwd=temporary.parent, input=data, capture_output=True, check=False)
        if result.returncode:
            reason = result.stderr.decode("utf-8", errors="replace").strip().splitlines()[-1:]
            raise AudioError(f"{path}: ffmpeg cannot write it ({''.join(reason) or result.returncode})")


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


def _output_of(path: Path, start: float = 0.0, **options: str | int | None) -> Iterator[bytes]:
    """Yield the bytes that ffmpeg makes of the first audio stream of a file, with the given output options."""
    if not path.is_file():
        raise AudioError(f"{path}: " + ("is not a file" if path.exists() else "is not there"))
    options |= {"vn": None, "sn": None, "dn": None, "flush_packets": 0}  # 0: large blocks, not one per packet
    with tempfile.TemporaryFile() as errors, _link_to(path) as link:
        command = _reading_command(link, start, "error", options)
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
        reasons = [reason.replace(f"file:{link}", str(path)) for reason in _reasons(errors)]
    if status:
        raise AudioError(f"{path}: cannot be decoded ({reasons[-1] if reasons else f'ffmpeg exit {status}'})")
    if reasons:
        log.warning("%s: decoded, with damaged parts (%s)", path, reasons[0])


@contextlib.contextmanager
def _link_to(path: Path) -> Iterator[Path]:
    """Yield a temporary link to a file that has a plain ASCII name and the same extension.

    ffmpeg-python takes UTF-8 names only, and a plain name cannot be mistaken for a protocol or an option. The extension
    stays: ffmpeg identifies some formats by it (RSO, a FLAC file with a damaged head). Where a link cannot be made, the
    file itself is used.
    """
    extension = path.suffix if re.fullmatch(r"\.\w{1,16}", path.suffix, re.ASCII) else ""
    with tempfile.TemporaryDirectory(prefix="audio-", ignore_cleanup_errors=True) as folder:
        link = Path(folder, f"input{extension}")
        try:
            link.symlink_to(path.absolute())
        except OSError:
            link = path
        yield link


def _reading_command(link: Path, start: float, loglevel: str, options: Options) -> list[str]:
    """Return a command line that reads one file, and none that is named in it, and writes to standard output."""
    import ffmpeg

    safe = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS, "max_alloc": MAX_ALLOC_BYTES}
    seek = {"ss": f"{start:.6f}"} if start else {}
    output = ffmpeg.input(f"file:{link}", **safe, **seek)["a:0"].output("pipe:", **options)
    quiet = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", loglevel)
    command: list[str] = output.global_args(*quiet).compile(cmd=executable())
    return command


def _messages_of(path: Path, loglevel: str, **options: str | int | None) -> tuple[str, str]:
    """Return the standard output and the standard error of ffmpeg reading the packets of a file."""
    with (
        _link_to(path) as link,
        subprocess.Popen(
            _reading_command(link, 0.0, loglevel, {"format": "null", "acodec": "copy", **options}),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
            errors="replace",
        ) as process,
    ):
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
    try:
        import resource  # not on Windows
    except ImportError:
        return
    if hasattr(resource, "prlimit"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            resource.prlimit(pid, resource.RLIMIT_AS, (MAX_ADDRESS_BYTES, MAX_ADDRESS_BYTES))
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES))


def _read(stream: IO[bytes], path: Path) -> bytes:
    """Return the next bytes of a pipe, at most `READ_BYTES`, or none at the end."""
    if hasattr(select, "poll"):  # not on Windows, where a pipe cannot be waited for
        poller = select.poll()
        poller.register(stream, select.POLLIN | select.POLLHUP)
        if not poller.poll(1000 * STALL_S):
            raise AudioError(f"{path}: cannot be decoded (ffmpeg has been silent for {STALL_S} s)")
    return os.read(stream.fileno(), READ_BYTES)


def _reasons(stream: IO[bytes]) -> list[str]:
    """Return the messages of ffmpeg in order, without addresses and without those that only repeat the outcome."""
    stream.seek(0)
    lines = stream.read(1 << 16).decode("utf-8", errors="replace").splitlines()
    cleaned = (re.sub(r"^(\[[^\]]*\] *)+", "", line).strip() for line in lines)
    return [line for line in cleaned if line and not line.startswith(("Error opening input file", "Conversion failed"))]


def _parse_wav_header(data: bytes) -> tuple[int, int, int] | None:
    """Return channels, sample rate in Hz and offset of the samples in bytes, or None if the header is incomplete."""
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
