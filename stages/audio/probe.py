"""How long is this file? From its header, or counted where the header does not say."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

from stages.audio.ffmpeg import DEMUXERS, MAX_ALLOC_BYTES, STALL_S, executable
from stages.errors import AudioError


def duration(path: Path) -> float | None:
    """Return the seconds that a file lasts, or None if ffmpeg cannot tell (it is not there, or not audio).

    Most headers say it, and the time that this takes does not depend on the file's length. Where ffmpeg would only
    estimate it from the bit rate (a raw AAC stream, an MP3 without a Xing header), it is counted: the whole file is
    read, but nothing is decoded.

    Raises
    ------
    AudioError
        If ffmpeg does not come to an end.
    """
    told = _run(path).stderr
    found = re.search(r"^  Duration: (\d+):(\d\d):(\d\d\.\d+), ", told, re.MULTILINE)
    if found and "Estimating duration" not in told:
        hours, minutes, seconds = found.groups()
        return 3600 * int(hours) + 60 * int(minutes) + float(seconds)
    counted = _run(path, "-map", "0:a:0", "-c", "copy", "-f", "null", "-progress", "pipe:1", "-").stdout
    times = re.findall(r"^out_time_us=(\d+)$", counted, re.MULTILINE)
    return int(times[-1]) / 1e6 if times else None


def _run(path: Path, *output: str) -> subprocess.CompletedProcess[str]:
    limits = ["-protocol_whitelist", "file,pipe", "-format_whitelist", DEMUXERS, "-max_alloc", str(MAX_ALLOC_BYTES)]
    command = [executable(), "-hide_banner", "-nostdin", "-nostats", *limits, "-i", f"file:{path}", *output]
    try:
        return subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, encoding="utf-8", errors="replace", timeout=STALL_S
        )
    except subprocess.TimeoutExpired:
        raise AudioError(f"{path}: cannot be decoded (ffmpeg took more than {STALL_S} s to read it)") from None
