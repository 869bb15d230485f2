"""Hostile files: only the given file is opened, nothing is downloaded, time and memory are limited."""

from __future__ import annotations

import resource
import struct
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import mutagen.id3
import numpy as np
import pytest

from genre.audio import chunks, ffmpeg, process
from genre.cli import answer_all
from genre.errors import AudioError, TimeLimitError
from tests.made import ape_bomb, ffmpeg_run, make_song, python, serving

pytestmark = pytest.mark.slow

RATE = 8000  # Hz
LIMIT_S = 30  # generous, for a busy machine


@pytest.fixture
def requests() -> Iterator[tuple[str, list[str]]]:
    """Return the address of a server on loopback, and the list of the paths requested from it."""
    paths: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            paths.append(self.path)
            self.send_error(404)

    with serving(Handler) as address:
        yield address, paths


def _cut(path: Path) -> list[chunks.Chunk]:
    return list(chunks.iterate(path, sample_rate=RATE, chunk_seconds=3.0, min_seconds=1.0))


PLAYLISTS = {
    "HLS": "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{target}\n#EXT-X-ENDLIST\n",
    "HLS key": '#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-KEY:METHOD=AES-128,URI="{target}"\n#EXTINF:4,\n{target}\n'
    "#EXT-X-ENDLIST\n",
    "HLS master": "#EXTM3U\n#EXT-X-STREAM-INF:BANDWIDTH=1\n{target}\n",
    "ffconcat": "ffconcat version 1.0\nfile '{target}'\n",
    "PLS": "[playlist]\nFile1={target}\nNumberOfEntries=1\n",
    "SDP": "v=0\no=- 0 0 IN IP4 {host}\ns=x\nc=IN IP4 {host}\nt=0 0\nm=audio {port} RTP/AVP 0\na=control:{target}\n",
    "DASH": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"'
    ' mediaPresentationDuration="PT4S"><Period><AdaptationSet mimeType="audio/mp4">'
    '<Representation id="1" bandwidth="1"><BaseURL>{target}</BaseURL>'
    "</Representation></AdaptationSet></Period></MPD>",
    "IMF": '<?xml version="1.0"?><CompositionPlaylist xmlns="http://www.smpte-ra.org/schemas/2067-3/2016">'
    "<Id>urn:uuid:0</Id><ContentTitle>{target}</ContentTitle></CompositionPlaylist>",
    "RTSP redirect": "RTSPtextRTSP://{target}\n",
}


@pytest.mark.parametrize("kind", PLAYLISTS)
@pytest.mark.parametrize("suffix", [".mp3", ".m3u8"])
def test_a_file_can_name_no_other_file_and_no_host(
    tmp_path: Path, requests: tuple[str, list[str]], kind: str, suffix: str
) -> None:
    address, paths = requests
    secret = make_song(tmp_path / "secret.wav", sample_rate=RATE)
    host, port = address.split(":")
    targets = [str(secret), f"file:{secret}", secret.name, f"http://{address}/song.wav"]
    targets += [f"subfile,,start,0,end,0,,:{secret}", f"concat:{secret}|{secret}", f"crypto+http://{address}/song.wav"]
    for target in targets:
        path = tmp_path / f"upload{suffix}"
        path.write_text(PLAYLISTS[kind].format(target=target, host=host, port=port))
        with pytest.raises(AudioError, match="upload"):
            _cut(path)
    assert paths == []


NAMES = (
    "data:audio/wav;base64,UklGRiQAAABXQVZF subfile,,start,0,end,0,,:secret.wav concat:secret.wav|secret.wav"
    " http://{address}/song.wav tcp://{address} pipe:0 /dev/zero /proc/self/environ/x -i lavfi"
)


@pytest.mark.parametrize("name", NAMES.split())
def test_a_name_of_a_protocol_or_device_is_never_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, requests: tuple[str, list[str]], name: str
) -> None:
    address, paths = requests
    make_song(tmp_path / "secret.wav", sample_rate=RATE)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AudioError, match=r"is not there|is not a file"):
        _cut(Path(name.format(address=address)))
    assert paths == []


def test_ten_hours_of_silence_in_a_small_file_are_cut_in_limited_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.flac"
    ffmpeg_run("-f", "lavfi", "-i", f"anullsrc=r={RATE}:cl=mono", "-t", 36000, "-frame_size", 65535, path)
    assert path.stat().st_size < 1_000_000
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    count = sum(1 for _ in chunks.iterate(path, sample_rate=RATE, chunk_seconds=30.0, min_seconds=1.0))
    assert count == 1200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 50_000  # kB


def test_a_song_that_is_too_long_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffmpeg, "MAX_SECONDS", 2)
    with pytest.raises(AudioError, match=r"long\.wav: is longer than"):
        _cut(make_song(tmp_path / "long.wav", sample_rate=RATE))


