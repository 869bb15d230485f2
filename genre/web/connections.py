"""Connections of the server, with limits on the size, the rate and the time of what each transfers."""

from __future__ import annotations

import asyncio
import functools
import math
import socket
import struct
import time
from dataclasses import dataclass
from typing import Any, cast

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import Message, Receive, Scope, Send
from uvicorn.protocols.http.h11_impl import H11Protocol

from genre.params import ServeParams
from genre.web.middleware import MAX_HEADERS, too_large

MIN_READ_BYTES = 1 << 9  # read at once from heads and chunked bodies, whose lines and chunks take processor time
MAX_READ_BYTES = 1 << 13  # the same, while they take little
BODY_READ_BYTES = 1 << 18  # of a body of a declared length
MEMORY_BYTES = 1 << 20  # of an upload, which Starlette holds in memory; a larger one takes a place on the disk
BYTE_S = 1e-7  # processor time that a byte of a body may take
BURST_S = 0.002  # processor time that a body may take beyond that before it is read more slowly
CPU_FRACTION = 0.005  # fraction of the time in which the processor may then work on it
MAX_PAUSE_S = 1.0
TICK_S = 1.0
EVICTABLE_S = 1.0  # time after which a slow client gives way to a new one
REFUSAL_S = 1.0  # time after which a malformed request is refused, so that it cannot be repeated at once
LINGER_S = 1.0  # time before a connection is closed on a client that still sends, so that it can read the response


@dataclass(slots=True)
class _Body:
    """State of the body of a request."""

    complete: bool
    end: float  # of its time, on the clock of the event loop
    n_read: int = 0  # bytes
    refused: bool = False  # the response began before the body was complete


