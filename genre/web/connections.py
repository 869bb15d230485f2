"""Connections of the server, with limits on the time and the processor time of each."""

from __future__ import annotations

import asyncio
import math
import socket
import struct
import time
from typing import Any, ClassVar

from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from genre.params import ServeParams
from genre.web.limits import LINGER_S, TimeBudget, failure

MIN_READ_BYTES = 1 << 9  # read at once from heads and chunked bodies, whose lines and chunks take processor time
MAX_READ_BYTES = 1 << 13  # the same, while they take little
BODY_READ_BYTES = 1 << 18  # of a body of a declared length
BYTE_S = 1e-7  # processor time that a byte of a body may take
BURST_S = 0.002  # processor time that a body may take beyond that at once
CPU_FRACTION = 0.005  # fraction of the time in which the processor may work on it beyond that
MAX_PAUSE_S = 1.0
MAX_HEAD_LINES = 128
TICK_S = 1.0
EVICTABLE_S = 1.0  # time after which a slow client gives way to a new one


class Connection(H11Protocol, asyncio.BufferedProtocol):
    """One connection. It is closed if its client sends no complete head in time or reads too slowly.

    It is a buffered protocol in order to set how many bytes the event loop reads at once.
    """

    params: ClassVar[ServeParams]
    opened: ClassVar[set[Connection]]
    _pausable: _PausableTransport
    _buffer = memoryview(bytearray(BODY_READ_BYTES))  # of all: the event loop fills it and calls buffer_updated at once

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._app, self.app = self.app, self._answer
        self._budget = TimeBudget(self.params.stall_s, self.params.min_bytes_s)
        self._cpu_s = BURST_S  # processor time left
        self._read_bytes = MIN_READ_BYTES
        self._end = math.inf  # of the response, on the clock of the event loop
        self._n_expected = self._n_unsent = self._n_lines = 0
        self._n_active = 0  # requests being answered; the answer to one can end after the next has begun

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room by closing the connection that has waited longest if there are too many."""
        if len(self.opened) >= self.params.connections - 1:
            slowest = min(self.opened, key=lambda connection: connection._budget.left_s)
            if slowest._budget.left_s <= self.params.stall_s - EVICTABLE_S:
                slowest.abort()
        self.opened.add(self)
        self._pausable = _PausableTransport(transport)
        super().connection_made(self._pausable)  # type: ignore[arg-type]
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self.opened.discard(self)
        super().connection_lost(exc)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return the memory for the next read."""
        return self._buffer[: max(self._read_bytes, min(self._n_expected, BODY_READ_BYTES))]

    def buffer_updated(self, nbytes: int) -> None:
        """Process what was read."""
        data = bytes(self._buffer[:nbytes])
        self._n_expected = max(0, self._n_expected - nbytes)
        if not self._n_active:
            self._n_lines += data.partition(b"\r\n\r\n")[0].count(b"\n")
            if self._n_lines > MAX_HEAD_LINES:
                body = bytes(failure(431, f"the head has more than {MAX_HEAD_LINES} lines").body)
                head = "HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: application/json\r\n"
                self._pausable.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
                self._pausable.pause_for(LINGER_S)
                asyncio.get_running_loop().call_later(LINGER_S, self._pausable.close)
                return
        in_body, start = self._n_active > 0, time.thread_time()
        self.data_received(data)
        excess_s = time.thread_time() - start - nbytes * BYTE_S
        self._read_bytes = MIN_READ_BYTES if excess_s > 0 else min(2 * self._read_bytes, MAX_READ_BYTES)
        if in_body:
            self._cpu_s -= max(0.0, excess_s)
        if self._cpu_s < 0:
            self._pausable.pause_for(min(MAX_PAUSE_S, -self._cpu_s / CPU_FRACTION))
            self._cpu_s = 0.0

    def resume_writing(self) -> None:
        """Credit the client with what it must have read since the pause."""
        low, high = self._pausable.get_write_buffer_limits()
        self._budget.update(0.0, high - low)
        super().resume_writing()

    def abort(self) -> None:
        """Close at once and drop what was not sent, in the kernel as well."""
        self._pausable.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._pausable.abort()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, whose time and processor time are limited from its start."""
        headers = dict(scope["headers"])
        self._n_expected = 0 if b"transfer-encoding" in headers else int(headers.get(b"content-length", 0))
        self._n_lines, self._cpu_s = 0, BURST_S
        self._n_active += 1
        if not self._pausable.get_write_buffer_size():
            self._budget.reset()
            self._end = math.inf

        async def timed_send(message: Message) -> None:
            self._end = min(self._end, asyncio.get_running_loop().time() + self.params.response_timeout_s)
            await send(message)

        try:
            await self._app(scope, receive, timed_send)
        finally:
            self._n_active -= 1

    def _watch(self) -> None:
        """Close the connection if its time is up; look again later."""
        if self not in self.opened:
            return
        n_unsent = self._pausable.get_write_buffer_size()
        if self._n_active and not n_unsent:  # the client waits for the service
            self._budget.reset()
        else:
            self._budget.update(TICK_S, max(0, self._n_unsent - n_unsent))
        self._n_unsent = n_unsent
        if self._budget.left_s < 0 or asyncio.get_running_loop().time() > self._end:
            self.abort()
        else:
            asyncio.get_running_loop().call_later(TICK_S, self._watch)


class _PausableTransport:
    """A transport that reads if neither the server nor the connection has paused it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._paused_by = transport, set[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def pause_reading(self, by: str = "server") -> None:
        """Pause until the same caller resumes."""
        self._paused_by.add(by)
        self._transport.pause_reading()

    def resume_reading(self, by: str = "server") -> None:
        """Resume if no other caller has paused."""
        self._paused_by.discard(by)
        if not self._paused_by:
            self._transport.resume_reading()

    def pause_for(self, seconds: float) -> None:
        """Pause for a time."""
        self.pause_reading("connection")
        asyncio.get_running_loop().call_later(seconds, self.resume_reading, "connection")


def with_limits(params: ServeParams) -> type[Connection]:
    """Return the class of the connections of a server."""
    return type("LimitedConnection", (Connection,), {"params": params, "opened": set()})
