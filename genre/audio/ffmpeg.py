"""Decode and encode audio files of any format with ffmpeg; ffmpeg-python builds the command lines.

Files are untrusted: ffmpeg opens only the file that it is given (no playlist, URL or device named in it), decodes only
audio streams, and is limited in processor time and memory, and by `time_limit` in time.
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
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre.errors import AudioError, TimeLimitError
from genre.files import atomic_path

log = logging.getLogger(__name__)

Options = dict[str, str | int | None]  # options of ffmpeg without their dash; None: an option without a value

# Demuxers that read audio from one file. Excluded: those that open files named in the file (hls, concat, dash, sdp,
# rtsp, imf, ...), images, raw and subtitle formats.
DEMUXERS = (
    "aa aac ac3 aiff amr amrnb amrwb ape apc asf au avi caf dsf dts dtshd eac3 flac flv iff ircam kux "
    "libopenmpt libgme lrc matroska,webm mlp mmf mov,mp4,m4a,3gp,3g2,mj2 mp3 mpc mpc8 mpeg mpegts mxf nistsphere "
    "nut ogg oma paf pvf qcp rm rso sbc shn sol sox spdif svx swf tak truehd tta voc vqf w64 wav wsaud wv xa xwma"
).replace(" ", ",")
READ_BYTES = 1 << 20
MAX_SECONDS = 48 * 3600  # of decoded audio: hours of silence fit into kilobytes
MAX_RATE_HZ = 3_000_000  # PCM has up to 768 kHz; ffmpeg counts DSD512, the fastest format that is sold, as 2,822,400 Hz
STALL_S = 60  # time without output after which ffmpeg is killed
POLL_S = 0.1  # interval at which a waiting reader looks for the end of its time limit
# Processor time of one ffmpeg: a file of few bytes may claim days of audio, and each second may cost minutes. Monkey's
# Audio and FLAC of 8 channels at 655 kHz, the slowest formats known, take 1 s per MB and 0.04 s per second of audio.
BASE_CPU_S = 20.0
CPU_S_PER_BYTE = 20e-6
CPU_S_PER_AUDIO_S = 0.2
MAX_ALLOC_BYTES = 1 << 28  # one allocation by ffmpeg
MAX_ADDRESS_BYTES = 1 << 32  # address space of ffmpeg
MAX_MESSAGE_BYTES = 1 << 26  # messages of ffmpeg, which include the tags of the file
_ERROR_LEVELS = ("error", "fatal", "panic")
_MESSAGE = re.compile(r"(?:\[[^\]]*\] *)*\[(info|warning|error|fatal|panic)\] (.*)")
_AUDIO_STREAM = re.compile(r"  Stream #0:\d+.*?: Audio: .*?(\d+) Hz, ")
GENERIC_MESSAGES = ("Error opening input file", "Conversion failed")  # of ffmpeg, after the specific one


_time_limit: ContextVar[tuple[float, threading.Event | None]] = ContextVar("time_limit", default=(math.inf, None))
_running: set[subprocess.Popen[bytes]] = set()


@functools.cache
def executable() -> str:
    """Return the path of the ffmpeg in the package imageio-ffmpeg: one version decodes the same samples everywhere.

    The environment variable IMAGEIO_FFMPEG_EXE names another one. Where the package has none for the platform, it is
    that on PATH. Raises AudioError if there is none.
    """
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise AudioError("ffmpeg is missing: install it, or the package imageio-ffmpeg") from error


@contextlib.contextmanager
def time_limit(seconds: float, cancelled: threading.Event | None = None) -> Iterator[None]:
    """Limit the wall-clock time for reading files in this context: after `seconds`, or once `cancelled` is set.

    Then the ffmpeg process that is being read is killed, and TimeLimitError is raised in place of its next block. The
    context is that of contextvars: the thread that enters it.
    """
    token = _time_limit.set((time.monotonic() + seconds, cancelled))
    try:
        yield
    finally:
        _time_limit.reset(token)


def kill_all() -> None:
    """Kill all ffmpeg processes of this process, before an exit that runs no finally blocks."""
    for process in list(_running):
        process.kill()


@functools.cache
def version() -> str:
    """Return the first line of `ffmpeg -version` without the copyright."""
    return _listing("-version").partition(" Copyright")[0]


@functools.cache
def encoders() -> frozenset[str]:
    """Return the names of the encoders of this ffmpeg."""
    lines = _listing("-encoders").splitlines()
    return frozenset(words[1] for line in lines if len(words := line.split()) > 1)


def stream_pcm(
    path: Path, *, sample_rate: int, start: float = 0.0, duration: float | None = None
) -> Iterator[npt.NDArray[np.int16]]:
    """Yield the first audio stream of a file as mono PCM 16 bit, in blocks [shape=(n,)].

    `sample_rate` is that of the output in Hz; `start` and `duration` select an excerpt, in seconds; `duration` None: to
    the end. Raises AudioError if the file is missing, cannot be decoded, or has no audio after `start`.
    """
    length = {} if duration is None else {"t": f"{duration:.6f}"}
    output = _output_of(path, start, format="s16le", acodec="pcm_s16le", ac=1, ar=sample_rate, **length)
    n_samples = 0
    for block in _frames(output, "<i2", 1):
        n_samples += len(block)
        if n_samples >= sample_rate * MAX_SECONDS:
            raise AudioError(f"{path}: is longer than {MAX_SECONDS // 3600} hours")
        yield block[:, 0]
    # Seeking past the end of an Ogg file yields its last page: compare the start with the duration if too little came.
    short = start and (duration is None or n_samples < round(duration * sample_rate))
    if not n_samples or (short and start >= (seconds_of(path) or math.inf)):
        raise AudioError(f"{path}: holds no audio" + (f" after {start:g} s" if start else ""))


def stream_native(path: Path) -> tuple[int, Iterator[npt.NDArray[np.float32]]]:
    """Decode the first audio stream of a file to mono at its own sample rate.

    Return the sample rate in Hz and an iterator of consecutive samples [shape=(n,)]: the arithmetic mean of the
    channels, each clipped to [-1, 1]. Raises AudioError as `stream_pcm`, also while the blocks are read.
    """
    parts = _output_of(path, format="au", acodec="pcm_f32be", map_metadata=-1)
    head = b""
    while len(head) < 8 or len(head) < int.from_bytes(head[4:8]):  # header size, in bytes 4 to 8 of the AU header
        if not (part := next(parts, b"")):
            raise AudioError(f"{path}: holds no audio")
        head += part
    _, header_bytes, _, _, sample_rate, n_channels = struct.unpack_from(">6I", head)
    return sample_rate, _mono_blocks(path, itertools.chain([head[header_bytes:]], parts), n_channels)


def seconds_of(path: Path) -> float | None:
    """Return the duration of a file in seconds, or None if it is missing or not audio.

    It is read from the header. If the header has none (raw AAC, MP3 without a Xing header), the whole file is read.
    Raises AudioError if ffmpeg stalls.
    """
    if not path.is_file():
        return None
    header = _messages_of(path, t=0)[1]
    duration = re.search(r"^  Duration: (\d+):(\d\d):(\d\d\.\d+), ", header, re.MULTILINE)
    if duration and "Estimating duration" not in header:
        hours, minutes, seconds = duration.groups()
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    progress = _messages_of(path, progress="pipe:1")[0]
    times = re.findall(r"^out_time_us=(\d+)$", progress, re.MULTILINE)
    return int(times[-1]) / 1e6 if times else None


def stream_hash(path: Path, *, bitstream_filter: str | None = None) -> str:
    """Return the SHA-256 of the encoded audio of the first stream, without tags; AudioError if it cannot be read.

    `bitstream_filter` is one of ffmpeg's: "aac_adtstoasc" removes the headers of AAC packets.
    """
    options: Options = {"bsf:a": bitstream_filter} if bitstream_filter else {}
    output = b"".join(_output_of(path, 0.0, format="hash", acodec="copy", **options))
    return output.decode().strip().removeprefix("SHA256=").lower()


def encode(path: Path, samples: npt.NDArray[np.int16], *, sample_rate: int, **options: str | int | None) -> None:
    """Write samples in any format, atomically; the output depends only on the arguments and the version of ffmpeg.

    `samples` are PCM 16 bit [shape=(n, channels)], `sample_rate` is in Hz, and `options` are output options of ffmpeg,
    e.g. format="flac". Raises AudioError if ffmpeg cannot write the format.
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


