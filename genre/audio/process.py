"""Run ffmpeg within limits of time, processor time and memory, and read its output and messages."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import select
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from contextvars import ContextVar
from pathlib import Path
from typing import Any, NamedTuple

from genre.errors import AudioError, TimeLimitError

log = logging.getLogger(__name__)

READ_BYTES = 1 << 20
STALL_S = 60  # time without output after which ffmpeg is killed
POLL_S = 0.1  # interval at which a waiting reader checks its time limit
# Processor time of ffmpeg on one file, because a small file may decode to days of audio. Music takes 0.1 to 1 s per MB;
# silence in FLAC, which has the fewest bytes per second of audio, takes 6 s.
BASE_CPU_S = 10.0
CPU_S_PER_BYTE = 20e-6
MAX_ALLOC_BYTES = 1 << 28  # one allocation by ffmpeg
MAX_ADDRESS_BYTES = 1 << 32  # address space of ffmpeg
MAX_MESSAGE_BYTES = 1 << 24  # messages of ffmpeg, which include the tags of the file
# Limits of a command: seconds of processor time, KiB of memory, and blocks of 512 bytes of a file that it writes
LIMITED = ("sh", "-c", 'ulimit -t "$1"; ulimit -v "$2"; ulimit -f "$3"; shift 3; exec "$@"', "sh")
ERROR_LEVELS = ("error", "fatal", "panic")
GENERIC_MESSAGES = (  # of ffmpeg, after the specific one
    *("Error opening", "Conversion failed", "Nothing was written", "Task finished", "Terminating thread"),
    *("Could not open encoder", "Error reinitializing", "Failed to configure"),
)

_MESSAGE = re.compile(r"((?:\[[^\]]*\] *)*)\[(info|warning|error|fatal|panic)\] (.*)")
_time_limit: ContextVar[tuple[float, threading.Event | None]] = ContextVar("time_limit", default=(math.inf, None))
_collected: ContextVar[list[str] | None] = ContextVar("collected", default=None)
_running: set[subprocess.Popen[bytes]] = set()


class Message(NamedTuple):
    """One message of ffmpeg."""

    context: str  # such as "[aist#0:0/mp3 @ 0x55] [dec:mp3float @ 0x56] "
    level: str
    text: str


def time_limit(seconds: float, cancelled: threading.Event | None = None) -> AbstractContextManager[object]:
    """Limit the wall-clock time for reading files in this thread: until `seconds` have passed or `cancelled` is set.

    After that, the ffmpeg process that is being read is killed, and TimeLimitError is raised in place of its next
    block.
    """
    return _within(_time_limit, (time.monotonic() + seconds, cancelled))


def collected_warnings() -> AbstractContextManager[list[str]]:
    """Collect the warnings about files that are read in this thread, instead of logging them."""
    return _within(_collected, [])


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


@contextlib.contextmanager
def _within(variable: ContextVar[Any], value: Any) -> Iterator[Any]:
    """Set a variable in the context, and yield its value."""
    token = variable.set(value)
    try:
        yield value
    finally:
        variable.reset(token)


class Reader:
    """Output and messages of a running ffmpeg."""

    def __init__(self, process: subprocess.Popen[bytes], path: Path, url: str, messages_fd: int, cpu_s: int) -> None:
        """`path` is the name of the file in messages, `url` the one that ffmpeg was given."""
        self._process, self._path, self._url, self._fd, self._cpu_s = process, path, url, messages_fd, cpu_s

    def blocks(self) -> Iterator[bytes]:
        """Yield the output, at most `READ_BYTES` at a time. Raises AudioError beyond a limit, or if ffmpeg failed."""
        assert self._process.stdout is not None
        poller = select.poll()
        poller.register(self._process.stdout, select.POLLIN)
        latest = time.monotonic()
        while True:
            is_ready = poller.poll(1000 * POLL_S)
            deadline, cancelled = _time_limit.get()
            if time.monotonic() > deadline or (cancelled is not None and cancelled.is_set()):
                raise TimeLimitError(f"{self._path}: was not decoded within the time limit")
            if is_ready:
                if not (data := os.read(self._process.stdout.fileno(), READ_BYTES)):
                    return self._check_status()
                yield data
                latest = time.monotonic()
            elif time.monotonic() - latest > STALL_S:
                raise AudioError(f"{self._path}: cannot be decoded (ffmpeg has been silent for {STALL_S} s)")

    def messages(self) -> list[Message]:
        """Return the messages so far, with the name of the file in place of its URL."""
        data = os.pread(self._fd, MAX_MESSAGE_BYTES, 0)  # a seek would also move ffmpeg's position
        output = data.decode("utf-8", errors="replace").replace(self._url, self._path.name)
        return [Message(*match.groups()) for line in output.splitlines() if (match := _MESSAGE.match(line))]

    def _check_status(self) -> None:
        """Wait for the process; raise AudioError if it failed."""
        status = self._process.wait()
        errors = [message.text for message in self.messages() if message.level in ERROR_LEVELS]
        reasons = [text for text in errors if not text.startswith(GENERIC_MESSAGES)] or errors
        if status == -signal.SIGKILL:
            raise AudioError(f"{self._path}: cannot be decoded (it needs more than {self._cpu_s} s of processor time)")
        if status:
            raise AudioError(f"{self._path}: cannot be decoded ({reasons[-1] if reasons else f'ffmpeg exit {status}'})")


@contextlib.contextmanager
def running(command: Sequence[str], path: Path, url: str, share: float) -> Iterator[Reader]:
    """Start ffmpeg on a file, without standard input, and yield its reader; kill it at the end if it still runs.

    `path` is the name of the file in messages, `url` the one in `command`, `share` the fraction of it that is read.
    """
    cpu_s = math.ceil(share * (BASE_CPU_S + CPU_S_PER_BYTE * path.stat().st_size))
    limits = (str(cpu_s), str(MAX_ADDRESS_BYTES >> 10), str(MAX_MESSAGE_BYTES // 512))
    with (
        tempfile.TemporaryFile() as stderr,
        subprocess.Popen(
            [*LIMITED, *limits, *command], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=stderr, bufsize=0
        ) as process,
    ):
        _running.add(process)
        try:
            yield Reader(process, path, url, stderr.fileno(), cpu_s)
        finally:
            process.kill()
            _running.discard(process)
