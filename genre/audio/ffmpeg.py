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
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from genre.audio import headers, process
from genre.errors import AudioError, TimeLimitError
from genre.files import atomic_path

Sample = TypeVar("Sample", np.int16, np.float32)
Block = npt.NDArray[np.int16]  # samples, shape (n,)
Options = dict[str, str | int | None]  # options of ffmpeg without their dash; None: an option without a value

# Demuxers that read audio from one file. Excluded: those that open files named in the file (hls, concat, dash, sdp,
# rtsp, imf, ...), images, raw and subtitle formats.
DEMUXERS = (
    "aa aac ac3 aiff amr amrnb amrwb ape apc asf au avi caf dsf dts dtshd eac3 flac flv iff ircam kux "
    "libopenmpt libgme lrc matroska,webm mlp mmf mov,mp4,m4a,3gp,3g2,mj2 mp3 mpc mpc8 mpeg mpegts mxf nistsphere "
    "nut ogg oma paf pvf qcp rm rso sbc shn sol sox spdif svx swf tak truehd tta voc vqf w64 wav wsaud wv xa xwma"
).replace(" ", ",")
FRAMES = "asetnsamples=n=4608:p=0"  # four frames of an mp3 in one: ffmpeg hands each frame from thread to thread
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
    command = [executable(), "-version"]
    output = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False).stdout
    return output.partition(" Copyright")[0]


def stream_pcm(path: Path, *, sample_rate: int, start: float = 0.0, duration: float | None = None) -> Iterator[Block]:
    """Yield the audio of a file as mono PCM 16 bit, in blocks [shape=(n,)].

    Of several audio streams, the default one is decoded. Two channels are averaged, more are mixed by ffmpeg (without
    LFE), and where they cancel each other, the first one is used. Every file is decoded from its first sample, since
    positions in headers and indexes may be wrong: an excerpt equals the same part of the whole file.

    `sample_rate` is that of the output in Hz; `start` and `duration` select an excerpt, in seconds; `duration` None: to
    the end. Raises AudioError if the file is missing, cannot be decoded, or has no audio after `start`.
    """
    if not (0.0 <= start < math.inf and 0.0 < (1.0 if duration is None else duration) < math.inf):
        raise AudioError(f"{path}: start must be 0 s or more, and duration above 0 s: they are {start} and {duration}")
    begin, length = round(start * sample_rate), CHECK_S * sample_rate
    end = None if duration is None else begin + round(duration * sample_rate)
    means, first = (pieces(_excerpt(_decoded(path, sample_rate, channel), begin, end), length) for channel in (None, 0))
    cancelled: list[bool] = []
    for piece, cancels in _without_cancelling(means, first, length):
        yield piece
        cancelled.append(cancels)
    if any(cancelled):
        process.warn(path, "its channels cancel each other: the first one is used")
    if not cancelled:
        raise AudioError(f"{path}: holds no audio" + (f" after {start:g} s" if start else ""))


def pieces(blocks: Iterable[npt.NDArray[Sample]], length: int) -> Iterator[npt.NDArray[Sample]]:
    """Yield consecutive blocks as pieces of equal length; the last may be shorter."""
    parts: list[npt.NDArray[Sample]] = []
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


def stream_channels(path: Path) -> tuple[int, Iterator[npt.NDArray[np.float32]]]:
    """Decode the audio of a file (of several streams, the default one) at its own sample rate.

    Return the sample rate in Hz and an iterator of consecutive samples [shape=(n, channels)]; those of lossy formats
    may exceed full scale, 1.0. Raises AudioError as `stream_pcm`, also while the blocks are read.
    """
    check_file(path)
    parts = _frames(path, "f32")
    first = next(parts, None)
    if first is None:
        raise AudioError(f"{path}: holds no audio")
    return first[0], (frames for _, frames in itertools.chain([first], parts))


def stream_hash(path: Path, *, bitstream_filter: str | None = None) -> str:
    """Return the SHA-256 of the encoded audio, without tags; AudioError if it cannot be read.

    `bitstream_filter` is one of ffmpeg's: "aac_adtstoasc" removes the headers of AAC packets. The last packet that
    ffmpeg reads of Monkey's Audio includes the tags, so its audio is decoded.
    """
    options: Options = {"bsf:a": bitstream_filter} if bitstream_filter else {}
    check_file(path)
    with path.open("rb") as stream:
        codec = "pcm_s32le" if stream.read(4) == b"MAC " else "copy"
    with _reading(path, None, {"format": "hash", "acodec": codec, **options}) as reader:
        output = b"".join(reader.blocks())
    return output.decode().strip().removeprefix("SHA256=").lower()


