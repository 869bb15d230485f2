"""Throughput, latency and memory of the HTTP service.

    python -m benchmarks.serve [--clients 1 4 16 64] [--requests 128] [--soak 2000] [--model NAME] [--clip FILE]
    python -m benchmarks.serve --attackers 64 [--proxy]

Run it in a project's folder. It starts the service as a process of its own on loopback and sends clips of 30 s to
/v1/query. The peer is the same model called in this process, one clip after the other. With --attackers, it reports
instead how another client fares beside so many hostile ones of each kind, each with an address of its own. With
--proxy, all clients reach the service through nginx with the project's nginx.conf.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import math
import multiprocessing
import os
import re
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np

from genre.audio import chunks
from genre.cli import integer
from genre.project import Project
from genre.web.service import Service

SAMPLE_RATE = 22_050  # Hz
CLIP_S = 30.0
START_S = 180.0  # time-out of the start
REQUEST_S = 120.0  # time-out of a request
ATTACKED_REQUEST_S = 10.0  # the same beside attackers
NGINX_CONF = Path(__file__).parents[1] / "nginx.conf"
N_PEER = 8  # clips of the peer
SOAK_CLIENTS = 8
ATTACK_START_S = 3.0
ATTACK_SONGS = 10
ATTACK_HEALTHS = 100  # requests of health, 0.1 s apart

_HEAD = b" HTTP/1.1\r\nHost: HOST\r\n"
_FORM = b"Content-Type: multipart/form-data; boundary=B\r\nTransfer-Encoding: chunked\r\n\r\n"
_PART = b'--B\r\nContent-Disposition: form-data; name="audio"; filename="a.wav"\r\n\r\n'
_UPLOAD = b"POST /v1/query" + _HEAD + _FORM + b"%x\r\n" % len(_PART) + _PART + b"\r\n"
ATTACKS = {  # bytes sent first and then again and again, with a pause in seconds; responses are not read
    "unread responses": (600 * (b"GET /openapi.json" + _HEAD + b"\r\n"), b"", 1.0),
    "slow uploads": (_UPLOAD, b"1\r\nx\r\n", 0.5),
    "one-byte chunks": (_UPLOAD, 2000 * b"1\r\nx\r\n", 0.0),
    "empty headers": (b"GET /healthz" + _HEAD, 5000 * b"a:\r\n", 0.0),
    "slow heads": (b"GET /healthz" + _HEAD, b"a:\r\n", 0.5),
    "idle connections": (b"", b"", 1.0),
}


@dataclass(frozen=True, slots=True)
class Outcome:
    """Result of a number of requests."""

    seconds: float  # total
    latencies: list[float]  # of answered requests, in seconds
    statuses: Counter[int]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print."""
    arguments = _parser().parse_args(argv)
    if arguments.attackers:
        return _report_attacks(arguments)
    with tempfile.TemporaryDirectory() as folder:
        clip = arguments.clip or _write_clip(Path(folder, "clip.wav"))
        peer = _peer(clip, arguments.model)
        print(f"peer: {peer:.2f} clips/s, called directly, one after the other")
        with _service(arguments.model, with_proxy=arguments.proxy) as url:
            body = clip.read_bytes()
            _load(url, body, 4, 8)
            print(f"{'clients':>8} {'requests':>9} {'clips/s':>8} {'ratio':>6} {'p50 s':>7} {'p95 s':>7} {'p99 s':>7}")
            for clients in arguments.clients:
                outcome = _load(url, body, clients, max(arguments.requests, clients))
                _print(clients, outcome, peer)
            before = _resident_mb(url)
            outcome = _load(url, body, SOAK_CLIENTS, arguments.soak)
            after = _resident_mb(url)
            print(f"memory: {before:.0f} MB, {after:.0f} MB after {arguments.soak} more requests")
            print(f"statuses of those: {dict(outcome.statuses)}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.serve", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--clients", type=integer(1, 10_000), nargs="+", default=[1, 4, 16, 64], help="at the same time"
    )
    parser.add_argument(
        "--requests", type=integer(1, 10**8), default=128, help="for each number of clients (default: %(default)s)"
    )
    parser.add_argument("--soak", type=integer(1, 10**8), default=2000, help="requests between the two memory readings")
    parser.add_argument("--model", help="as of stages.query")
    parser.add_argument("--clip", type=Path, help="a file to send (default: synthetic music of 30 s)")
    parser.add_argument("--attackers", type=integer(1, 250), help="hostile clients at the same time")
    parser.add_argument("--attacks", choices=ATTACKS, nargs="+", default=list(ATTACKS), help="default: all")
    parser.add_argument("--proxy", action="store_true", help="nginx in front of the service")
    return parser


