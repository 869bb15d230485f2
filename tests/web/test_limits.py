"""Limits of the HTTP service: full queues, slow, malformed and disconnected clients, start and shutdown."""

from __future__ import annotations

import contextlib
import json
import os
import re
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from benchmarks import serve
from tests.web.conftest import HEADERS, KEY, Server, StartServer, form, http, is_ready, wait_until

FORM_HEADERS = {**HEADERS, b"content-type": b"multipart/form-data; boundary=x"}
MAX_BYTES = 2_000_000

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def strict(start_server: StartServer) -> Server:
    """Start a service with short time-outs, one worker, a key and no index."""
    return start_server(
        environment={"GENRE_API_KEY": KEY.decode()},
        without="vectors",
        serve__workers=1,
        serve__max_upload_bytes=MAX_BYTES,
        serve__timeout_s=5.0,
        serve__upload_timeout_s=8.0,
        serve__stall_s=3.0,
    )


@pytest.fixture(scope="module")
def patient(start_server: StartServer) -> Server:
    """Start a service with long time-outs, one worker and one place for uploads and in the queue."""
    return start_server(
        serve__workers=1, serve__queue=1, serve__uploads=1, serve__shutdown_s=1, serve__response_timeout_s=3.0
    )


@pytest.fixture(scope="module")
def proxied(patient: Server) -> Iterator[Server]:
    """Return the patient service as it is reached through nginx with the project's nginx.conf and short time-outs."""
    if shutil.which("nginx") is None:
        pytest.skip("nginx is not installed")
    with serve.proxy(patient.url, pause_s=3) as url:
        yield replace(patient, url=url)


@pytest.fixture(scope="module")
def small(start_server: StartServer) -> Server:
    """Start a service whose folder for temporary files holds 600 kB."""
    mount = 'mount -t tmpfs -o size=600k none "$TMPDIR" && exec "$@"'
    wrapper = ("unshare", "-Urm", "sh", "-c", mount, "sh")
    if not shutil.which("unshare") or subprocess.run([*wrapper[:2], "true"], check=False).returncode:
        pytest.skip("no file system can be mounted here")
    return start_server(wrapper=wrapper)


def _query(server: Server, song: Path, path: str = "/v1/query") -> httpx.Response:
    return http.post(server.url + path, files=form(song), headers=HEADERS)


def _multipart(body: bytes, name: str = "audio", head: str = "") -> bytes:
    disposition = f'Content-Disposition: form-data; name="{name}"; filename="a.wav"\r\n{head}\r\n'
    return f"--x\r\n{disposition}".encode() + body + b"\r\n--x--\r\n"


def _head(*headers: str, path: str = "/v1/query") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: multipart/form-data; boundary=x"]
    return "\r\n".join([*lines, "X-API-Key: " + KEY.decode("latin-1"), *headers, "", ""]).encode("latin-1")


@contextlib.contextmanager
def _connection(server: Server, sent: bytes = b"", receive_buffer: int = 0) -> Iterator[socket.socket]:
    """Connect and send something, as far as the service reads it."""
    with socket.socket() as connection:
        connection.settimeout(30)
        if receive_buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        connection.connect(("127.0.0.1", int(server.url.rpartition(":")[2])))
        threading.Thread(target=_send_all, args=(connection, sent), daemon=True).start()
        yield connection


