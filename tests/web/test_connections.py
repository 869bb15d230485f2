"""Connections of the service, in this process: reads, room for new clients."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send
from uvicorn.server import ServerState

from genre.params import load
from genre.web.connections import READ_BYTES, ReportRequests, with_limits
from tests.made import ROOT

N_CONNECTIONS = 4
SIZES: list[int] = []  # of the reads


@contextlib.asynccontextmanager
async def _serving() -> AsyncIterator[int]:
    """Yield the port of a server that returns the lengths of bodies."""

    async def measure(scope: Scope, receive: Receive, send: Send) -> None:
        body = await Request(scope, receive).body()
        await PlainTextResponse(str(len(body)))(scope, receive, send)

    limited: Any = with_limits(load(ROOT / "params.yaml").serve.model_copy(update={"connections": N_CONNECTIONS}))

    class Recorded(limited):  # type: ignore[misc]
        def buffer_updated(self, nbytes: int) -> None:
            SIZES.append(nbytes)
            super().buffer_updated(nbytes)

    config = uvicorn.Config(ReportRequests(measure), http=Recorded, limit_concurrency=N_CONNECTIONS, log_config=None)
    config.load()
    state = ServerState()
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Recorded(config, state, {}), "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def _request(port: int, body: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n" + body)
    response = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    return response


def test_the_connection_that_has_waited_longest_is_closed_when_there_are_too_many() -> None:
    async def crowd() -> tuple[bytes, int]:
        async with _serving() as port:
            idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(N_CONNECTIONS)]
            await asyncio.sleep(2.5)
            response = await _request(port, b"Content-Length: 3\r\n\r\nabc")
            ends = [asyncio.ensure_future(reader.read()) for reader, _ in idle]
            done, _ = await asyncio.wait(ends, timeout=0.5)
            for task in ends:
                task.cancel()
            return response, len(done)

    response, n_closed = asyncio.run(crowd())
    assert response.startswith(b"HTTP/1.1 200")
    assert 1 <= n_closed <= 2


def test_what_follows_a_body_of_a_declared_length_is_read_in_small_pieces() -> None:
    async def follow() -> bytes:
        async with _serving() as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 300000\r\n\r\n" + bytes(300_000))
            writer.write(b"GET / HTTP/1.1\r\n" + 60_000 * b"a:\r\n")
            response = await reader.readuntil(b"\r\n\r\n300000")
            with contextlib.suppress(OSError):  # closed
                await writer.drain()
                await reader.read()
            writer.close()
            return response

    SIZES.clear()
    assert asyncio.run(follow()).startswith(b"HTTP/1.1 200")
    assert max(SIZES) > READ_BYTES
    assert sum(size for size in SIZES if size > READ_BYTES) <= 300_000
