"""Decode and encode audio files of any format with ffmpeg; ffmpeg-python builds the command lines.

Files are untrusted: ffmpeg opens only the file that it is given (no playlist, URL or device named in it), decodes only
audio streams, and is limited in processor time and memory; `process.time_limit` limits its wall-clock time.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import math
import re
import struct
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre.audio import headers, process
from genre.errors import AudioError, TimeLimitError
from genre.files import atomic_path

Block = npt.NDArray[np.int16]  # samples, shape (n,)
Options = dict[str, str | int | None]  # options of ffmpeg without their dash; None: an option without a value

# Demuxers that read audio from one file. Excluded: those that open files named in the file (hls, concat, dash, sdp,
# rtsp, imf, ...), images, raw and subtitle formats.
DEMUXERS = (
    "aa aac ac3 aiff amr amrnb amrwb ape apc asf au avi caf dsf dts dtshd eac3 flac flv iff ircam kux "
    "libopenmpt libgme lrc matroska,webm mlp mmf mov,mp4,m4a,3gp,3g2,mj2 mp3 mpc mpc8 mpeg mpegts mxf nistsphere "
    "nut ogg oma paf pvf qcp rm rso sbc shn sol sox spdif svx swf tak truehd tta voc vqf w64 wav wsaud wv xa xwma"
).replace(" ", ",")
COUNT_RATE_HZ = 8000  # at which the duration of a file is counted
CHECK_S = 10  # length of the pieces in which channels that cancel each other are looked for
QUIET_RMS = 650.0  # -34 dB, the level below which a piece is compared with the first channel
CANCELLED_RATIO = 0.1  # -20 dB, the level of the mean of the channels relative to the first, below which they cancel
MAX_SECONDS = 48 * 3600  # of decoded audio: hours of silence fit into kilobytes


@functools.cache
def executable() -> str:
    """Return the path of the ffmpeg in the package imageio-ffmpeg, so that the decoded samples are the same everywhere.

    The environment variable IMAGEIO_FFMPEG_EXE names another one. If the package has none for the platform, the one on
    PATH is used. Raises AudioError if there is none.
    """
    import imageio_ffmpeg

    try:
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    except RuntimeError as error:
        raise AudioError("ffmpeg is missing: install it, or the package imageio-ffmpeg") from error


@functools.cache
def version() -> str:
    """Return the first line of `ffmpeg -version` without the copyright."""
    return _listing("-version").partition(" Copyright")[0]


@functools.cache
def encoders() -> frozenset[str]:
    """Return the names of the encoders of this ffmpeg."""
    lines = _listing("-encoders").splitlines()
    return frozenset(words[1] for line in lines if len(words := line.split()) > 1)


def stream_pcm(path: Path, *, sample_rate: int, start: float = 0.0, duration: float | None = None) -> Iterator[Block]:
    """Yield the audio of a file as mono PCM 16 bit, in blocks [shape=(n,)].

    Of several audio streams, the default one is decoded. Every file is decoded from its first sample, since positions
    in headers and indexes may be wrong: an excerpt equals the same part of the whole file. Where the channels cancel
    each other, the first one is used instead of their mean.

    `sample_rate` is that of the output in Hz; `start` and `duration` select an excerpt, in seconds; `duration` None: to
    the end. Raises AudioError if the file is missing, cannot be decoded, or has no audio after `start`.
    """
    begin, length = round(start * sample_rate), CHECK_S * sample_rate
    end = None if duration is None else begin + round(duration * sample_rate)
    means, first = (pieces(_excerpt(_decoded(path, sample_rate, channel), begin, end), length) for channel in (None, 0))
    is_empty, was_reported = True, False
    for piece, cancels in _without_cancelling(means, first, length):
        if cancels and not was_reported:
            process.warn(path, "its channels cancel each other: the first one is used")
            was_reported = True
        yield piece
        is_empty = False
    if is_empty:
        raise AudioError(f"{path}: holds no audio" + (f" after {start:g} s" if start else ""))


def pieces(blocks: Iterable[Block], length: int) -> Iterator[Block]:
    """Yield consecutive blocks as pieces of equal length; the last may be shorter."""
    parts: list[Block] = []
    missing = length
    for block in blocks:
        while len(block) >= missing:
            yield np.concatenate([*parts, block[:missing]])
            block, parts, missing = block[missing:], [], length
        parts.append(block)
        missing -= len(block)
    if missing < length:
        yield np.concatenate(parts)


def decoded_seconds(path: Path) -> float:
    """Return the duration of the audio of a file in seconds, by decoding it; AudioError if it cannot be decoded."""
    return sum(map(len, _decoded(path, COUNT_RATE_HZ, None))) / COUNT_RATE_HZ


def stream_native(path: Path) -> tuple[int, Iterator[npt.NDArray[np.float32]]]:
    """Decode the audio of a file (of several streams, the default one) to mono at its own sample rate.

    Return the sample rate in Hz and an iterator of consecutive samples [shape=(n,)]: the arithmetic mean of the
    channels, each clipped to [-1, 1]. Raises AudioError as `stream_pcm`, also while the blocks are read.
    """

    def bytes_per_s(head: bytes) -> int:  # of PCM 32 bit: sample rate and channels are in bytes 16 to 24
        return 4 * int(math.prod(struct.unpack_from(">2I", head, 16)))

    parts = _output_of(path, bytes_per_s, format="au", acodec="pcm_f32be", map_metadata=-1)
    head = b""
    while len(head) < 8 or len(head) < int.from_bytes(head[4:8]):  # header size, in bytes 4 to 8 of the AU header
        if not (part := next(parts, b"")):
            raise AudioError(f"{path}: holds no audio")
        head += part
    _, header_bytes, _, _, sample_rate, n_channels = struct.unpack_from(">6I", head)
    return sample_rate, _mono_blocks(path, itertools.chain([head[header_bytes:]], parts), n_channels)


def stream_hash(path: Path, *, bitstream_filter: str | None = None) -> str:
    """Return the SHA-256 of the encoded audio, without tags; AudioError if it cannot be read.

    `bitstream_filter` is one of ffmpeg's: "aac_adtstoasc" removes the headers of AAC packets.
    """
    options: Options = {"bsf:a": bitstream_filter} if bitstream_filter else {}
    output = b"".join(_output_of(path, bytes_per_s=None, part=None, format="hash", acodec="copy", **options))
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


def _excerpt(blocks: Iterable[Block], begin: int, end: int | None) -> Iterator[Block]:
    """Yield samples `begin` to `end` (None: all) of consecutive blocks."""
    position = 0
    for block in blocks:
        part = block[max(0, begin - position) : None if end is None else max(0, end - position)]
        if len(part):
            yield part
        position += len(block)
        if end is not None and position >= end:
            return


def _without_cancelling(means: Iterable[Block], first: Iterable[Block], length: int) -> Iterator[tuple[Block, bool]]:
    """Yield the pieces of the mean of the channels, or those of the first channel where the channels cancel each other.

    `first` is read only up to the last piece that is compared. The second value is whether the channels cancel. A last
    piece shorter than `length` is treated as the one before it.
    """
    numbered, cancels = enumerate(first), False
    for number, mean in enumerate(means):
        is_judged = number == 0 or len(mean) == length
        piece = mean
        if mean.std() < QUIET_RMS if is_judged else cancels:
            piece = next((piece for i, piece in numbered if i == number), mean)
        if is_judged:
            cancels = bool(mean.std() < CANCELLED_RATIO * piece.std())
        yield (piece if cancels else mean), cancels


def _mono_blocks(path: Path, parts: Iterable[bytes], n_channels: int) -> Iterator[npt.NDArray[np.float32]]:
    n_samples = 0
    for frames in _frames(parts, ">f4", n_channels):
        n_samples += len(frames)
        clipped = np.clip(frames.astype(np.float32), -1.0, 1.0)
        yield clipped.sum(axis=1, dtype=np.float32) / np.float32(n_channels)
    if not n_samples:
        raise AudioError(f"{path}: holds no audio")


def _decoded(path: Path, sample_rate: int, channel: int | None) -> Iterator[Block]:
    """Yield the mean of the channels of a file, or one channel, as mono PCM 16 bit, in blocks [shape=(n,)].

    Raises AudioError if nothing could be decoded.
    """
    layout: Options = {"ac": 1} if channel is None else {"af": f"pan=mono|c0=c{channel}"}
    options: Options = {"format": "s16le", "acodec": "pcm_s16le", "ar": sample_rate, **layout}
    bytes_per_s = (lambda _: 2 * sample_rate) if channel is None else None  # None: warn once, not for each channel
    _check_file(path)
    links = headers.links(path)
    n_samples = 0
    for link in links:
        try:
            parts = _output_of(path, bytes_per_s, link if len(links) > 1 else None, **options)
            for block in _frames(parts, "<i2", 1):
                n_samples += len(block)
                if n_samples >= sample_rate * MAX_SECONDS:
                    raise AudioError(f"{path}: is longer than {MAX_SECONDS // 3600} hours")
                yield block[:, 0]
        except AudioError as error:
            if (link == links[-1] and not n_samples) or len(links) == 1 or isinstance(error, TimeLimitError):
                raise
            process.warn(path, f"a part of the chained file is left out: {error}")


def _check_file(path: Path) -> None:
    """Raise AudioError if a path is not a readable file."""
    if not path.is_file():
        raise AudioError(f"{path}: " + ("is not a file" if path.exists() else "is not there"))
    try:
        path.open("rb").close()
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror})") from None


def _output_of(
    path: Path,
    bytes_per_s: Callable[[bytes], int] | None,
    part: tuple[int, int] | None = None,
    **options: str | int | None,
) -> Iterator[bytes]:
    """Yield the output of ffmpeg for the audio of a file, or of a part of its bytes, with the given output options.

    `bytes_per_s` returns the size of a second of output, given the first bytes of the output; with it, warnings are
    given about audio that could not be decoded.
    """
    _check_file(path)
    options |= {"vn": None, "sn": None, "dn": None, "flush_packets": 0}  # 0: large blocks instead of one per packet
    head, n_bytes = b"", 0
    with _reading(path, part, options) as reader:
        try:
            while data := reader.read():
                head = head or data
                n_bytes += len(data)
                yield data
        except GeneratorExit:  # no more is wanted
            if bytes_per_s:
                reader.report(None)
            raise
        reader.check_status()
        if bytes_per_s:
            reader.report(n_bytes / bytes_per_s(head) if head else None)


@contextlib.contextmanager
def _link_to(path: Path, part: tuple[int, int] | None) -> Iterator[Path]:
    """Yield a temporary symbolic link to a file, with an ASCII name; the file itself where links cannot be made.

    ffmpeg-python requires UTF-8 names, and ffmpeg could read a name as a protocol or an option. The extension is kept:
    ffmpeg identifies some formats by it (RSO, a FLAC file with a damaged head). With `part`, the first byte and the end
    of a part, the path is that of a copy of the part.
    """
    extension = path.suffix if re.fullmatch(r"\.\w{1,16}", path.suffix, re.ASCII) else ""
    with tempfile.TemporaryDirectory(prefix="audio-", ignore_cleanup_errors=True) as folder:
        link = Path(folder, f"input{extension}")
        if part:
            with path.open("rb") as source, link.open("wb") as target:
                source.seek(part[0])
                while source.tell() < part[1]:
                    target.write(source.read(min(process.READ_BYTES, part[1] - source.tell())))
        else:
            try:
                link.symlink_to(path.absolute())
            except OSError:
                link = path
        yield link


@contextlib.contextmanager
def _reading(path: Path, part: tuple[int, int] | None, options: Options) -> Iterator[process.Reader]:
    """Start ffmpeg on one file and no file named in it, and yield its reader; kill it at the end if it still runs."""
    import ffmpeg

    safe = {"protocol_whitelist": "file", "format_whitelist": DEMUXERS, "max_alloc": process.MAX_ALLOC_BYTES}
    quiet = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info")
    share = (part[1] - part[0]) / path.stat().st_size if part else 1.0
    with _link_to(path, part) as link:
        # Without -map, ffmpeg takes the default audio stream, or else the one with the most channels.
        output = ffmpeg.input(f"file:{link}", **safe).output("pipe:", **options)
        command = output.global_args(*quiet).compile(cmd=executable())
        with process.running(command, path, link, share) as reader:
            yield reader