def _write_clip(path: Path) -> Path:
    """Write random notes over a little noise."""
    rng = np.random.default_rng(0)
    n_samples = round(CLIP_S * SAMPLE_RATE)
    song = 0.003 * rng.standard_normal(n_samples)
    for _ in range(round(6 * CLIP_S)):
        begin = int(rng.integers(0, n_samples))
        t = np.arange(min(SAMPLE_RATE // 2, n_samples - begin)) / SAMPLE_RATE
        song[begin : begin + len(t)] += np.sin(2 * np.pi * 440 * 2 ** (rng.integers(-24, 24) / 12) * t) * np.exp(-4 * t)
    chunks.write(path, np.rint(16_000 * song / np.abs(song).max()).astype(np.int16), sample_rate=SAMPLE_RATE)
    return path


def _peer(clip: Path, model: str | None) -> float:
    """Return clips a second of the model without the service."""
    from genre import params

    service = Service(Project(model=model), params.load().serve)
    service.load("")
    try:
        began = time.perf_counter()
        for _ in range(N_PEER):
            service.answer("query", clip)
        return N_PEER / (time.perf_counter() - began)
    finally:
        service.close()


@contextlib.contextmanager
def _service(model: str | None, *, with_proxy: bool) -> Iterator[str]:
    """Start the service; yield its address or that of a proxy in front of it."""
    command = [sys.executable, "-m", "stages.serve", "--port", "0", *(["--model", model] if model else [])]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            url = next((match[0] for line in process.stderr if (match := re.search(r"http://\S+$", line))), "")
            threading.Thread(target=process.stderr.read, daemon=True).start()
            end = time.monotonic() + START_S
            while httpx.get(f"{url}/readyz").status_code != 200:
                if time.monotonic() > end:
                    raise TimeoutError("the service does not become ready")
                time.sleep(0.1)
            with proxy(url) if with_proxy else contextlib.nullcontext(url) as reached:
                yield reached
        finally:
            process.terminate()


@contextlib.contextmanager
def proxy(url: str, *, pause_s: int = 10) -> Iterator[str]:
    """Start nginx with the project's nginx.conf in front of a service, on a free port; yield the address of nginx."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    text = NGINX_CONF.read_text().replace(" 10s;", f" {pause_s}s;")
    text = text.replace("serve:5000", url.removeprefix("http://")).replace("listen 8080", f"listen {address}")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)  # if the user is root, nginx stores uploads as another one
        config = Path(folder, "nginx.conf")
        config.write_text(text)
        with subprocess.Popen(
            ["nginx", "-e", "stderr", "-p", folder, "-c", config], stderr=subprocess.DEVNULL
        ) as nginx:
            try:
                while nginx.poll() is None:
                    with contextlib.suppress(httpx.ConnectError):
                        httpx.get(f"http://{address}/healthz")
                        break
                yield f"http://{address}"
            finally:
                nginx.terminate()


def _load(url: str, body: bytes, clients: int, n_requests: int, *, timeout_s: float = REQUEST_S) -> Outcome:
    """Send requests from a number of clients, each one after the other; status 0: no response in time."""
    numbers = itertools.count()
    latencies: list[float] = []
    statuses: Counter[int] = Counter()

    def work(_: int) -> None:
        with httpx.Client(timeout=timeout_s) as client:
            while next(numbers) < n_requests:
                began = time.perf_counter()
                status = 0
                with contextlib.suppress(httpx.TransportError):
                    status = client.post(f"{url}/v1/query", files={"audio": ("clip.wav", body)}).status_code
                statuses[status] += 1
                if status == 200:
                    latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    return Outcome(time.perf_counter() - began, latencies, statuses)


def _print(clients: int, outcome: Outcome, peer: float) -> None:
    rate = len(outcome.latencies) / outcome.seconds
    p50, p95, p99 = np.percentile(outcome.latencies, [50, 95, 99])
    n = sum(outcome.statuses.values())
    refused = f"  {dict(outcome.statuses)}" if set(outcome.statuses) != {200} else ""
    print(f"{clients:>8} {n:>9} {rate:>8.2f} {rate / peer:>6.2f} {p50:>7.2f} {p95:>7.2f} {p99:>7.2f}{refused}")


def _report_attacks(arguments: argparse.Namespace) -> int:
    """Print how one client with songs and one that asks for health fare beside hostile ones."""
    print(f"{'attack':<18} {'clients':>7} {'songs answered':>15} {'worst song s':>13} {'worst healthz s':>16}")
    with tempfile.TemporaryDirectory() as folder:
        body = (arguments.clip or _write_clip(Path(folder, "clip.wav"))).read_bytes()
        for attack in arguments.attacks:
            with _service(arguments.model, with_proxy=arguments.proxy) as url:
                songs_s, health_s = _attacked(attack, url, body, arguments.attackers)
            answered = f"{len(songs_s)} of {ATTACK_SONGS}"
            worst_s = max(songs_s, default=math.nan)
            print(
                f"{attack:<18} {arguments.attackers:>7} {answered:>15} {worst_s:>13.2f} {health_s:>16.2f}", flush=True
            )
    return 0


def _attacked(attack: str, url: str, body: bytes, clients: int) -> tuple[list[float], float]:
    """Return seconds to answer songs, and the longest to answer health, during an attack."""
    process = multiprocessing.get_context("spawn").Process(target=_attack, args=(attack, url, clients), daemon=True)
    process.start()
    time.sleep(ATTACK_START_S)
    with ThreadPoolExecutor(1) as pool, httpx.Client(timeout=ATTACKED_REQUEST_S) as client:
        songs = pool.submit(_load, url, body, 1, ATTACK_SONGS, timeout_s=ATTACKED_REQUEST_S)
        healths: list[float] = []
        while not songs.done() or (len(healths) < ATTACK_HEALTHS and healths[-1] < ATTACKED_REQUEST_S):
            began = time.perf_counter()
            with contextlib.suppress(httpx.TransportError):
                client.get(f"{url}/healthz").raise_for_status()
            healths.append(time.perf_counter() - began)
            time.sleep(0.1)
    process.terminate()
    process.join()
    return songs.result().latencies, max(healths)


def _attack(attack: str, url: str, clients: int) -> None:
    """Attack until this process is terminated."""
    os.nice(10)  # attackers have machines of their own: they take no processor time that the others need

    async def attack_all() -> None:
        sources = [f"127.0.0.{2 + n}" for n in range(clients)]
        await asyncio.gather(*(_attack_again(attack, url.removeprefix("http://"), source) for source in sources))

    asyncio.run(attack_all())


async def _attack_again(attack: str, address: str, source: str) -> None:
    """Repeat an attack on new connections from an address."""
    first, again, pause_s = ATTACKS[attack]
    while True:
        with contextlib.suppress(OSError):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.setblocking(False)
            if sys.platform == "linux":  # others have one loopback address
                connection.bind((source, 0))
            await asyncio.get_running_loop().sock_connect(
                connection, (address.split(":")[0], int(address.split(":")[1]))
            )
            reader, writer = await asyncio.open_connection(sock=connection, limit=1)
            writer.write(first.replace(b"HOST", address.encode()))
            with contextlib.suppress(OSError):
                while not writer.is_closing() and not (again and reader.at_eof()):
                    writer.write(again)
                    await writer.drain()
                    await asyncio.sleep(pause_s)
            writer.close()
        await asyncio.sleep(0.05)


def _resident_mb(url: str) -> float:
    value = re.search(r"^process_resident_memory_bytes (\S+)$", httpx.get(f"{url}/metrics").text, re.MULTILINE)
    return float(value[1]) / 1e6 if value else float("nan")


if __name__ == "__main__":
    sys.exit(main())
