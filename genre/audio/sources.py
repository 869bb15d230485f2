"""Songs from standard input and, through yt-dlp, from http(s) URLs, as temporary files."""

from __future__ import annotations

import contextlib
import importlib.util
import math
import re
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

from genre.audio.process import LIMITED, time_limit
from genre.errors import AudioError

STANDARD_INPUT = "-"
MAX_BYTES = 1 << 30  # of one song: 100 minutes of CD audio
MAX_SECONDS = 600.0  # of a download
READ_BYTES = 1 << 20
STALLED_SECONDS = 20  # without data, after which yt-dlp closes a connection

# The user's configuration, plug-ins, cookies and cache are ignored, and only one item is downloaded.
YT_DLP_OPTIONS = (
    *("--ignore-config", "--no-plugin-dirs", "--no-cookies", "--no-cookies-from-browser", "--no-cache-dir"),
    *("--no-remote-components", "--no-playlist", "--break-match-filters", "!playlist_id"),
    *("--format", "bestaudio/best", "--fixup", "never", "--downloader", "native"),
    *("--retries", "2", "--fragment-retries", "2", "--extractor-retries", "1"),
    *("--socket-timeout", str(STALLED_SECONDS), "--abort-on-unavailable-fragments"),
    *("--no-mtime", "--no-part", "--no-progress", "--no-warnings", "--color", "never"),
)
_PLAYLIST_STATUS = 101  # exit status of yt-dlp for --break-match-filters


def is_file_name(name: str) -> bool:
    """Whether a SONG argument names a file or folder, not standard input or a URL."""
    return name != STANDARD_INPUT and not re.match(r"[a-z][a-z0-9+.-]*://", name, re.IGNORECASE)


@contextlib.contextmanager
def local_file(name: str, stop: threading.Event | None = None) -> Iterator[Path]:
    """Yield a song as a file: a local file itself, or a temporary file that is removed at the end.

    `name` is a file name, '-' for standard input, or the http(s) URL of an audio file or of a page that yt-dlp
    supports. Playlists are refused; of a video in a playlist, the video is taken. Raises AudioError if the song cannot
    be read or downloaded within `MAX_BYTES` and `MAX_SECONDS`. An AudioError raised in the context gets the name of the
    song in place of the temporary path. After `stop` is set, no file is decoded.
    """
    if is_file_name(name):
        with time_limit(math.inf, stop):
            yield Path(name)
        return
    with tempfile.TemporaryDirectory(prefix="song-", ignore_cleanup_errors=True) as folder, time_limit(math.inf, stop):
        path = _spool(Path(folder, "song")) if name == STANDARD_INPUT else _fetch(name, Path(folder))
        try:
            yield path
        except AudioError as error:
            shown = "standard input" if name == STANDARD_INPUT else name
            raise AudioError(str(error).replace(str(path), shown)) from error


def _spool(path: Path) -> Path:
    """Copy standard input to a file, and return it; AudioError if it is a terminal, empty or too large."""
    stream = sys.stdin.buffer
    if stream.isatty():
        raise AudioError("standard input: is a terminal; pipe a song into it, as in: cat song.mp3 | ...")
    size = 0
    with path.open("wb") as file:
        while block := stream.read(READ_BYTES):
            size += file.write(block)
            if size > MAX_BYTES:
                raise AudioError(f"standard input: is larger than {MAX_BYTES / 1e6:.3g} MB")
    if not size:
        raise AudioError("standard input: is empty")
    return path


def _fetch(url: str, folder: Path) -> Path:
    """Download a song with yt-dlp, in a process, into an empty folder, and return the file."""
    if not re.match(r"https?://", url, re.IGNORECASE):
        raise AudioError(f"{url}: only http and https URLs can be fetched")
    if importlib.util.find_spec("yt_dlp") is None:
        raise AudioError(f"{url}: needs yt-dlp: install it with `pip install yt-dlp`")
    # -P: no imports from the download folder. Without ffmpeg, since it would download the items of a playlist. LIMITED
    # is for servers that name no size.
    command = [*LIMITED, "unlimited", "unlimited", str(MAX_BYTES // 512), sys.executable, "-P", "-m", "yt_dlp"]
    command += [*YT_DLP_OPTIONS, "--max-filesize", str(MAX_BYTES), "--ffmpeg-location", ".", "--output", "song"]
    try:
        result = subprocess.run(
            [*command, "--", url],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=MAX_SECONDS,
            check=False,
            start_new_session=True,
        )
    except subprocess.TimeoutExpired:
        raise AudioError(f"{url}: was not fetched within {MAX_SECONDS:g} s") from None
    downloads = [path for path in folder.iterdir() if path.is_file()]
    if result.returncode == _PLAYLIST_STATUS:
        raise AudioError(f"{url}: is a playlist: give the URL of one song")
    if result.returncode or len(downloads) != 1:
        reason = _reason(result.stdout.decode("utf-8", errors="replace").strip(), url) or "yt-dlp gave no reason"
        raise AudioError(f"{url}: cannot be fetched ({reason})")
    return downloads[0]


def _reason(output: str, url: str) -> str:
    """Return the error message of yt-dlp without its extractor, the URL and advice to report it."""
    lines = re.findall(r"^ERROR: *(.+)$", output, re.MULTILINE) or output.split("\n")
    text = re.sub(r"^(\[[^\]]*\] *)?([^\s:]+: )?", "", lines[-1])
    text = re.split(r"; please report this issue|\(caused by", text)[0].replace(url, "")
    return re.sub(r"\w+\(host=[^)]*\): ", "", text).strip(" .;:")
