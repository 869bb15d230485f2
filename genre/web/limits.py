"""Checks on every request before it reaches an endpoint, as ASGI middleware: one class per concern."""

from __future__ import annotations

import asyncio
import base64
import binascii
import hmac
from collections.abc import Collection, Iterator, Mapping
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # need no key: orchestrators probe them
MAX_HEAD_BYTES = 1 << 14  # of the path and the headers of a request
DISCARDED_BYTES = 1 << 16  # of an unread body; if more is to come, the connection is closed
LINGER_S = 1.0  # time for a client that is still sending to read its answer before the connection closes

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " media-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
}


def failure(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error response in the form of all endpoints."""
    return JSONResponse({"status": "error", "message": message}, status, headers)


class SecurityHeaders:
    """Add `SECURITY_HEADERS` to every response."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(SECURITY_HEADERS)
            await send(message)

        await self._app(scope, receive, send_with_headers)


class LimitHead:
    """Refuse a path and headers of more than `MAX_HEAD_BYTES` (431), also where they arrive in one piece."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] == "http":
            n_bytes = len(scope["raw_path"]) + len(scope["query_string"])
            n_bytes += sum(len(name) + len(value) for name, value in scope["headers"])
            if n_bytes > MAX_HEAD_BYTES:
                await failure(431, "path and headers are longer than 16 KiB")(scope, receive, send)
                return
        await self._app(scope, receive, send)


class CheckOrigin:
    """Refuse host names that are not the service's (421; DNS rebinding) and pages of other sites (403)."""

    def __init__(self, app: ASGIApp, hosts: Collection[str]) -> None:
        """Accept the names in `hosts`, written without port; if it is empty, any name."""
        self._app, self._hosts = app, {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if self._hosts and _without_port(host) not in self._hosts:
            response = failure(421, "the host name is not one of this service's; add it to serve.hosts in params.yaml")
        elif origin and _host(origin) != host:
            response = failure(403, "requests from pages of other sites are refused")
        else:
            return await self._app(scope, receive, send)
        await response(scope, receive, send)
        return None


class CheckKey:
    """Refuse requests without the key (401), except to `OPEN_PATHS`."""

    def __init__(self, app: ASGIApp, key: str) -> None:
        self._app, self._key = app, key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] == "http" and scope["path"] not in OPEN_PATHS:
            headers = Headers(scope=scope)
            if not any(hmac.compare_digest(sent, self._key) for sent in _keys(headers)):
                response = failure(401, "a key is required: send it as X-API-Key, bearer token or Basic password")
                response.headers.append("www-authenticate", "Bearer")
                response.headers.append("www-authenticate", 'Basic realm="genre"')
                return await response(scope, receive, send)
        await self._app(scope, receive, send)
        return None


class LimitBody:
    """Bound the size (413) and the duration (408) of request bodies."""

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app, self._max_bytes, self._timeout_s = app, max_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer it."""
        if scope["type"] != "http":
            return await self._app(scope, receive, send)
        headers = Headers(scope=scope)
        n_declared = int(headers.get("content-length", "0"))
        chunked = "transfer-encoding" in headers
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        n_read, complete, closing = 0, not (n_declared or chunked), False

        async def limited_receive() -> Message:
            nonlocal n_read, complete
            if complete:
                return await receive()
            try:
                async with asyncio.timeout_at(deadline):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, f"the upload took longer than {self._timeout_s:g} s") from None
            n_read += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if n_read > self._max_bytes:
                raise HTTPException(413, self._too_large)
            return message

        async def closing_send(message: Message) -> None:
            nonlocal closing
            if message["type"] == "http.response.start":
                closing = not complete and (chunked or n_declared - n_read > DISCARDED_BYTES)
                if closing:
                    MutableHeaders(scope=message)["connection"] = "close"
            elif closing and not message.get("more_body", False):
                # Closing while the client still sends can reset the connection before it has read the answer.
                await send({**message, "more_body": True})
                await asyncio.sleep(LINGER_S)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        if n_declared and chunked:  # request smuggling, RFC 9112 section 6.1
            response = failure(400, "a request must not have both Content-Length and Transfer-Encoding")
            await response(scope, receive, closing_send)
        elif n_declared > self._max_bytes:
            await failure(413, self._too_large)(scope, receive, closing_send)
        else:
            await self._app(scope, limited_receive, closing_send)
        return None

    @property
    def _too_large(self) -> str:
        return f"the upload is larger than {self._max_bytes:,} bytes"


def _host(origin: str) -> str:
    """Return the host and port of an origin; empty if it has none or is malformed."""
    try:
        return urlsplit(origin).netloc.lower()
    except ValueError:
        return ""


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


def _keys(headers: Headers) -> Iterator[bytes]:
    """Yield the keys that a request carries."""
    yield headers.get("x-api-key", "").encode("latin-1")
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield value.strip().encode("latin-1")
    elif scheme.lower() == "basic":
        try:
            yield base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return