def _listing(option: str) -> str:
    command = [executable(), "-hide_banner", option]
    return subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout


def _frames(parts: Iterable[bytes], dtype: str, n_channels: int) -> Iterator[npt.NDArray[Any]]:
    """Yield PCM bytes as arrays of samples [shape=(n, n_channels)]; a frame may extend over two parts."""
    frame_bytes = np.dtype(dtype).itemsize * n_channels
    rest = b""
    for part in parts:
        data = rest + part
        whole = len(data) - len(data) % frame_bytes
        rest = data[whole:]
        yield np.frombuffer(data[:whole], dtype).reshape(-1, n_channels)


def _mono_blocks(path: Path, parts: Iterable[bytes], n_channels: int) -> Iterator[npt.NDArray[np.float32]]:
    n_samples = 0
    for frames in _frames(parts, ">f4", n_channels):
        n_samples += len(frames)
        clipped = np.clip(frames.astype(np.float32), -1.0, 1.0)
        yield clipped.sum(axis=1, dtype=np.float32) / np.float32(n_channels)
    if not n_samples:
        raise AudioError(f"{path}: holds no audio")


def _output_of(path: Path, start: float = 0.0, **options: str | int | None) -> Iterator[bytes]:
    """Yield the output of ffmpeg for the first audio stream of a file, with the given output options."""
    if not path.is_file():
        raise AudioError(f"{path}: " + ("is not a file" if path.exists() else "is not there"))
    options |= {"vn": None, "sn": None, "dn": None, "flush_packets": 0}  # 0: large blocks instead of one per packet
    with _reading(path, options, start=start) as reader:
        while data := reader.read():
            yield data
        reader.check_end()


