"""The gate that every request passes before anything reads it: who may ask, how much may be sent, how long it may take.

It is ASGI middleware around the whole application, the page included, so no handler and no parser sees a body that is
too large or too slow.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
import json
import logging
import time
from collections.abc import Awaitable, Callable, Collection, Iterable, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from genre.web.metrics import Metrics

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

log = logging.getLogger(__name__)

OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # need no key: orchestrators ask them
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
VANISHED = 499  # in the metrics: the client went away before it was answered
MAX_HEAD_BYTES = 1 << 14  # of a request: its path and headers
DISCARDED_BYTES = 1 << 16  # of a body that nobody reads; with more to come the connection is closed
LINGER_S = 1.0  # that a refused client has to read its answer before the connection is closed

SECURITY_HEADERS: Headers = [
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'"),
]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A status with the sentence that tells why."""

    status: int
    message: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class _StoppedError(Exception):
    """The body is refused: no more of it is read."""


class Gate:
    """ASGI middleware: hosts, origins, the key, size and time of bodies, security headers, metrics."""

    def __init__(
        self,
        app: App,
        *,
        metrics: Metrics,
        max_upload_bytes: int,
        upload_timeout_s: float,
        api_key: str | None = None,
        hosts: Collection[str] = (),
    ) -> None:
        """Guard an application.

        Parameters
        ----------
        app : ASGI application
        metrics : Metrics
            Every request is counted there.
        max_upload_bytes, upload_timeout_s : int, float
            Of one request's body.
        api_key : str or None
            What clients must send, except to `OPEN_PATHS`.
        hosts : collection of str
            Names that the Host header may have, without port; empty: any.
        """
        self._app, self._metrics = app, metrics
        self._max_bytes, self._timeout_s = max_upload_bytes, upload_timeout_s
        self._key = api_key.encode() if api_key else None
        self._hosts = frozenset(host.lower() for host in hosts)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it."""
        if scope["type"] == "websocket":  # none is served
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        exchange = _Exchange(scope, receive, send, self._max_bytes, self._timeout_s)
        try:
            refusal = self._refused(exchange)
            if refusal:
                await exchange.refuse(refusal)
            else:
                await exchange.run(self._app)
        except Exception:
            if exchange.status:  # the server logs it, and closes the connection if the answer has no end
                raise
            log.exception("a request failed")
            await exchange.refuse(Refusal(500, "the service failed: its log says why"))
        finally:
            self._metrics.observe(exchange.path, exchange.status or VANISHED, exchange.seconds)

    def _refused(self, exchange: _Exchange) -> Refusal | None:
        """Return why the head of a request is refused; None if it is not."""
        if exchange.head_bytes > MAX_HEAD_BYTES:  # the server looks only at heads that do not arrive at once
            message = f"the head of the request is longer than {MAX_HEAD_BYTES:,} bytes"
            return Refusal(431, message, ((b"connection", b"close"),))
        if exchange.header(b"content-length") and exchange.header(b"transfer-encoding"):
            # Who stands before this service may believe the other one, and see another request begin (RFC 9112, 6.1).
            message = "the request has both Content-Length and Transfer-Encoding"
            return Refusal(400, message, ((b"connection", b"close"),))
        host = exchange.header(b"host")
        if self._hosts and _without_port(host) not in self._hosts:
            return Refusal(421, "this service does not answer under that name (serve.hosts in params.yaml lists more)")
        origin = exchange.header(b"origin")
        if origin and _host_of(origin) != host.lower():
            return Refusal(403, "pages of other sites may not ask this service")
        if self._key and exchange.path not in OPEN_PATHS and not _knows(self._key, exchange):
            message = "a key is needed: send it as X-API-Key, as a bearer token, or as the password of basic access"
            challenges = ((b"www-authenticate", b"Bearer"), (b"www-authenticate", b'Basic realm="genre"'))
            return Refusal(401, message, challenges)
        if exchange.declared_bytes > self._max_bytes:
            return exchange.too_large()
        return None


class _Exchange:
    """One request and its answer."""

    def __init__(self, scope: Scope, receive: Receive, send: Send, max_bytes: int, timeout_s: float) -> None:
        self.status = 0  # of the answer, once it has begun
        self.path: str = scope["path"]
        self._began, self._ended = time.perf_counter(), 0.0
        self._scope, self._receive, self._send = scope, receive, send
        self._max_bytes, self._timeout_s = max_bytes, timeout_s
        self._deadline = asyncio.get_running_loop().time() + timeout_s
        self._headers: Headers = scope["headers"]
        self._n_read = 0
        declared = self.header(b"content-length")
        self.declared_bytes = int(declared) if declared.isdigit() else 0
        self._whole = not self.declared_bytes and not self.header(b"transfer-encoding")
        self._closing = False
        self._refusal: Refusal | None = None

    @property
    def head_bytes(self) -> int:
        """Size of path, query and headers."""
        target = len(self._scope["path"]) + len(self._scope["query_string"])
        return target + sum(len(name) + len(value) for name, value in self._headers)

    @property
    def seconds(self) -> float:
        """Time from the head of the request to the end of the answer, or to now."""
        return (self._ended or time.perf_counter()) - self._began

    def header(self, name: bytes) -> str:
        """Return the first value of a header, or nothing."""
        return next((value.decode("latin-1") for key, value in self._headers if key == name), "")

    def too_large(self) -> Refusal:
        return Refusal(413, f"the upload is larger than {self._max_bytes:,} bytes")

    async def run(self, app: App) -> None:
        """Let the application answer, unless its reading of the body meets a limit."""
        try:
            await app(self._scope, self._limited_receive, self._limited_send)
        except asyncio.CancelledError:  # the server ends, and has waited for this as long as it may
            self._refusal = Refusal(503, "the service is ending")
        except Exception:
            if self._refusal is None:
                raise
        if self._refusal and not self.status:
            await self.refuse(self._refusal)

    async def refuse(self, refusal: Refusal) -> None:
        """Answer with a refusal."""
        self._refusal = None
        body = failure(refusal.message)
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
        await self._limited_send(
            {"type": "http.response.start", "status": refusal.status, "headers": [*headers, *refusal.headers]}
        )
        await self._limited_send({"type": "http.response.body", "body": body})

    async def _limited_receive(self) -> Message:
        if self._refusal:
            raise _StoppedError
        if self._whole:
            return await self._receive()
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            self._refusal = Refusal(408, f"the upload took longer than {self._timeout_s:g} s")
            raise _StoppedError from None
        if message["type"] == "http.request":
            self._n_read += len(message.get("body", b""))
            self._whole = not message.get("more_body", False)
            if self._n_read > self._max_bytes:
                self._refusal = self.too_large()
                raise _StoppedError
        return message

    async def _limited_send(self, message: Message) -> None:
        if self._refusal:  # the application answers to what it could not read
            return
        if message["type"] == "http.response.start":
            self.status = message["status"]
            headers = list(message.get("headers", []))
            present = {name.lower() for name, _ in headers}
            headers += [(name, value) for name, value in SECURITY_HEADERS if name not in present]
            to_come = self.declared_bytes - self._n_read if self.declared_bytes else DISCARDED_BYTES + 1
            self._closing = not self._whole and to_come > DISCARDED_BYTES
            if self._closing:
                headers.append((b"connection", b"close"))
            message = {**message, "headers": headers}
        elif self._closing and not message.get("more_body", False):
            # The server closes the connection when an answer ends, which can take the answer from a client that is
            # still sending. Nothing more is read, but it has a moment to see it.
            await self._send({**message, "more_body": True})
            self._ended = time.perf_counter()
            await asyncio.sleep(LINGER_S)
            message = {"type": "http.response.body", "body": b""}
        await self._send(message)


def failure(message: str) -> bytes:
    """Return the body of every answer that is an error."""
    return json.dumps({"status": "error", "message": message}, separators=(",", ":")).encode()


def _host_of(origin: str) -> str:
    """Return host and port of an origin; nothing if it has none or is malformed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return (name if colon and port.isdigit() else host).lower()


def _knows(key: bytes, exchange: _Exchange) -> bool:
    """Return whether a request has the key; what was sent is compared in constant time."""
    return any(hmac.compare_digest(sent, key) for sent in _keys_sent(exchange))


def _keys_sent(exchange: _Exchange) -> Iterable[bytes]:
    yield exchange.header(b"x-api-key").encode("latin-1")
    scheme, _, value = exchange.header(b"authorization").partition(" ")
    if scheme.lower() == "bearer":
        yield value.strip().encode("latin-1")
    elif scheme.lower() == "basic":
        try:
            yield base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return
