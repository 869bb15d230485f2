"""Run ffmpeg within limits of time, processor time, memory and sample rate, and read its output and messages."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from pathlib import Path

from genre.audio import headers
from genre.errors import AudioError, TimeLimitError

log = logging.getLogger(__name__)

READ_BYTES = 1 << 20
MAX_RATE_HZ = 3_000_000  # PCM has up to 768 kHz; ffmpeg reports DSD512, the highest rate in use, as 2,822,400 Hz
STALL_S = 60  # time without output after which ffmpeg is killed
POLL_S = 0.1  # interval at which a waiting reader checks its time limit
# Processor time of ffmpeg on one file, because a small file may decode to days of audio. Music takes 0.1 to 1 s per MB;
# silence in FLAC, which has the fewest bytes per second of audio, takes 6 s.
BASE_CPU_S = 10.0
CPU_S_PER_BYTE = 20e-6
MAX_ALLOC_BYTES = 1 << 28  # one allocation by ffmpeg
MAX_ADDRESS_BYTES = 1 << 32  # address space of ffmpeg
MAX_MESSAGE_BYTES = 1 << 24  # messages of ffmpeg, which include the tags of the file
GENERIC_MESSAGES = ("Error opening input", "Conversion failed")  # of ffmpeg, after the specific one

_time_limit: ContextVar[tuple[float, threading.Event | None]] = ContextVar("time_limit", default=(math.inf, None))
_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)
_running: set[subprocess.Popen[bytes]] = set()


@contextlib.contextmanager
def time_limit(seconds: float, cancelled: threading.Event | None = None) -> Iterator[None]:
    """Limit the wall-clock time for reading files in this thread: until `seconds` have passed or `cancelled` is set.

    After that, the ffmpeg process that is being read is killed, and TimeLimitError is raised in place of its next
    block.
    """
    token = _time_limit.set((time.monotonic() + seconds, cancelled))
    try:
        yield
    finally:
        _time_limit.reset(token)


@contextlib.contextmanager
def collected_warnings() -> Iterator[list[str]]:
    """Collect the warnings about files that are read in this thread, instead of logging them."""
    warnings: list[str] = []
    token = _collected.set(warnings)
    try:
        yield warnings
    finally:
        _collected.reset(token)


def warn(path: Path, sentence: str) -> None:
    """Log a warning about a file, or add it to those of `collected_warnings`."""
    collected = _collected.get()
    if collected is None:
        log.warning("%s: %s", path, sentence)
    elif sentence not in collected:
        collected.append(sentence)


def kill_all() -> None:
    """Kill all ffmpeg processes of this process, before an exit that runs no finally blocks."""
    for process in list(_running):
        process.kill()


class Reader:
    """Output and messages of a running ffmpeg, within its limits."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, link: Path, messages_fd: int, cpu_s: int) -> None:
        """`path` is the name of the file in messages, `link` the one that ffmpeg was given."""
        self._process, self._path, self._link, self._fd, self._cpu_s = process, path, link, messages_fd, cpu_s
        self._is_checked = False  # whether the sample rate was checked
        self._waited_s = 0.0  # for output: about the processor time where that cannot be limited

    def read(self) -> bytes:
        """Return the next output, at most `READ_BYTES`; empty at the end. Raises AudioError beyond a limit."""
        assert self._process.stdout is not None
        began, (deadline, cancelled) = time.monotonic(), _time_limit.get()
        is_ready = False
        while not is_ready:
            is_ready = _has_output(self._process.stdout.fileno())
            if not self._is_checked:
                self._check_rate()
                self._is_checked |= is_ready
            now = time.monotonic()
            if now > deadline or (cancelled is not None and cancelled.is_set()):
                raise TimeLimitError(f"{self._path}: was not decoded within the time limit")
            if not is_ready and now - began > STALL_S:
                raise AudioError(f"{self._path}: cannot be decoded (ffmpeg has been silent for {STALL_S} s)")
        self._waited_s += time.monotonic() - began
        if sys.platform != "linux" and self._waited_s > self._cpu_s:
            raise AudioError(f"{self._path}: cannot be decoded (ffmpeg takes more than {self._cpu_s} s)")
        return os.read(self._process.stdout.fileno(), READ_BYTES)

    def check_status(self) -> None:
        """Wait for the process; raise AudioError if it failed."""
        status = self._process.wait()
        errors = [message.text for message in self._messages() if message.level in headers.ERROR_LEVELS]
        reasons = [text for text in errors if not text.startswith(GENERIC_MESSAGES)] or errors
        if status == -signal.SIGKILL:
            raise AudioError(f"{self._path}: cannot be decoded (it needs more than {self._cpu_s} s of processor time)")
        if status:
            raise AudioError(f"{self._path}: cannot be decoded ({reasons[-1] if reasons else f'ffmpeg exit {status}'})")

    def report(self, seconds: float | None) -> None:
        """Warn about audio that is missing, and report which of several streams was decoded.

        `seconds` is the decoded duration; None if the end was not reached.
        """
        messages = self._messages()
        header = headers.read(messages)
        if header.streams:
            warn(self._path, header.streams)
        stated_s = header.seconds
        if seconds is not None and stated_s is None:
            stated_s = headers.riff_seconds(self._path, seconds)
        if fault := headers.faults(messages, seconds, stated_s):
            warn(self._path, fault)

    def _messages(self) -> list[headers.Message]:
        """Return the messages so far, with the name of the file in place of the link."""
        data = os.pread(self._fd, MAX_MESSAGE_BYTES, 0)  # a seek would also move ffmpeg's position
        return headers.messages_of(
            data.decode("utf-8", errors="replace").replace(f"file:{self._link}", self._path.name)
        )

    def _check_rate(self) -> None:
        """Raise AudioError if the sample rate of the file is above `MAX_RATE_HZ`."""
        rate = max(headers.read(self._messages()).rates_hz, default=0)
        if rate > MAX_RATE_HZ:
            raise AudioError(f"{self._path}: its sample rate, {rate} Hz, is above {MAX_RATE_HZ} Hz")


@contextlib.contextmanager
def running(command: Sequence[str], path: Path, link: Path, share: float) -> Iterator[Reader]:
    """Start ffmpeg on a file, without standard input, and yield its reader; kill it at the end if it still runs.

    `path` is the name of the file in messages, `link` the one in `command`, `share` the fraction of it that is read.
    """
    cpu_s = math.ceil(share * (BASE_CPU_S + CPU_S_PER_BYTE * path.stat().st_size))
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, bufsize=0
        ) as process,
    ):
        _running.add(process)
        try:
            _limit(process.pid, cpu_s)
            yield Reader(process, path, link, stderr.fileno(), cpu_s)
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
    """Wait at most `POLL_S` for output; return whether there is some or it has ended."""
    poller = select.poll()
    poller.register(fd, select.POLLIN | select.POLLHUP)
    return bool(poller.poll(1000 * POLL_S))