def check_file(path: Path) -> None:
    """Raise AudioError if a path is not a readable file."""
    if not path.is_file():
        raise AudioError(f"{path}: " + ("is not a file" if path.exists() else "is not there"))
    try:
        path.open("rb").close()
    except OSError as error:
        raise AudioError(f"{path}: cannot be read ({error.strerror})") from None


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


def _decoded(path: Path, sample_rate: int, channel: int | None) -> Iterator[Block]:
    """Yield the mix of the channels of a file, or one channel, as mono PCM 16 bit, in blocks [shape=(n,)].

    Raises AudioError if nothing could be decoded.
    """
    filters = FRAMES if channel is None else f"{FRAMES},pan=mono|c0=c{channel}"
    check_file(path)
    links = headers.links(path)
    n_samples = 0
    for link in links:
        try:
            part = link if len(links) > 1 else None
            for _, frames in _frames(path, "s16", part, warns=channel is None, ar=sample_rate, ac=1, af=filters):
                n_samples += len(frames)
                if n_samples >= sample_rate * MAX_SECONDS:
                    raise AudioError(f"{path}: is longer than {MAX_SECONDS // 3600} hours")
                yield frames[:, 0]
        except AudioError as error:
            if (link == links[-1] and not n_samples) or len(links) == 1 or isinstance(error, TimeLimitError):
                raise
            process.warn(path, f"a part of the chained file is left out: {error}")


def _frames(
    path: Path, sample_format: str, part: tuple[int, int] | None = None, *, warns: bool = True, **options: str | int
) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    """Yield the sample rate in Hz and consecutive samples [shape=(n, n_channels)] of a file or of a part of its bytes.

    `sample_format` is s16 or f32, and `options` are output options of ffmpeg. With `warns`, warnings are given about
    audio that could not be decoded.
    """
    dtype = np.dtype({"s16": np.int16, "f32": np.float32}[sample_format])
    au: Options = {"format": "au", "acodec": f"pcm_{sample_format}be", "map_metadata": -1}
    with _reading(path, part, {**options, **au}) as reader:

        def report(seconds: float | None) -> None:
            for sentence in headers.findings(reader.messages(), path, seconds) if warns else ():
                process.warn(path, sentence)

        blocks = reader.blocks()
        if not (data := next(blocks, b"")):  # ffmpeg writes the header at once, so that the first block contains it
            return
        _, header_bytes, _, _, sample_rate, n_channels = struct.unpack_from(">6I", data)
        data, n_samples = data[header_bytes:], 0
        try:
            for block in itertools.chain([b""], blocks):
                data += block
                n_bytes = len(data) - len(data) % (dtype.itemsize * n_channels)  # a frame may extend over two blocks
                samples = np.frombuffer(data[:n_bytes], dtype.newbyteorder(">")).reshape(-1, n_channels)
                data, n_samples = data[n_bytes:], n_samples + len(samples)
                if len(samples):
                    yield sample_rate, samples.astype(dtype)
        except GeneratorExit:  # no more is wanted
            report(None)
            raise
        report(n_samples / sample_rate)


@contextlib.contextmanager
def _reading(path: Path, part: tuple[int, int] | None, options: Options) -> Iterator[process.Reader]:
    """Start ffmpeg on a file and no file named in it, and yield its reader; kill it at the end if it still runs.

    `part` is the first byte and the end of a part of the file. ffmpeg gets a temporary symbolic link with an ASCII
    name: ffmpeg-python requires UTF-8 names, and ffmpeg could read a name as a protocol or an option. The extension is
    kept: ffmpeg identifies some formats by it (RSO, a FLAC file with a damaged head).
    """
    import ffmpeg

    extension = path.suffix if re.fullmatch(r"\.\w{1,16}", path.suffix, re.ASCII) else ""
    with tempfile.TemporaryDirectory(prefix="audio-", ignore_cleanup_errors=True) as folder:
        link = Path(folder, f"input{extension}")
        link.symlink_to(path.absolute())
        url, protocols, share = f"file:{link}", "file", 1.0
        if part:
            url, protocols = f"subfile,,start,{part[0]},end,{part[1]},,:{link}", "file,subfile"
            share = (part[1] - part[0]) / path.stat().st_size
        limits = {"format_whitelist": DEMUXERS, "max_alloc": process.MAX_ALLOC_BYTES}
        source = ffmpeg.input(url, protocol_whitelist=protocols, **limits)
        # Without -map, ffmpeg takes the default audio stream, or else the one with the most channels.
        output = source.output("pipe:", vn=None, sn=None, dn=None, flush_packets=0, **options)  # 0: large blocks
        quiet = ("-hide_banner", "-nostdin", "-nostats", "-loglevel", "level+info")
        with process.running(output.global_args(*quiet).compile(cmd=executable()), path, url, share) as reader:
            yield reader
