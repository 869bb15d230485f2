"""Limits of the HTTP service: full queues, slow, malformed and disconnected clients, start and shutdown."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from genre.params import load
from genre.web import limits
from genre.web.connections import with_limits
from tests.made import ROOT
from tests.web.conftest import Server, StartServer, form, is_ready, wait_until

KEY = "a key with an é"
KEY_BYTES = KEY.encode()
HEADERS = {b"x-api-key": KEY_BYTES}
MAX_BYTES = 2_000_000
TIMEOUT_S = 2.0
UPLOAD_TIMEOUT_S = 1.0

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def strict(start_server: StartServer) -> Server:
    """Start a service with short time-outs, one worker, one place in the queue, a key and no index."""
    return start_server(
        environment={"GENRE_API_KEY": KEY},
        without="vectors",
        serve__workers=1,
        serve__queue=1,
        serve__uploads=3,
        serve__max_upload_bytes=MAX_BYTES,
        serve__timeout_s=TIMEOUT_S,
        serve__upload_timeout_s=UPLOAD_TIMEOUT_S,
        serve__stall_s=1.0,
    )


@pytest.fixture(scope="module")
def patient(start_server: StartServer) -> Server:
    """Start a service with long time-outs, one worker and one place in the queue."""
    return start_server(serve__workers=1, serve__queue=1, serve__shutdown_s=1, serve__stall_s=1.0)


@pytest.fixture(scope="module")
def small(start_server: StartServer) -> Server:
    """Start a service whose folder for temporary files holds 600 kB."""
    mount = 'mount -t tmpfs -o size=600k none "$TMPDIR" && exec "$@"'
    wrapper = ("unshare", "-Urm", "sh", "-c", mount, "sh")
    if not shutil.which("unshare") or subprocess.run([*wrapper[:2], "true"], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    return start_server(wrapper=wrapper)


def _query(server: Server, song: Path, **options: Any) -> httpx.Response:
    return httpx.post(f"{server.url}/v1/query", files=form(song), headers=HEADERS, timeout=60, **options)


def _multipart(body: bytes, name: str = "audio", head: str = "") -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="a.wav"\r\n{head}\r\n'
    return f"--x\r\n{disposition}".encode() + body + b"\r\n--x--\r\n"


def _head(server: Server, *headers: str, path: str = "/") -> bytes:
    lines = [f"POST {path} HTTP/1.1", f"Host: {_address(server)[0]}", "Content-Type: multipart/form-data; boundary=x"]
    lines.append("X-API-Key: " + KEY_BYTES.decode("latin-1"))
    return "\r\n".join([*lines, *headers, "", ""]).encode("latin-1")


def _address(server: Server) -> tuple[str, int]:
    host, _, port = server.url.removeprefix("http://").rpartition(":")
    return host, int(port)


def _connect(server: Server) -> socket.socket:
    return socket.create_connection(_address(server), timeout=30)


def _response(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """Return the status and the JSON of a response, read to the end of the connection."""
    data = b""
    while part := connection.recv(1 << 16):
        data += part
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def _fill_queue(pool: ThreadPoolExecutor, server: Server, songs: list[Path]) -> list[Future[httpx.Response]]:
    """Send two songs to a held service: one runs, one is queued."""
    responses = []
    for song, gauge in zip(songs, ("genre_queue_running", "genre_queue_waiting"), strict=False):
        responses.append(pool.submit(_query, server, song))
        server.wait_for(gauge, 1)
    return responses


def test_without_the_key_in_one_of_three_headers_only_health_is_reported(strict: Server, songs: list[Path]) -> None:
    for path in ("/healthz", "/readyz"):
        assert httpx.get(strict.url + path).status_code == 200
    for path in ("/metrics", "/docs", "/openapi.json", "/nowhere"):
        assert httpx.get(strict.url + path).status_code == 401
    refused = httpx.post(strict.url, files=form(songs[0]), headers={"x-api-key": "another"})
    assert (refused.status_code, refused.json()["status"]) == (401, "error")
    assert "Basic" in refused.headers["www-authenticate"]
    for headers in (HEADERS, {b"authorization": b"Bearer " + KEY_BYTES}):
        assert httpx.get(f"{strict.url}/docs", headers=headers).status_code == 200
    assert httpx.get(f"{strict.url}/docs", auth=("anybody", KEY_BYTES)).status_code == 200
    assert httpx.get(f"{strict.url}/docs", headers={"authorization": "Basic !"}).status_code == 401
    assert "X-API-Key" in httpx.get(f"{strict.url}/openapi.json", headers=HEADERS).text


def test_without_an_index_query_works_and_the_others_name_the_command_that_makes_one(
    strict: Server, songs: list[Path]
) -> None:
    assert httpx.post(strict.url, files=form(songs[0]), headers=HEADERS).json()["message"] == "high"
    for path in ("/v1/identify", "/v1/similar"):
        answer = httpx.post(strict.url + path, files=form(songs[0]), headers=HEADERS)
        assert answer.status_code == 503
        assert "dvc repro index" in answer.json()["message"]


def test_a_full_queue_is_a_429_with_retry_after_and_reads_no_upload(patient: Server, songs: list[Path]) -> None:
    with ThreadPoolExecutor(2) as pool:
        with patient.held():
            accepted = _fill_queue(pool, patient, songs)
            refused = [_query(patient, song) for song in songs]
            with _connect(patient) as connection:
                connection.sendall(_head(patient, "Content-Length: 60000000"))
                assert _response(connection)[0] == 429
        answers = [response.result() for response in accepted]
    assert [answer.status_code for answer in answers] == [200, 200]
    assert [answer.json()["file"] for answer in answers] == [songs[0].name, songs[1].name]
    for answer in refused:
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["retry-after"]) <= 60
        assert answer.json()["status"] == "error"


def test_a_slow_answer_is_a_504_and_the_next_request_is_answered(strict: Server, songs: list[Path]) -> None:
    start = time.monotonic()
    with strict.held():
        answer = _query(strict, songs[0])
        assert answer.status_code == 504
        assert time.monotonic() - start < TIMEOUT_S + 5
        strict.wait_for("genre_queue_running", 0, HEADERS)  # although the decoder would not end
    assert _query(strict, songs[0]).status_code == 200


def test_a_client_that_disconnects_leaves_no_file_and_frees_its_place(patient: Server, songs: list[Path]) -> None:
    body = _multipart(songs[0].read_bytes())
    request = _head(patient, f"Content-Length: {len(body)}", path="/v1/query") + body
    with patient.held():
        with _connect(patient) as connection:
            connection.sendall(request)
            patient.wait_for("genre_queue_running", 1)
            assert patient.uploads
        wait_until(lambda: not patient.uploads, "the file of a disconnected client stays")
        patient.wait_for("genre_queue_running", 0)  # although the decoder would not end
        with _connect(patient) as running:
            running.sendall(request)
            patient.wait_for("genre_queue_running", 1)
            with _connect(patient) as connection:  # disconnects while it is queued
                connection.sendall(request)
                patient.wait_for("genre_queue_waiting", 1)
            patient.wait_for("genre_queue_waiting", 0)
    patient.wait_for("genre_queue_running", 0)
    assert 'genre_requests_total{path="/v1/query",status="499"} 3.0' in httpx.get(f"{patient.url}/metrics").text
    assert _query(patient, songs[1]).json()["file"] == songs[1].name


def test_a_client_that_disconnects_in_its_upload_leaves_no_file(strict: Server) -> None:
    with _connect(strict) as connection:
        connection.sendall(_head(strict, "Content-Length: 1900000") + _multipart(bytes(1_500_000))[:-20])
        strict.wait_for("genre_uploads", 1, HEADERS)
    strict.wait_for("genre_uploads", 0, HEADERS)
    assert not strict.uploads


def test_an_upload_that_is_too_large_is_refused_and_read_no_further(strict: Server) -> None:
    part = _multipart(bytes(1 << 16))[:-10]
    part = f"{len(part):x}\r\n".encode() + part + b"\r\n"
    with _connect(strict) as connection:
        connection.sendall(_head(strict, "Transfer-Encoding: chunked"))
        n_sent = 0
        with pytest.raises(OSError):
            while n_sent < 50 * MAX_BYTES:
                connection.sendall(part)
                n_sent += len(part)
    assert n_sent < 50 * MAX_BYTES


def test_a_client_that_sends_200_megabytes_gets_the_reason(strict: Server, tmp_path: Path) -> None:
    large = tmp_path / "large.wav"
    with large.open("wb") as stream:
        stream.truncate(200_000_000)
    with large.open("rb") as stream:
        answer = httpx.post(strict.url, files={"audio": stream}, headers=HEADERS, timeout=60)
    assert answer.status_code == 413
    assert "2,000,000 bytes" in answer.json()["message"]
    with _connect(strict) as connection:  # as curl
        connection.sendall(_head(strict, "Content-Length: 200000000", "Expect: 100-continue"))
        assert _response(connection)[0] == 413


@pytest.mark.parametrize(
    ("first", "again"),
    [
        (b"", b""),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
        (b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\n", b"x"),  # answered and not read
        (5000 * (b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: %b\r\n\r\n" % KEY_BYTES), b""),
    ],
)
def test_a_client_that_neither_completes_a_request_nor_reads_is_disconnected(
    strict: Server, first: bytes, again: bytes
) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(_address(strict))
        threading.Thread(target=_send_all, args=(connection, first), daemon=True).start()
        closed = select.poll()
        closed.register(connection, select.POLLRDHUP)
        for _ in range(200):
            if closed.poll(200):
                break
            _send_all(connection, again)
        assert closed.poll(0)
    assert httpx.get(f"{strict.url}/healthz").status_code == 200


def test_a_slow_reader_above_the_least_rate_gets_the_whole_answer(strict: Server) -> None:
    request = b"GET /docs-assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(_address(strict))
        connection.sendall(request + b"X-API-Key: %b\r\n\r\n" % KEY_BYTES)
        head, _, body = connection.recv(1 << 12).partition(b"\r\n\r\n")
        n_bytes = int(re.findall(rb"content-length: (\d+)", head)[0])
        for _ in range(100):  # 5 s, longer than a client may stall
            body += connection.recv(1 << 12)
            time.sleep(0.05)
        while part := connection.recv(1 << 16):
            body += part
    assert len(body) == n_bytes


@pytest.mark.parametrize(("name", "part"), [("patient", b"x"), ("strict", bytes(30_000))])  # minimum rate, time-out
def test_an_upload_that_is_slow_or_long_is_a_408(request: pytest.FixtureRequest, name: str, part: bytes) -> None:
    server: Server = request.getfixturevalue(name)
    with _connect(server) as connection:
        connection.sendall(_head(server, "Content-Length: 1900000") + _multipart(bytes(50_000))[:-20])
        while not select.select([connection], [], [], 0.2)[0]:
            _send_all(connection, part)
        status, answer = _response(connection)
    assert (status, "4,096 bytes/s" in answer["message"]) == (408, True)


def test_a_song_in_small_chunks_is_answered(patient: Server, songs: list[Path]) -> None:
    body = _multipart(songs[0].read_bytes()[:40_000])
    with _connect(patient) as connection:
        connection.sendall(_head(patient, "Transfer-Encoding: chunked", "Connection: close", path="/v1/query"))
        parts = (body[i : i + 100] for i in range(0, len(body), 100))
        connection.sendall(b"".join(b"%x\r\n%b\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n")
        assert _response(connection)[0] == 200


def test_among_too_many_connections_the_one_that_has_waited_longest_is_closed() -> None:
    async def crowd() -> tuple[bytes, bool]:
        limited = with_limits(load(ROOT / "params.yaml").serve.model_copy(update={"connections": 4}))
        config = uvicorn.Config(Response("answer"), http=limited, limit_concurrency=4, log_config=None)
        config.load()
        state, loop = ServerState(), asyncio.get_running_loop()
        async with await loop.create_server(lambda: limited(config, state, {}), "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
            await asyncio.sleep(2.5)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            response = await reader.read()
            with contextlib.suppress(ConnectionResetError):
                await idle[0][0].read()
            return response, idle[1][0].at_eof()

    response, other_is_closed = asyncio.run(crowd())
    assert response.startswith(b"HTTP/1.1 200")
    assert not other_is_closed


def test_the_lines_of_a_body_are_not_those_of_a_head() -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive()).get("more_body"):
            pass
        await Response("answer")(scope, receive, send)
        await asyncio.sleep(0.2)  # the answer is complete, and its function still runs when the next request begins

    async def upload() -> bytes:
        limited = with_limits(load(ROOT / "params.yaml").serve)
        config = uvicorn.Config(app, http=limited, interface="asgi3", log_config=None)
        config.load()
        state, loop = ServerState(), asyncio.get_running_loop()
        async with await loop.create_server(lambda: limited(config, state, {}), "127.0.0.1", 0) as server:
            reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
            writer.write(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            await reader.readuntil(b"answer")
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\nConnection: close\r\n\r\n")
            await asyncio.sleep(0.4)
            writer.write(b"\n" * 1000)
            return await reader.read()

    assert asyncio.run(upload()).startswith(b"HTTP/1.1 200")


def test_a_slow_upload_gives_its_place_to_a_new_one() -> None:
    async def enter(*rates: float) -> tuple[int, list[bool]]:
        params = load(ROOT / "params.yaml").serve.model_copy(update={"uploads": len(rates), "min_bytes_s": 1000})
        uploads, bodies = limits.Uploads(params), []
        for rate in rates:
            bodies.append(limits.Body(Headers({"content-length": "1"}), params))
            uploads.enter(bodies[-1])
            bodies[-1].start -= 10.0
            bodies[-1].n_read = round(10 * rate)
        uploads.enter(limits.Body(Headers({"content-length": "1"}), params))
        return len(uploads), [body.budget.left_s > 0 for body in bodies]

    assert asyncio.run(enter(9000, 2, 9000)) == (3, [True, False, True])
    with pytest.raises(HTTPException, match="too many uploads"):
        asyncio.run(enter(9000, 5000))


def test_uploads_take_no_place_at_first(strict: Server, songs: list[Path]) -> None:
    waiting = [_connect(strict) for _ in range(3)]
    try:
        for connection in waiting:
            connection.sendall(_head(strict, "Content-Length: 100000") + b"--x\r\n")
        assert strict.metric("genre_uploads", HEADERS) == 0
        assert _query(strict, songs[0]).status_code == 200
    finally:
        for connection in waiting:
            connection.close()
    strict.wait_for("genre_uploads", 0, HEADERS)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (_multipart(b"RIFF", head="".join(f"X-{i}: a\r\n" for i in range(100))), 400),  # headers of a part
        (b"".join(_multipart(b"", name=f"n{i}")[:-7] for i in range(1000)) + b"--x--\r\n", 400),  # files
        (b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\na\r\n' * 1000 + b"--x--\r\n", 400),  # fields
        (b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + b"a" * 1_000_000 + b"\r\n--x--\r\n", 400),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n", 400),
        (_multipart(b"RIFF")[:-9], 422),  # no end
        (b"", 422),
    ],
)
def test_malformed_and_oversized_forms_are_refused(strict: Server, body: bytes, status: int) -> None:
    headers = {**HEADERS, b"content-type": b"multipart/form-data; boundary=x"}
    answer = httpx.post(strict.url, content=body, headers=headers, timeout=30)
    assert answer.status_code == status, answer.text
    assert answer.json()["status"] == "error"


@pytest.mark.parametrize("charset", ["idna", "undefined", "punycode", "rot13", "nothing", "utf-16"])
def test_unusual_charsets_of_a_form_are_refused(strict: Server, charset: str) -> None:
    headers = {**HEADERS, b"content-type": f"multipart/form-data; boundary=x; charset={charset}".encode()}
    answer = httpx.post(strict.url, content=_multipart(b"RIFF", name="a\xff\xfe"), headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["status"] == "error"


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: a\r\n" * 100_000 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"a:\r\n" * 5000 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_malformed_and_oversized_heads_are_refused(strict: Server, sent: bytes) -> None:
    with _connect(strict) as connection:
        threading.Thread(target=_send_all, args=(connection, sent)).start()
        try:
            answer = connection.recv(1 << 16)
        except ConnectionResetError:  # closed before everything was sent
            assert len(sent) > 20_000
            return
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))


def test_a_body_of_two_lengths_is_refused_and_the_connection_closed(strict: Server) -> None:
    with _connect(strict) as connection:
        smuggled = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        connection.sendall(_head(strict, "Content-Length: 5", "Transfer-Encoding: chunked") + smuggled)
        status, answer = _response(connection)  # of one response
    assert (status, answer["status"]) == (400, "error")
    assert "Transfer-Encoding" in answer["message"]


def test_a_killed_decoder_fails_only_its_own_request(patient: Server, songs: list[Path]) -> None:
    tasks = Path(f"/proc/{patient.process.pid}/task")
    if not list(tasks.glob("*/children")):
        pytest.skip("no /proc")
    with ThreadPoolExecutor(2) as pool:
        with patient.held():
            first, second = _fill_queue(pool, patient, songs)
            for child in " ".join(task.read_text() for task in tasks.glob("*/children")).split():
                os.kill(int(child), signal.SIGKILL)
            assert first.result().status_code == 400
        assert second.result().status_code == 200


def test_before_the_models_are_loaded_the_service_is_alive_but_not_ready(
    start_server: StartServer, songs: list[Path]
) -> None:
    server = start_server(held=True)
    assert httpx.get(f"{server.url}/healthz").json() == {"status": "alive"}
    for answer in (httpx.get(f"{server.url}/readyz"), _query(server, songs[0])):
        assert answer.status_code == 503
        assert answer.json()["status"] == "error"
        assert int(answer.headers["retry-after"]) > 0
    server.hold.unlink()
    wait_until(lambda: is_ready(server), "the service is not ready")
    assert _query(server, songs[0]).status_code == 200


def test_requests_in_flight_are_answered_at_the_shutdown(start_server: StartServer, songs: list[Path]) -> None:
    server = start_server()
    with ThreadPoolExecutor(1) as pool:
        with server.held():
            in_flight = pool.submit(_query, server, songs[1])
            server.wait_for("genre_queue_running", 1)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not _accepts(server), "the service still accepts connections")
            assert server.process.poll() is None
        assert in_flight.result().json()["file"] == songs[1].name
    assert server.process.wait(30) == 0


def test_a_failed_start_is_one_sentence_and_exit_code_1(start_server: StartServer, strict: Server) -> None:
    port = strict.url.rpartition(":")[2]
    for arguments, message in (
        (("--model", "mfcc"), "error: unknown model mfcc"),
        (("--port", port), f"cannot listen on 127.0.0.1 port {port}"),
    ):
        server = start_server(*arguments)
        assert server.process.wait(60) == 1
        assert message in server.log.read_text()


@pytest.mark.parametrize("n_bytes", [900_000, 1_900_000])  # full when the song is stored, or while it is received
def test_a_full_disk_is_a_507_on_every_route(small: Server, songs: list[Path], n_bytes: int) -> None:
    for path in ("/", "/v1/query", "/v1/identify", "/v1/similar"):
        answer = httpx.post(small.url + path, files={"audio": ("a.wav", bytes(n_bytes))})
        assert (answer.status_code, answer.json()["status"]) == (507, "error"), answer.text
    lines = [line for line in small.log.read_text().splitlines() if "disk" in line]
    assert lines
    assert all(str(small.temporary) in line for line in lines)
    assert _query(small, songs[0]).status_code == 200


def test_60_megabytes_of_json_are_not_parsed(patient: Server) -> None:
    large = b"[" + b"{}," * 20_000_000 + b"{}]"
    before = patient.metric("process_resident_memory_bytes")
    for path in ("/", "/v1/query", "/v1/similar"):
        headers = {"content-type": "application/json"}
        assert httpx.post(patient.url + path, content=large, headers=headers, timeout=60).status_code == 415
    assert patient.metric("process_resident_memory_bytes") < before + 100e6


def test_the_log_has_times_and_names_an_open_address_without_a_key(start_server: StartServer) -> None:
    for host, warned in (("127.0.0.1", False), ("0.0.0.0", True)):
        server = start_server("--host", host, held=True)
        server.process.terminate()
        assert server.process.wait(30) == 0
        assert not server.uploads
        lines = server.log.read_text().splitlines()
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line) for line in lines)
        assert any("GENRE_API_KEY" in line for line in lines) == warned


def test_help_imports_no_large_package() -> None:
    code = "import sys; from stages.serve import main\ntry: main(['--help'])\nexcept SystemExit: print(*sys.modules)"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(result.stdout.splitlines()[-1].split())
    assert "--port" in result.stdout
    assert not loaded & {"fastapi", "uvicorn", "numpy", "pydantic"}


def test_a_request_that_does_not_end_does_not_delay_the_shutdown(patient: Server, songs: list[Path]) -> None:
    with ThreadPoolExecutor(1) as pool, patient.held():
        in_flight = pool.submit(_query, patient, songs[0])
        patient.wait_for("genre_queue_running", 1)
        start = time.monotonic()
        patient.process.send_signal(signal.SIGTERM)
        assert patient.process.wait(30) == 0
        assert time.monotonic() - start < 10
        assert in_flight.result().status_code == 503
        assert subprocess.run(["pgrep", "-f", patient.hold.parent], capture_output=True, check=False).returncode == 1


def _send_all(connection: socket.socket, data: bytes) -> None:
    try:
        connection.sendall(data)
    except OSError:  # the server has answered and closed
        return


def _accepts(server: Server) -> bool:
    try:
        with _connect(server):
            return True
    except OSError:
        return False
