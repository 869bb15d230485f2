"""The endpoints of the HTTP service, over loopback to a real process."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest

from genre import Project, archives, params
from genre.audio import manifest
from genre.web import app, service
from stages import identify, query, similar, split
from tests.made import write_params
from tests.web.conftest import MODEL, Server, StartServer, form

ANALYSIS = ["/", "/v1/query", "/v1/identify", "/v1/similar"]
MAX_BYTES = 2_000_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server(serve__max_upload_bytes=MAX_BYTES, serve__hosts=["music.example"])


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server.url, timeout=60) as connected:
        yield connected


def _failed(response: httpx.Response, status: int) -> str:
    """Check that a response is an error in the form of all errors; return its message."""
    assert response.status_code == status, response.text
    assert response.headers["content-type"] == "application/json"
    assert set(response.json()) == {"status", "message"}
    assert response.json()["status"] == "error"
    message: str = response.json()["message"]
    assert not re.search(r"/tmp|Traceback|File \"|genre-\w", message)
    return message


def test_the_answer_of_the_first_version_is_still_given(client: httpx.Client, songs: list[Path]) -> None:
    answer = client.post("/?anything=1", files=form(songs[0])).json()  # it accepted any parameter
    assert 0 < answer.pop("duration") < 60
    assert answer == {"message": "jazz", "status": "success"}


@pytest.mark.parametrize(
    ("path", "command", "options"),
    [
        ("/v1/query?start=1&duration=5", query, ["--start", "1", "--duration", "5", "--model", MODEL]),
        ("/v1/query", query, ["--model", MODEL]),
        ("/v1/identify?start=2&duration=4", identify, ["--start", "2", "--duration", "4"]),
        ("/v1/similar?top=3", similar, ["--top", "3"]),
    ],
)
def test_the_answers_are_those_of_the_commands(
    client: httpx.Client,
    songs: list[Path],
    copied: Path,
    capsys: pytest.CaptureFixture[str],
    path: str,
    command: Any,
    options: list[str],
) -> None:
    answer = client.post(path, files=form(songs[4])).json()
    assert command.main([str(songs[4]), *options, "--format", "json"]) == 0
    expected = json.loads(capsys.readouterr().out)
    for match in (expected, *expected.get("songs", [])):
        match.pop("path", None)  # of the command only
    assert list(answer) == list(expected)
    assert answer == {**expected, "file": songs[4].name}


@pytest.mark.parametrize("path", ANALYSIS)
def test_a_file_without_audio_is_a_400_that_names_the_upload(client: httpx.Client, path: str) -> None:
    for name in ("notes.txt", "README.md", "Übung.wav"):
        assert _failed(client.post(path, files={"audio": (name, b"not a song\n")}), 400).startswith(f"{name}: ")
        assert "empty" in _failed(client.post(path, files={"audio": (name, b"")}), 400)


@pytest.mark.parametrize("path", ANALYSIS)
def test_without_a_song_the_field_is_named(client: httpx.Client, path: str) -> None:
    other = {"other": ("a.wav", b"RIFF")}
    for body in ({}, {"files": other}, {"data": {"audio": "a.wav"}, "files": other}, {"files": {"audio": ("", b"")}}):
        assert "audio" in _failed(client.post(path, **body), 422)


@pytest.mark.parametrize("content_type", ["application/json", "audio/wav", "application/x-www-form-urlencoded", ""])
def test_another_content_type_is_a_415(client: httpx.Client, content_type: str) -> None:
    _failed(client.post("/", content=b"{}", headers={"content-type": content_type}), 415)
    _failed(client.post("/", content=b"a", headers={"content-type": "multipart/form-data"}), 400)  # no boundary


@pytest.mark.parametrize(
    "query", "start=-1 start=nan start=1e400 duration=0 duration=x top=0 top=101 top=1.5 strat=5".split()
)
def test_an_invalid_parameter_is_named(client: httpx.Client, songs: list[Path], query: str) -> None:
    message = _failed(client.post(f"/v1/similar?{query}", files=form(songs[0])), 422)
    assert message.startswith(f"{query.partition('=')[0]}: ")


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("../../etc/passwd.wav", "passwd.wav"),
        ("C:\\music\\a.wav", "a.wav"),
        ("a\u202eb.wav", "ab.wav"),
        ("x" * 300 + ".wav", "x" * 196 + ".wav"),
        ("/", "upload"),
        ("a/..", "upload"),
        ("é" * 300, "é" * 100),
    ],
)
def test_the_name_of_an_upload_is_only_a_name(client: httpx.Client, songs: list[Path], name: str, shown: str) -> None:
    assert client.post("/v1/query", files={"audio": (name, songs[0].read_bytes())}).json()["file"] == shown


def test_a_path_that_is_not_served_and_a_wrong_method_answer_in_the_same_form(client: httpx.Client) -> None:
    assert "/docs" in _failed(client.get("/v2/query"), 404)
    assert _failed(client.get("/v1/query"), 405)
    assert client.get("/v1/query").headers["allow"] == "POST"


def test_each_of_sixteen_clients_at_once_gets_the_answer_about_its_own_song_without_tensorflow(
    client: httpx.Client, server: Server, songs: list[Path]
) -> None:
    uploads = [(path, song) for path in ("/v1/query", "/v1/identify", "/v1/similar") for song in songs]
    expected = [client.post(path, files=form(song)).json() for path, song in uploads]
    with ThreadPoolExecutor(16) as pool:
        answers = pool.map(lambda upload: client.post(upload[0], files=form(upload[1])), uploads)
        assert [answer.json() for answer in answers] == expected
    assert [answer["file"] for answer in expected] == 3 * [song.name for song in songs]
    maps = Path(f"/proc/{server.process.pid}/maps")
    assert not (maps.is_file() and re.search(r"tensorflow|keras", maps.read_text()))


def test_requests_are_counted_by_path_and_status(client: httpx.Client, server: Server, songs: list[Path]) -> None:
    labels = ('path="/v1/query",status="200"', 'path="/v1/query",status="400"', 'path="other",status="404"')

    def counts() -> list[float]:
        return [server.metric(f"genre_request_seconds_count{{{label}}}") for label in labels]

    before, audio_s = counts(), server.metric("genre_audio_seconds_total")
    client.post("/v1/query", files=form(songs[0]))
    client.post("/v1/query", files={"audio": ("a.wav", b"no")})
    client.get("/a")
    client.get("/b")
    assert counts() == [before[0] + 1, before[1] + 1, before[2] + 2]
    assert server.metric("genre_audio_seconds_total") == pytest.approx(audio_s + 8.0, abs=0.1)
    assert server.metric("genre_queue_running") == server.metric("genre_queue_waiting") == 0
    assert server.metric("genre_ready") == 1


def test_the_documentation_names_no_other_host(client: httpx.Client) -> None:
    assets = re.findall(r'(?:src|href)="([^"]+)"', client.get("/docs").text)
    assert assets
    for asset in assets:
        assert "//" not in asset
        assert client.get(f"/{asset}").status_code == 200, asset
    assert set(ANALYSIS) < set(client.get("/openapi.json").json()["paths"])
    assert '"path"' not in client.get("/openapi.json").text  # of an indexed song


def test_the_root_leads_to_the_page_browsers_find_the_icon_and_probes_may_use_head(client: httpx.Client) -> None:
    assert client.get("/").headers["location"] == client.get("/ui").headers["location"] == "ui/"
    assert client.head("/healthz").status_code == client.head("/readyz").status_code == 200
    assert client.get("/favicon.ico").headers["content-type"] == "image/svg+xml"


def test_info_names_the_model_the_limits_and_example_songs(client: httpx.Client) -> None:
    info = client.get("/v1/info").json()
    assert (info["model"], info["genres"], info["max_upload_bytes"]) == (MODEL, ["jazz", "rock"], MAX_BYTES)
    assert info["accuracy"] is None or 0 <= info["accuracy"] <= 1
    assert {song["genre"] for song in info["examples"]} <= {"jazz", "rock"}


def test_indexed_songs_can_be_played_in_ranges_and_no_other_file_can_be_fetched(
    client: httpx.Client, songs: list[Path]
) -> None:
    song = {"genre": songs[0].parent.name, "song": songs[0].stem}
    answer = client.get("/v1/audio", params=song, headers={"range": "bytes=100-199"})
    assert (answer.status_code, answer.headers["content-type"]) == (206, "audio/wav")
    assert answer.content == songs[0].read_bytes()[100:200]
    for name in ("nothing", "../../params", "/etc/passwd", "1.wav"):
        _failed(client.get("/v1/audio", params={"genre": "jazz", "song": name}), 404)
    for path in ("/ui/../params.yaml", "/ui/%2e%2e/app.py"):
        _failed(client.get(path), 404)


def test_a_song_that_browsers_cannot_play_is_played_by_its_first_chunk_in_an_archive(copied: Path) -> None:
    write_params(copied, split__pack=True)
    assert split.main([]) == 0
    row = manifest.read(copied / "chunks")[0]
    (copied / row.source).unlink()
    with contextlib.closing(service.Service(Project(model=MODEL), params.load().serve)) as loaded:
        loaded.load("")
        answer = app.audio(loaded, row.genre, row.song)
    assert answer.body == archives.read_bytes(copied / "chunks" / row.chunk)
    assert answer.headers["content-type"] == "audio/wav"


def test_every_response_has_the_security_headers_and_none_for_other_sites(client: httpx.Client) -> None:
    for answer in (client.get("/docs"), client.get("/nowhere"), client.post("/"), client.get("/metrics")):
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert not [name for name in answer.headers if name.startswith("access-control") or name == "server"]


def test_other_sites_and_other_names_are_refused(client: httpx.Client, server: Server) -> None:
    _failed(client.get("/healthz", headers={"host": "rebound.example"}), 421)
    for origin in ("https://evil.example", "null", "http://[", "http://[::1", "//", "http://a]b"):
        _failed(client.post("/", headers={"origin": origin}), 403)
    port = server.url.rpartition(":")[2]
    for host in ("localhost", "music.example"):  # of probes on this machine, and of serve.hosts
        assert client.get("/healthz", headers={"host": f"{host}:{port}"}).status_code == 200
    _failed(client.post("/", headers={"origin": server.url}), 422)


def test_every_response_matches_the_openapi_description(server: Server) -> None:
    """Schemathesis sends valid and invalid requests and compares the responses with the description."""
    tool = Path(sys.executable).with_name("schemathesis")
    if not tool.exists():
        pytest.skip("schemathesis is not installed")
    checks = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"
    options = ["--checks", checks, "--max-examples", "12", "--seed", "7", "--phases", "examples,fuzzing", "--no-color"]
    command = [str(tool), "run", f"{server.url}/openapi.json", *options]
    result = subprocess.run(command, capture_output=True, text=True, timeout=500, cwd=server.folder)
    assert result.returncode == 0, result.stdout[-4000:] + result.stderr[-2000:]
