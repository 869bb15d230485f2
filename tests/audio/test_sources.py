"""Songs from standard input and URLs, and the removal of their temporary files."""

from __future__ import annotations

import contextlib
import http.server
import importlib.util
import io
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from genre.audio import sources
from genre.errors import AudioError
from tests.made import make_song, serving


@pytest.fixture(autouse=True)
def temporary_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Give each test a folder for temporary files with spaces and a '%', which must be empty afterwards."""
    folder = tmp_path / "temporary 100%(ext)s files"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield folder
    assert not list(folder.iterdir())


@pytest.fixture(scope="module")
def song(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_song(tmp_path_factory.mktemp("song") / "song.wav", seconds=2.0)


@pytest.fixture(scope="module")
def server(song: Path) -> Iterator[str]:
    """Return the address of a server on loopback with a song and other pages."""
    pytest.importorskip("yt_dlp", reason="the extra 'urls' is not installed")
    _Handler.song_bytes = song.read_bytes()
    with serving(_Handler) as address:
        yield f"http://{address}"


class _Handler(http.server.BaseHTTPRequestHandler):
    song_bytes: bytes

    def do_GET(self) -> None:
        playlist = "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n"
        feed = "<rss version='2.0'><channel><item><title>a</title><link>/song.wav</link></item></channel></rss>"
        pages: dict[str, tuple[int, dict[str, str], bytes]] = {
            "/song.wav": (200, {"Content-Type": "audio/x-wav"}, self.song_bytes),
            "/page.html": (200, {"Content-Type": "text/html"}, b"<html><title>t</title><body>no song</body></html>"),
            "/feed.xml": (200, {"Content-Type": "application/rss+xml"}, feed.encode()),
            "/list.m3u8": (200, {"Content-Type": "application/vnd.apple.mpegurl"}, playlist.encode()),
            "/redirect": (302, {"Location": "/song.wav"}, b""),
            "/to-a-file": (302, {"Location": "file:///etc/passwd"}, b""),
            "/large": (200, {"Content-Type": "audio/mpeg", "Content-Length": str(10**12)}, b""),
            "/endless": (200, {"Content-Type": "audio/mpeg", "Connection": "close"}, b""),
            "/slow": (200, {"Content-Type": "audio/mpeg", "Connection": "close"}, b""),
        }
        status, headers, body = pages.get(self.path, (404, {}, b""))
        self.send_response(status)
        if "Connection" not in headers:
            headers.setdefault("Content-Length", str(len(body)))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        with contextlib.suppress(OSError):  # the client has disconnected
            self.wfile.write(body)
            end = time.monotonic() + 30
            while "Connection" in headers and time.monotonic() < end:
                self.wfile.write(b"\0" * 65_536 if self.path == "/endless" else b"x")
                time.sleep(0.005 if self.path == "/endless" else 0.3)


@pytest.mark.slow
def test_a_song_is_fetched_as_it_is_through_a_redirect(server: str, song: Path, temporary_files: Path) -> None:
    with sources.local_file(f"{server}/redirect") as path:
        assert path.read_bytes() == song.read_bytes()
        assert temporary_files in path.parents


@pytest.mark.slow
@pytest.mark.parametrize(
    ("page", "reason"),
    [
        ("none.mp3", "HTTP Error 404: Not Found"),
        ("page.html", "Unsupported URL"),
        ("feed.xml", "is a playlist: give the URL of one song"),
        ("list.m3u8", "file:// URLs are disabled"),
        ("to-a-file", "cannot be fetched"),
        ("large", "larger than max-filesize"),
        ("endless", "File too large"),
    ],
)
def test_a_failed_download_is_one_sentence_with_the_url(
    server: str, page: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sources, "MAX_BYTES", 5_000_000)
    with pytest.raises(AudioError) as caught, sources.local_file(f"{server}/{page}"):
        pass
    message = str(caught.value)
    assert message.startswith(f"{server}/{page}: ")
    assert reason in message
    assert message.count(server) == 1
    assert "\n" not in message and "\x1b" not in message and "Traceback" not in message and "report" not in message


@pytest.mark.slow
def test_a_slow_server_is_abandoned_in_time(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    start = time.monotonic()
    url = f"{server}/slow"
    monkeypatch.setattr(sources, "MAX_SECONDS", 2.0)
    with pytest.raises(AudioError, match=rf"^{url}: was not fetched within 2 s"), sources.local_file(url):
        pass
    assert time.monotonic() - start < 25  # of the 30 s that the server sends


@pytest.mark.slow
def test_configuration_and_plugins_of_the_user_are_ignored(
    server: str, song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    witness = tmp_path / "witness"
    config = tmp_path / "home" / ".config" / "yt-dlp"
    plugin = config / "plugins" / "mine" / "yt_dlp_plugins" / "extractor" / "mine.py"
    module = tmp_path / "here" / "yt_dlp" / "__init__.py"
    for path in (plugin, module):
        path.parent.mkdir(parents=True)
        path.write_text(f"open({str(witness)!r}, 'w').close()\n")
    (config / "config").write_text(f"--exec 'touch {witness}'\n--proxy http://127.0.0.1:9\n")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config.parent))
    monkeypatch.chdir(tmp_path / "here")
    with sources.local_file(f"{server}/song.wav") as path:
        assert path.read_bytes() == song.read_bytes()
    assert not witness.exists()


def test_without_yt_dlp_the_error_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    url = "https://example.org/a.mp3"
    with pytest.raises(AudioError, match=rf"^{url}: needs yt-dlp: .*pip install yt-dlp"), sources.local_file(url):
        pass


@pytest.mark.parametrize("url", ["file:///etc/passwd", "ftp://example.org/a.mp3", "ytsearch://x", "FILE://x"])
def test_other_schemes_are_refused(url: str) -> None:
    with pytest.raises(AudioError, match=r"only http and https"), sources.local_file(url):
        pass


@pytest.mark.parametrize("name", ["song.mp3", "http:x.wav", "-y.wav", "./-", "C:\\x.mp3", "a//b", ""])
def test_a_file_with_any_other_name_is_used_itself(name: str) -> None:
    with sources.local_file(name) as path:
        assert path == Path(name)


def test_a_dash_is_standard_input_and_an_interruption_leaves_no_file(
    song: Path, temporary_files: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with song.open("rb") as stream, pytest.raises(KeyboardInterrupt):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(stream))
        with sources.local_file("-") as path:
            assert temporary_files in path.parents
            assert path.read_bytes() == song.read_bytes()
            raise KeyboardInterrupt


@pytest.mark.parametrize(("size", "reason"), [(0, "is empty"), (2001, "is larger than 0.002 MB"), (None, "is a term")])
def test_standard_input_must_not_be_empty_too_large_or_a_terminal(
    size: int | None, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = os.openpty()
    with open(theirs, "rb", buffering=0) as terminal, pytest.raises(AudioError, match=f"^standard input: {reason}"):
        stream = terminal if size is None else io.BytesIO(bytes(size))
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=stream))
        monkeypatch.setattr(sources, "MAX_BYTES", 2000)
        sources.local_file("-").__enter__()
    os.close(ours)