def _send_all(connection: socket.socket, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the server has answered and closed
        connection.sendall(data)


def _response(connection: socket.socket) -> tuple[int, dict[str, str]]:
    """Return the status and the JSON of a response, read to the end of the connection."""
    data = b"".join(iter(lambda: connection.recv(1 << 16), b""))
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
        assert http.get(strict.url + path).status_code == 200
    for path in ("/metrics", "/docs", "/openapi.json", "/nowhere"):
        assert http.get(strict.url + path).status_code == 401
    refused = http.post(strict.url, files=form(songs[0]), headers={"x-api-key": "another"})
    assert (refused.status_code, refused.json()["status"]) == (401, "error")
    assert "Basic" in refused.headers["www-authenticate"]
    for headers in (HEADERS, {b"authorization": b"Bearer " + KEY}):
        assert http.get(f"{strict.url}/docs", headers=headers).status_code == 200
    assert http.get(f"{strict.url}/docs", auth=("anybody", KEY)).status_code == 200
    assert http.get(f"{strict.url}/docs", headers={"authorization": "Basic !"}).status_code == 401
    assert "X-API-Key" in http.get(f"{strict.url}/openapi.json", headers=HEADERS).text


def test_without_an_index_query_works_and_the_others_name_the_command_that_makes_one(
    strict: Server, songs: list[Path]
) -> None:
    assert _query(strict, songs[0], "/").json()["message"] == "jazz"
    for path in ("/v1/identify", "/v1/similar"):
        answer = _query(strict, songs[0], path)
        assert (answer.status_code, "dvc repro index" in answer.json()["message"]) == (503, True)


def test_a_full_queue_is_a_429_with_retry_after_and_reads_no_upload(patient: Server, songs: list[Path]) -> None:
    with ThreadPoolExecutor(2) as pool:
        with patient.held():
            first, second = _fill_queue(pool, patient, songs)
            refused = _query(patient, songs[2])
            with _connection(patient, _head("Content-Length: 60000000")) as connection:
                assert _response(connection)[0] == 429
        answers = [first.result(), second.result()]
    assert [(answer.status_code, answer.json()["file"]) for answer in answers] == [(200, s.name) for s in songs[:2]]
    assert (refused.status_code, refused.json()["status"]) == (429, "error")
    assert 1 <= int(refused.headers["retry-after"]) <= 60


def test_a_slow_answer_is_a_504_and_the_next_request_is_answered(strict: Server, songs: list[Path]) -> None:
    with strict.held():
        assert _query(strict, songs[0]).status_code == 504
        strict.wait_for("genre_queue_running", 0)  # although the decoder would not end
    assert _query(strict, songs[0]).status_code == 200


def test_a_client_that_disconnects_leaves_no_file_and_frees_its_place(patient: Server, songs: list[Path]) -> None:
    body = _multipart(songs[0].read_bytes())
    request = _head(f"Content-Length: {len(body)}") + body
    with patient.held():
        with _connection(patient, request):
            patient.wait_for("genre_queue_running", 1)
            assert patient.uploads
        wait_until(lambda: not patient.uploads, "the file of a disconnected client stays")
        patient.wait_for("genre_queue_running", 0)  # although the decoder would not end
        with _connection(patient, request):
            patient.wait_for("genre_queue_running", 1)
            with _connection(patient, request):  # disconnects while it is queued
                patient.wait_for("genre_queue_waiting", 1)
            patient.wait_for("genre_queue_waiting", 0)
    wait_until(lambda: not patient.uploads, "the file of a disconnected client stays")
    with _connection(patient, request[:-1000]):  # disconnects in its upload
        wait_until(lambda: bool(patient.uploads), "the upload does not begin")
    wait_until(lambda: not patient.uploads, "the file of a disconnected client stays")
    patient.wait_for("genre_queue_running", 0)
    patient.wait_for('genre_request_seconds_count{path="/v1/query",status="499"}', 4)
    assert _query(patient, songs[1]).json()["file"] == songs[1].name


def test_uploads_take_no_place_at_first(patient: Server, songs: list[Path]) -> None:
    """Clients of slow uploads therefore keep nobody out."""
    large = _head("Content-Length: 1900000") + _multipart(bytes(1_500_000))[:-20]
    with _connection(patient, large[:500_000]), _connection(patient, large):  # the second one takes the only place
        patient.wait_for("genre_uploads", 1)
        assert http.post(patient.url, files={"audio": ("a.wav", bytes(1_500_000))}).status_code == 429
        assert _query(patient, songs[0]).status_code == 200
    patient.wait_for("genre_uploads", 0)


@pytest.mark.parametrize("declared", [True, False])
def test_an_upload_that_is_too_large_is_refused_and_read_no_further(strict: Server, declared: bool) -> None:
    n_sent = 0

    def parts() -> Iterator[bytes]:
        nonlocal n_sent
        for _ in range(200):
            yield _multipart(bytes(1 << 20))[:-10]
            n_sent += 1 << 20

    headers = {**FORM_HEADERS, b"content-length": b"200000000"} if declared else FORM_HEADERS
    answer = http.post(strict.url, content=parts(), headers=headers)
    assert (answer.status_code, answer.json()["message"]) == (413, "the upload is larger than 2,000,000 bytes")
    assert n_sent < 50 * MAX_BYTES
    with _connection(strict, _head("Content-Length: 200000000", "Expect: 100-continue")) as connection:  # as curl
        assert _response(connection)[0] == 413


@pytest.mark.parametrize(
    ("name", "first", "again"),
    [
        ("proxied", b"", b""),
        ("proxied", b"GET / HTTP/1.1\r\n", b"a: b\r\n"),
        ("strict", b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\n", b"x"),  # body not read
        ("strict", 5000 * (b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\nX-API-Key: %b\r\n\r\n" % KEY), b""),
    ],
)
def test_a_client_that_completes_no_request_or_reads_no_response_is_disconnected(
    request: pytest.FixtureRequest, name: str, first: bytes, again: bytes
) -> None:
    server = request.getfixturevalue(name)
    with _connection(server, first, receive_buffer=4096) as connection:
        closed = select.poll()
        closed.register(connection, select.POLLRDHUP)
        for _ in range(200):
            if closed.poll(200):
                break
            _send_all(connection, again)
        assert closed.poll(0)
    assert http.get(f"{server.url}/healthz").status_code == 200


@pytest.mark.parametrize(("name", "in_time"), [("strict", True), ("patient", False)])
def test_a_slow_reader_gets_the_response_if_it_reads_it_in_time(
    request: pytest.FixtureRequest, name: str, in_time: bool
) -> None:
    sent = b"GET /docs-assets/swagger-ui-bundle.js HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n"
    sent += b"X-API-Key: %b\r\n\r\n" % KEY
    with _connection(request.getfixturevalue(name), sent, receive_buffer=4096) as connection:
        head, _, body = connection.recv(1 << 12).partition(b"\r\n\r\n")
        for _ in range(100):  # 5 s, longer than a client may pause
            body += connection.recv(1 << 12)
            time.sleep(0.05)
        body += b"".join(iter(lambda: connection.recv(1 << 16), b""))
    assert (len(body) == int(re.findall(rb"content-length: (\d+)", head)[0])) == in_time


@pytest.mark.parametrize("part", [b"", bytes(30_000)])
def test_an_upload_that_pauses_or_is_long_is_a_408(strict: Server, part: bytes) -> None:
    sent = _head("Content-Length: 1900000") + _multipart(bytes(50_000))[:-20]
    with _connection(strict, sent) as connection:
        while not select.select([connection], [], [], 0.2)[0]:
            _send_all(connection, part)
        status, answer = _response(connection)
    assert (status, "8 s, or paused for 3 s" in answer["message"]) == (408, True)


def test_the_proxy_passes_complete_uploads_and_refuses_large_ones(
    patient: Server, proxied: Server, songs: list[Path]
) -> None:
    body = _multipart(songs[0].read_bytes()[:40_000])
    for server in (proxied, patient):
        small_chunks = (body[i : i + 100] for i in range(0, len(body), 100))
        answer = http.post(f"{server.url}/v1/query", content=small_chunks, headers=FORM_HEADERS)
        assert answer.json()["file"] == "a.wav"
    with _connection(proxied, _head("Content-Length: 1900000") + bytes(1_500_000)) as connection:
        assert http.post(proxied.url, files={"audio": ("a.wav", bytes(1_500_000))}).status_code == 400  # not 429
        with contextlib.suppress(ConnectionResetError):
            assert connection.recv(1) == b""
    refused = http.post(proxied.url, files={"audio": ("a.wav", bytes(70_000_000))})
    assert (refused.status_code, refused.json()["message"]) == (413, "the upload is larger than 64 MiB")


@pytest.mark.parametrize(
    ("body", "parameter"),
    [
        (_multipart(b"RIFF", head="".join(f"X-{i}: a\r\n" for i in range(100))), ""),  # headers of a part
        (b"".join(_multipart(b"", name=f"n{i}")[:-7] for i in range(1000)) + b"--x--\r\n", ""),  # files
        (b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\na\r\n' * 1000 + b"--x--\r\n", ""),  # fields
        (b'--x\r\nContent-Disposition: form-data; name="f"\r\n\r\n' + b"a" * 1_000_000 + b"\r\n--x--\r\n", ""),
        (b"--x\r\nContent-Disposition: form-data\r\n\r\na\r\n--x--\r\n", ""),
        (_multipart(b"RIFF")[:-9], ""),  # no end
        (b"", ""),
        *((_multipart(b"RIFF", name="a\xff\xfe"), f"; charset={c}") for c in "idna undefined rot13 utf-16 x".split()),
    ],
)
def test_malformed_and_oversized_forms_are_refused(strict: Server, body: bytes, parameter: str) -> None:
    headers = {**HEADERS, b"content-type": b"multipart/form-data; boundary=x" + parameter.encode()}
    answer = http.post(strict.url, content=body, headers=headers)
    assert answer.status_code in (400, 422), answer.text
    assert answer.json()["status"] == "error"


@pytest.mark.parametrize(
    "sent",
    [
        b"GARBAGE\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"X: a\r\n" * 100_000 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"a:\r\n" * 5000 + b"\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n" + b"a:\r\n" * 200 + b"\r\n",
        b"GET /" + b"a" * 100_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: -1\r\n\r\n",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    ],
)
def test_malformed_and_oversized_heads_are_refused(strict: Server, sent: bytes) -> None:
    with _connection(strict, sent) as connection:
        try:
            answer = connection.recv(1 << 16)
        except ConnectionResetError:  # closed before everything was sent
            assert len(sent) > 20_000
            return
    assert answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))


def test_a_body_of_two_lengths_is_refused_and_the_connection_closed(strict: Server) -> None:
    smuggled = b"0\r\n\r\nGET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
    with _connection(strict, _head("Content-Length: 5", "Transfer-Encoding: chunked") + smuggled) as connection:
        status, answer = _response(connection)  # of one response
    assert (status, "Transfer-Encoding" in answer["message"]) == (400, True)


def test_a_killed_decoder_fails_only_its_own_request(patient: Server, songs: list[Path]) -> None:
    with ThreadPoolExecutor(2) as pool:
        with patient.held():
            first, second = _fill_queue(pool, patient, songs)
            subprocess.run(["pkill", "-KILL", "-f", patient.hold.parent], check=True)
            assert first.result().status_code == 400
        assert second.result().status_code == 200


def test_before_the_models_are_loaded_the_service_is_alive_but_not_ready(
    start_server: StartServer, songs: list[Path]
) -> None:
    server = start_server(held=True)
    assert http.get(f"{server.url}/healthz").json() == {"status": "alive"}
    assert http.get(f"{server.url}/healthz", headers={"host": "music.example"}).status_code == 421
    for answer in (http.get(f"{server.url}/readyz"), _query(server, songs[0])):
        assert (answer.status_code, answer.json()["status"]) == (503, "error")
        assert int(answer.headers["retry-after"]) > 0
    server.hold.unlink()
    wait_until(lambda: is_ready(server), "the service is not ready")
    assert _query(server, songs[0]).status_code == 200


@pytest.mark.parametrize(("kill", "sent", "status"), [(os.killpg, signal.SIGTERM, 0), (os.kill, signal.SIGINT, 130)])
def test_a_service_that_is_stopped_while_it_loads_its_models_leaves_no_decoder(
    start_server: StartServer, kill: Callable[[int, int], None], sent: int, status: int
) -> None:
    server = start_server(held=True, wrapper=["setsid"])
    wait_until(lambda: server.is_decoding, "no noise is analysed")
    kill(server.process.pid, sent)
    assert server.process.wait(30) == status
    wait_until(lambda: not server.is_decoding, "a decoder is left")


def test_requests_in_flight_are_answered_at_the_shutdown(start_server: StartServer, songs: list[Path]) -> None:
    server = start_server()
    with ThreadPoolExecutor(1) as pool:
        with server.held():
            in_flight = pool.submit(_query, server, songs[1])
            server.wait_for("genre_queue_running", 1)
            server.process.send_signal(signal.SIGTERM)
            wait_until(lambda: not is_ready(server), "the service still accepts connections")
            assert server.process.poll() is None
        assert in_flight.result().json()["file"] == songs[1].name
    assert server.process.wait(30) == 0


def test_a_failed_start_is_one_sentence_and_exit_code_1(start_server: StartServer, strict: Server) -> None:
    port = strict.url.rpartition(":")[2]
    for option, value, message in (("--model", "mfcc", "unknown model mfcc"), ("--port", port, f"port {port} (")):
        server = start_server(option, value)
        assert server.process.wait(60) == 1
        assert message in server.log.read_text().splitlines()[-1]


@pytest.mark.parametrize("n_bytes", [900_000, 1_900_000])  # full when the song is stored, or while it is received
def test_a_full_disk_is_a_507_on_every_route(small: Server, songs: list[Path], n_bytes: int) -> None:
    for path in ("/", "/v1/query", "/v1/identify", "/v1/similar"):
        answer = http.post(small.url + path, files={"audio": ("a.wav", bytes(n_bytes))})
        assert (answer.status_code, answer.json()["status"]) == (507, "error"), answer.text
    assert f"{small.temporary}: the disk for temporary files is full" in small.log.read_text()
    assert _query(small, songs[0]).status_code == 200


def test_60_megabytes_of_json_are_not_parsed(patient: Server) -> None:
    large = b"[" + b"{}," * 20_000_000 + b"{}]"
    before = patient.metric("process_resident_memory_bytes")
    for path in ("/", "/v1/query", "/v1/similar"):
        headers = {"content-type": "application/json"}
        assert http.post(patient.url + path, content=large, headers=headers).status_code == 415
    assert patient.metric("process_resident_memory_bytes") < before + 100e6


def test_the_log_has_times_and_names_an_open_address_without_a_key(start_server: StartServer, patient: Server) -> None:
    public = start_server("--host", "0.0.0.0", held=True)
    public.process.terminate()
    assert public.process.wait(30) == 0
    for server, warned in ((patient, False), (public, True)):
        lines = server.log.read_text().splitlines()
        assert all(re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", line) for line in lines)
        for warning in ("GENRE_API_KEY", "slow heads"):
            assert any(warning in line for line in lines) == warned


def test_a_request_that_does_not_end_does_not_delay_the_shutdown(patient: Server, songs: list[Path]) -> None:
    with ThreadPoolExecutor(1) as pool, patient.held():
        in_flight = pool.submit(_query, patient, songs[0])
        patient.wait_for("genre_queue_running", 1)
        patient.process.send_signal(signal.SIGTERM)
        assert patient.process.wait(30) == 0
        assert in_flight.result().status_code == 503
        assert not patient.is_decoding
