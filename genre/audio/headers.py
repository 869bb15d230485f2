"""What ffmpeg's messages state about a file, compared with the decoded audio, and the parts of chained files."""

from __future__ import annotations

import itertools
import mmap
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from genre.audio.process import ERROR_LEVELS, Message
from genre.errors import AudioError

MAX_LINKS = 500  # of a chained Ogg file: a day of radio
SHORTER_S = 1.0  # missing audio from which a file is reported as shorter than its header states
ROUNDING_S = 0.015  # ffmpeg prints durations in hundredths of a second
MAX_RIFF_BYTES = 0x7FFFF000  # larger sizes are placeholders of programs that write to a pipe

_DURATION = re.compile(r"  Duration: (\d+):(\d\d):(\d\d\.\d+), ")
_STREAM = re.compile(r"  Stream #0:(\d+)\S*: (Audio|Video): (.*)")
_MAPPING = re.compile(r"  Stream #0:(\d+) -> #0:0 ")
# Errors about bytes between frames, such as tags. Other errors outside the decoder can be about covers and tags too.
_NO_FRAMES = ("Header missing", "invalid sync code", "invalid frame header", "decode_frame() failed")
# First bytes of a file or of a link: the first page of a logical stream (RFC 3533), the first block of FLAC, WAV.
_STARTS = {
    b"OggS": re.compile(rb"OggS\0[\x02\x06]"),
    b"fLaC": re.compile(rb"fLaC[\0\x80]\0\0\x22"),
    b"RIFF": re.compile(rb"RIFF....WAVEfmt ", re.DOTALL),
}


def findings(messages: Sequence[Message], path: Path, seconds: float | None) -> Iterator[str]:
    """Yield a sentence about several audio streams, and one about audio that is missing or damaged.

    `seconds` is the decoded duration; None if the end was not reached.
    """
    texts = [message.text for message in messages if message.level == "info"]
    header = list(itertools.takewhile(lambda text: not text.startswith(("Stream mapping:", "Output #")), texts))
    streams = [match.groups() for text in header if (match := _STREAM.match(text))]
    audio = {number: text for number, kind, text in streams if kind == "Audio"}
    taken = next((match[1] for text in texts if (match := _MAPPING.match(text))), None)
    if len(audio) > 1 and taken in audio:
        default = ", the default one," if "(default)" in audio[taken] else ""
        yield f"has {len(audio)} audio streams: number {list(audio).index(taken) + 1}{default} was decoded"
    errors = [message for message in messages if message.level in ERROR_LEVELS]
    reason = next((f" ({message.text})" for message in errors), "")
    # the duration may be that of the video or of another stream
    is_video = any(kind == "Video" and "(attached pic)" not in text for _, kind, text in streams)
    is_estimated = any(message.text.startswith("Estimating duration") for message in messages)
    duration = next((match for text in header if (match := _DURATION.match(text))), None)
    stated_s = None
    if duration and not (is_estimated or is_video or len(audio) > 1):
        stated_s = 3600 * int(duration[1]) + 60 * int(duration[2]) + float(duration[3])
    elif seconds is not None:
        stated_s = _riff_seconds(path, seconds)
    if seconds is None or stated_s is None:
        of_decoder = any("[dec:" in message.context for message in errors)
        losses = [text for context, _, text in errors if "[dec:" not in context and not text.startswith(_NO_FRAMES)]
        if (of_decoder and losses) or any(text.startswith("Error during demuxing") for text in losses):
            yield f"decoded, with damaged parts ({losses[0]})"
    elif stated_s - seconds >= SHORTER_S:
        yield f"only {seconds:.1f} s of the {stated_s:.1f} s that its header states could be decoded{reason}"
    elif errors and stated_s - seconds > ROUNDING_S:
        yield f"decoded, with damaged parts{reason}"


def links(path: Path) -> list[tuple[int, int]]:
    """Return the first byte and the end of each link of a chained Ogg file (RFC 3533), or of joined FLAC or WAV files.

    ffmpeg reads such a file up to the first link with another number of channels or sample rate, or only its first
    link. Raises AudioError if there are more than `MAX_LINKS`.
    """
    size = path.stat().st_size
    with path.open("rb") as file:
        pattern = _STARTS.get(file.read(4))
        if pattern is None:
            return [(0, size)]
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            starts = list(itertools.islice(_link_starts(data, pattern), MAX_LINKS + 1))
    if len(starts) > MAX_LINKS:
        raise AudioError(f"{path}: is a chain of more than {MAX_LINKS} files: divide it")
    return list(zip([0, *starts[1:]], [*starts[1:], size], strict=True))


def _riff_seconds(path: Path, seconds: float) -> float | None:
    """Return the duration that the header of a WAV file states, given that of its audio; None for other files.

    ffmpeg does not report that a WAV file was cut.
    """
    with path.open("rb") as file:
        head = file.read(12)
    stated = 8 + int.from_bytes(head[4:8], "little")
    if head[:4] != b"RIFF" or head[8:] != b"WAVE" or stated > MAX_RIFF_BYTES:
        return None
    return seconds * max(1.0, stated / path.stat().st_size)


def _link_starts(data: mmap.mmap, pattern: re.Pattern[bytes]) -> Iterator[int]:
    """Yield the position of each link; in Ogg, a link begins with one first page for each of its streams."""
    end_of_page = -1
    for match in pattern.finditer(data):
        start = match.start()
        if start != end_of_page:
            yield start
        n_segments = data[start + 26] if data[start : start + 4] == b"OggS" and start + 26 < len(data) else 0
        end_of_page = start + 27 + n_segments + sum(data[start + 27 : start + 27 + n_segments])