def _messages_of(path: Path, **options: str | int | None) -> tuple[str, str]:
    """Return the standard output and the messages of ffmpeg reading a file without decoding it."""
    with _reading(path, {"format": "null", "acodec": "copy", **options}) as reader:
        stdout = b"".join(iter(reader.read, b""))
        reader.process.wait()
        return stdout.decode("utf-8", errors="replace"), "\n".join(text for _, text in reader.messages())


class _Reader:
    """Output and messages of a running ffmpeg, within its limits."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, link: Path, messages_fd: int, cpu_s: int) -> None:
        """`path` is the name of the file in messages, `link` that which ffmpeg knows."""
        self.process, self._path, self._link, self._fd, self._cpu_s = process, path, link, messages_fd, cpu_s
        self._is_checked = False  # whether the sample rate of the file was

    def read(self) -> bytes:
        """Return the next output, at most `READ_BYTES`; empty at the end. Raises AudioError beyond a limit."""
        assert self.process.stdout is not None
        began, (deadline, cancelled) = time.monotonic(), _time_limit.get()
        is_ready = False
        while not is_ready:
            is_ready = _has_output(self.process.stdout.fileno())
            if not self._is_checked:
                self._check_rate()
                self._is_checked |= is_ready
            now = time.monotonic()
            if now > deadline or (cancelled is not None and cancelled.is_set()):
                raise TimeLimitError(f"{self._path}: was not decoded within the time limit")
            if not is_ready and now - began > STALL_S:
                raise AudioError(f"{self._path}: cannot be decoded (ffmpeg has been silent for {STALL_S} s)")
        return os.read(self.process.stdout.fileno(), READ_BYTES)

    def messages(self) -> list[tuple[str, str]]:
        """Return level and text of each message; without addresses, and with the name of the file."""
        data = os.pread(self._fd, MAX_MESSAGE_BYTES, 0)  # a seek would move ffmpeg's position as well
        matches = map(_MESSAGE.match, data.decode("utf-8", errors="replace").splitlines())
        return [
            (match[1], match[2].rstrip().replace(f"file:{self._link}", str(self._path))) for match in matches if match
        ]

    def check_end(self) -> None:
        """Wait for the process; raise AudioError if it failed, and report what it could not decode."""
        status = self.process.wait()
        errors = [text for level, text in self.messages() if level in _ERROR_LEVELS]
        reasons = [text for text in errors if not text.startswith(GENERIC_MESSAGES)]
        if status == -signal.SIGKILL:
            raise AudioError(f"{self._path}: cannot be decoded (it needs more than {self._cpu_s} s of processor time)")
        if status:
            raise AudioError(f"{self._path}: cannot be decoded ({reasons[-1] if reasons else f'ffmpeg exit {status}'})")
        if reasons:
            log.warning("%s: decoded, with damaged parts (%s)", self._path, reasons[0])

    def _check_rate(self) -> None:
        """Raise AudioError if the sample rate of the file is above `MAX_RATE_HZ`."""
        for level, text in self.messages():
            if level == "info" and (match := _AUDIO_STREAM.match(text)):
                self._is_checked = True
                if int(match[1]) > MAX_RATE_HZ:
                    raise AudioError(f"{self._path}: its sample rate, {match[1]} Hz, is above {MAX_RATE_HZ} Hz")


@contextlib.contextmanager
def _link_to(path: Path) -> Iterator[Path]:
    """Yield a temporary symbolic link to a file, with an ASCII name; the file itself where links cannot be made.

    ffmpeg-python requires UTF-8 names, and ffmpeg could read a name as a protocol or an option. The extension is kept:
    ffmpeg identifies some formats by it (RSO, a FLAC file with a damaged head).
    """
    extension = path.suffix if re.fullmatch(r"\.\w{1,16}", path.suffix, re.ASCII) else ""
    with tempfile.TemporaryDirectory(prefix="audio-", ignore_cleanup_errors=True) as folder:
        link = Path(folder, f"input{extension}")
        try:
            link.symlink_to(path.absolute())
        except OSError:
            link = path
        yield link


@contextlib.contextmanager
def _reading(path: Path, options: Options, *, start: float = 0.0) -> Iterator[_Reader]:
    """Start ffmpeg on one file and no file named in it, and yield its reader; kill it at the end if it still runs."""
    import ffmpeg

    safe = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS, "max_alloc": MAX_ALLOC_BYTES}
    seek = {"ss": f"{start:.6f}"} if start else {}
    quiet = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info")
    cpu_s = round(BASE_CPU_S + min(CPU_S_PER_BYTE * path.stat().st_size, CPU_S_PER_AUDIO_S * MAX_SECONDS))
    with tempfile.TemporaryFile() as stderr, _link_to(path) as link:
        output = ffmpeg.input(f"file:{link}", **safe, **seek)["a:0"].output("pipe:", **options)
        command = output.global_args(*quiet).compile(cmd=executable())
        with subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, bufsize=0
        ) as process:
            _running.add(process)
            try:
                _limit(process.pid, cpu_s)
                yield _Reader(process, path, link, stderr.fileno(), cpu_s)
            finally:
                process.kill()
                _running.discard(process)


def _limit(pid: int, cpu_s: int) -> None:
    """Limit the processor time, the memory and the messages of a process, on Linux."""
    if sys.platform == "linux":
        import resource

        with contextlib.suppress(ProcessLookupError, PermissionError):
            resource.prlimit(pid, resource.RLIMIT_CPU, (cpu_s, cpu_s))
            resource.prlimit(pid, resource.RLIMIT_AS, (MAX_ADDRESS_BYTES, MAX_ADDRESS_BYTES))
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (MAX_MESSAGE_BYTES, MAX_MESSAGE_BYTES))


def _has_output(fd: int) -> bool:
    """Wait at most `POLL_S` for output or the end of it; on Windows, which has no poll, return True."""
    if not hasattr(select, "poll"):
        return True
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLHUP)
    return bool(poller.poll(1000 * POLL_S))