@pytest.fixture
def hanging(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a song for which ffmpeg hangs; no file that does it is known."""
    fake = tmp_path / "ffmpeg"
    fake.write_text("#!/bin/sh\nexec sleep 1000\n")
    fake.chmod(0o755)
    (tmp_path / "song.mp3").write_bytes(b"x")
    monkeypatch.setattr(ffmpeg, "executable", lambda: str(fake))
    return tmp_path / "song.mp3"


@pytest.mark.parametrize("end", ["stall", "deadline", "event", "kill_all"])
def test_decoding_ends_with_its_time_limit_or_when_it_is_cancelled(
    hanging: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    children = Path(f"/proc/self/task/{threading.main_thread().native_id}/children")
    before = children.read_text() if children.is_file() else None
    monkeypatch.setattr(process, "STALL_S", 0.5 if end == "stall" else 60)
    cancelled = threading.Event()
    actions = {"event": cancelled.set, "kill_all": process.kill_all}
    timer = threading.Timer(0.3, actions.get(end, lambda: None))
    timer.start()
    error = TimeLimitError if end in ("deadline", "event") else AudioError
    with process.time_limit(0.3 if end == "deadline" else 1000, cancelled), pytest.raises(error, match=r"song\.mp3"):
        _cut(hanging)
    timer.join()
    assert before is None or children.read_text() == before


@pytest.mark.parametrize("rate", [2_822_400, 352_800_000])
def test_a_small_file_of_endless_work_costs_one_song(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    rate: int,
) -> None:
    monkeypatch.setattr(process, "BASE_CPU_S", 1.0)
    bomb, clip = tmp_path / "bomb.ape", make_song(tmp_path / "clip.wav", sample_rate=RATE)
    bomb.write_bytes(ape_bomb(rate))
    songs, header, rows = [str(bomb), str(clip)], ["file", "n"], lambda answer: [[answer["file"], answer["n"]]]
    assert answer_all(songs, lambda path: {"n": len(_cut(path))}, str, "csv", header, rows) == 1
    printed = capsys.readouterr()
    assert printed.out == f"file,n\n{clip},2\n"
    assert "bomb.ape: cannot be decoded (it needs more than 2 s of processor time)" in printed.err


HEADERS = {  # format, offset and value of a field of a WAV file (channels, sample rate, block align, bits, data size)
    "a rate of 0": ("<I", 24, 0),
    "a rate of 4 GHz": ("<I", 24, 2**32 - 1),
    "no channel": ("<H", 22, 0),
    "65535 channels": ("<H", 22, 65535),
    "64 bits": ("<H", 34, 64),
    "an alignment of 0": ("<H", 32, 0),
    "4 GB claimed": ("<I", 40, 2**32 - 1),
}


@pytest.mark.parametrize("kind", HEADERS)
def test_an_absurd_header_is_decoded_or_refused_in_limited_time(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "absurd.wav"
    chunks.write(path, np.zeros(4000, np.int16), sample_rate=RATE)
    data = bytearray(path.read_bytes())
    form, offset, value = HEADERS[kind]
    struct.pack_into(form, data, offset, value)
    path.write_bytes(data)
    start = time.monotonic()
    try:
        assert len(_cut(path)) < 1400
    except AudioError as error:
        assert "absurd.wav" in str(error)
    assert time.monotonic() - start < LIMIT_S


def test_a_huge_cover_costs_neither_time_nor_memory(tmp_path: Path) -> None:
    path = make_song(tmp_path / "song.mp3", seconds=6.0, sample_rate=RATE)
    cover = tmp_path / "cover.png"
    ffmpeg_run("-f", "lavfi", "-i", "color=s=10000x10000", "-frames:v", 1, cover)
    tags = mutagen.id3.ID3()
    tags.add(mutagen.id3.APIC(encoding=3, mime="image/png", type=3, desc="", data=cover.read_bytes()))
    tags.save(path)
    code = (
        "import resource, sys; from pathlib import Path; from genre.audio import ffmpeg;"
        "print(ffmpeg.decoded_seconds(Path(sys.argv[1])));"
        "print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    seconds, peak_kb = map(float, python(tmp_path, "-c", code, path).stdout.split())
    assert seconds == pytest.approx(6.0, abs=0.1)
    assert peak_kb < 200_000  # decoded, the cover alone has 300 MB


@pytest.mark.parametrize("suffix", ["mp3", "flac", "m4a", "ogg", "wav", "opus", "aiff", "wma"])
def test_a_truncated_file_is_decoded_or_refused_by_name(tmp_path: Path, suffix: str) -> None:
    data = make_song(tmp_path / f"song.{suffix}", seconds=4.0, sample_rate=48_000).read_bytes()
    path = tmp_path / f"cut.{suffix}"
    seconds = []
    for sixteenth in range(16):
        path.write_bytes(data[: len(data) * sixteenth // 16])
        try:
            seconds.append(sum(chunk.seconds for chunk in _cut(path)))
        except AudioError as error:
            assert path.name in str(error)
            assert "\n" not in str(error)
    assert seconds == sorted(seconds)  # a longer part of the file never gives less audio
    assert max(seconds, default=0.0) <= 4.2