class Connection(H11Protocol, asyncio.BufferedProtocol):
    """One connection. It is closed if its client sends no complete head in time or reads too slowly.

    It is a buffered protocol in order to set how many bytes the event loop reads at once.
    """

    _buffer = memoryview(bytearray(BODY_READ_BYTES))  # of all: the event loop fills it and calls buffer_updated at once

    def __init__(self, *arguments: Any, params: ServeParams, uploads: set[Connection], **options: Any) -> None:
        """Add the connection to `uploads` while it receives a large upload; the rest is as of H11Protocol."""
        super().__init__(*arguments, **options)
        self._params, self._uploads = params, uploads
        self._app, self.app = self.app, self._answer
        self._left_s = params.stall_s  # time that the client may still keep the service waiting
        self._end = math.inf  # of the response, on the clock of the event loop
        self._cpu_s = 0.0  # processor time that the body has taken too much
        self._n_bytes = 0  # of bodies, received or written
        self._n_transferred = 0  # of these, without those that are not sent, at the last tick
        self._n_expected = 0  # bytes of a body of a declared length
        self._n_lines = 0  # of a head that is not complete
        self._read_bytes = MIN_READ_BYTES
        self._upload: asyncio.Timeout | None = None  # of the read of a body in progress

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Make room by closing the connection that has waited longest if there are too many."""
        if len(self.connections) >= self._params.connections - 1:
            slowest = min(cast("set[Connection]", self.connections), key=lambda connection: connection._left_s)
            if slowest._left_s <= self._params.stall_s - EVICTABLE_S:
                slowest.abort()
        super().connection_made(transport)
        self._watch()

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002
        """Return the memory for the next read."""
        return self._buffer[: max(self._read_bytes, min(self._n_expected, BODY_READ_BYTES))]

    def buffer_updated(self, nbytes: int) -> None:
        """Process what was read."""
        self._n_expected = max(0, self._n_expected - nbytes)
        data, start = bytes(self._buffer[:nbytes]), time.thread_time()
        if not self._is_answering():
            self._n_lines += data.partition(b"\r\n\r\n")[0].count(b"\n")
        if self._n_lines > MAX_HEADERS:
            self.send_400_response(f"The head has more than {MAX_HEADERS} lines.")
            return
        self.data_received(data)
        excess_s = time.thread_time() - start - nbytes * BYTE_S
        self._read_bytes = MIN_READ_BYTES if excess_s > 0 else min(2 * self._read_bytes, MAX_READ_BYTES)
        if self._is_answering() and self.cycle.more_body:
            self._cpu_s += max(0.0, excess_s)
            self.flow.pause_reading()  # until the application asks for more

    def send_400_response(self, msg: str) -> None:
        """Refuse a malformed request after a while."""
        self.flow.pause_reading()
        self._left_s = self._params.stall_s
        self.loop.call_later(REFUSAL_S, self._refuse, msg)

    def abort(self) -> None:
        """Close at once and drop what was not sent, in the kernel as well."""
        self.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.transport.abort()

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request within the limits."""
        headers = Headers(scope=scope)
        chunked, n_declared = "transfer-encoding" in headers, int(headers.get("content-length", "0"))
        self._n_expected = 0 if chunked else n_declared
        end = self.loop.time() + self._params.upload_timeout_s
        body = _Body(complete=not (chunked or n_declared), end=end)
        if not self.transport.get_write_buffer_size():
            self._left_s, self._end = self._params.stall_s, math.inf
        self._n_lines, self._cpu_s = 0, 0.0
        try:
            await self._app(
                scope, functools.partial(self._receive, body, receive), functools.partial(self._send, body, send)
            )
        finally:
            self._uploads.discard(self)

    async def _receive(self, body: _Body, receive: Receive) -> Message:
        """Return the next message of a body; HTTPException 408, 413 or 429 if it takes too much."""
        if body.complete:
            return await receive()
        if body.n_read > MEMORY_BYTES and self not in self._uploads:
            if len(self._uploads) >= self._params.uploads:
                raise HTTPException(429, "too many uploads: retry after 2 s", {"Retry-After": "2"})
            self._uploads.add(self)
        if self._cpu_s > BURST_S:
            pause_s, self._cpu_s = self._cpu_s / CPU_FRACTION, 0.0
            await asyncio.sleep(min(MAX_PAUSE_S, pause_s))
        try:
            async with asyncio.timeout_at(body.end) as self._upload:
                message = await receive()
        except TimeoutError:
            limit = f"{self._params.upload_timeout_s:g} s or was slower than {self._params.min_bytes_s:,} bytes/s"
            raise HTTPException(408, f"the upload took longer than {limit}") from None
        finally:
            self._upload = None
        n_bytes = len(message.get("body", b""))
        body.n_read += n_bytes
        self._n_bytes += n_bytes
        if body.n_read > self._params.max_upload_bytes:
            raise HTTPException(413, too_large(self._params.max_upload_bytes))
        body.complete = not message.get("more_body", False)
        if body.complete:
            self._uploads.discard(self)
        return message

    async def _send(self, body: _Body, send: Send, message: Message) -> None:
        """Send a message of a response; close the connection after the response if the body is not complete."""
        if message["type"] == "http.response.start":
            self._end = min(self._end, self.loop.time() + self._params.response_timeout_s)
            body.refused = not body.complete
            if body.refused:
                MutableHeaders(scope=message)["connection"] = "close"
        elif body.refused and not message.get("more_body", False):
            # Closing at once can reset the connection before the client has read the response.
            await send({**message, "more_body": True})
            await asyncio.sleep(LINGER_S)
            message = {"type": "http.response.body", "body": b""}
        await send(message)
        self._n_bytes += len(message.get("body", b""))

    def _watch(self) -> None:
        """End the transfer if its time is up; look again later."""
        if self not in self.connections:
            return
        n_unsent = self.transport.get_write_buffer_size()
        n_transferred = self._n_bytes - n_unsent
        if self._is_answering() and not self._upload and not n_unsent:  # the client waits for the service
            self._left_s = self._params.stall_s
        else:
            gained_s = (n_transferred - self._n_transferred) / self._params.min_bytes_s
            self._left_s = min(self._params.stall_s, self._left_s - TICK_S + gained_s)
        self._n_transferred = n_transferred
        if self._upload and self._left_s < 0:
            self._upload.reschedule(self.loop.time())
        elif self._left_s < 0 or self.loop.time() > self._end:
            self.abort()
        self.loop.call_later(TICK_S, self._watch)

    def _is_answering(self) -> bool:
        """Whether the latest request is being answered; the function that answered the one before may still run."""
        return self.cycle is not None and not self.cycle.response_complete

    def _refuse(self, message: str) -> None:
        if not self.transport.is_closing():
            super().send_400_response(message)
