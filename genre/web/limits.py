"""Limits on requests, as ASGI middleware: checks of the head, limits of the body, security headers."""

from __future__ import annotations

import asyncio
import base64
import hmac
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # need no key: orchestrators probe them
MAX_HEAD_BYTES = 1 << 14  # of the path and the headers of a request
DISCARDED_BYTES = 1 << 16  # of an unread body; if more is to come, the connection is closed
LINGER_S = 1.0  # time before a connection is closed on a client that still sends, so that it can read the response

SECURITY_HEADERS = {
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "microphone=(self), camera=(), geolocation=()",
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " media-src 'self' blob:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'",
}

Check = Callable[[Scope, Headers], JSONResponse | None]  # returns the response to a refused request


def failure(status: int, message: str, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """Return an error response with the body of all errors."""
    return JSONResponse({"status": "error", "message": message}, status, headers)


def check_length(_: Scope, headers: Headers, *, max_bytes: int) -> JSONResponse | None:
    """Refuse a declared body of more than `max_bytes` (413), or one with two kinds of length (400)."""
    n_declared = int(headers.get("content-length", "0"))
    if n_declared and "transfer-encoding" in headers:  # request smuggling, RFC 9112 section 6.1
        return failure(400, "a request must not have both Content-Length and Transfer-Encoding")
    return failure(413, _too_large(max_bytes)) if n_declared > max_bytes else None


def check_head(scope: Scope, _: Headers) -> JSONResponse | None:
    """Refuse a path and headers of more than `MAX_HEAD_BYTES` (431)."""
    n_bytes = len(scope["raw_path"]) + len(scope["query_string"])
    n_bytes += sum(len(name) + len(": \r\n") + len(value) for name, value in scope["headers"])
    return failure(431, "path and headers are longer than 16 KiB") if n_bytes > MAX_HEAD_BYTES else None


def check_origin(_: Scope, headers: Headers, *, hosts: Collection[str]) -> JSONResponse | None:
    """Refuse a host name that is not in `hosts` (421; DNS rebinding) and pages of other sites (403).

    `hosts` are names without port; empty: any.
    """
    host, origin = headers.get("host", "").lower(), headers.get("origin")
    name, colon, port = host.rpartition(":")
    if hosts and (name if colon and port.isdigit() else host) not in {accepted.lower() for accepted in hosts}:
        return failure(421, "the host name is not one of this service's; add it to serve.hosts in params.yaml")
    if origin and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return failure(403, "requests from pages of other sites are refused")
    return None


def check_key(scope: Scope, headers: Headers, *, key: str) -> JSONResponse | None:
    """Refuse a request without the key (401), except to `OPEN_PATHS`."""
    if scope["path"] in OPEN_PATHS or any(hmac.compare_digest(sent, key.encode()) for sent in _keys(headers)):
        return None
    response = failure(401, "a key is required: send it as X-API-Key, bearer token or Basic password")
    response.headers.append("www-authenticate", "Bearer")
    response.headers.append("www-authenticate", 'Basic realm="genre"')
    return response


class CheckRequests:
    """Refuse requests that fail one of the checks, tried in order."""

    def __init__(self, app: ASGIApp, checks: Sequence[Check]) -> None:
        self._app, self._checks = app, checks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request; pass on any other."""
        headers = Headers(scope=scope)
        refusals = (check(scope, headers) for check in self._checks)
        await next((refusal for refusal in refusals if refusal), self._app)(scope, receive, send)


class LimitBody:
    """Limit the size (413) and the duration (408) of a body; close the connection if most of it is not read."""

    def __init__(self, app: ASGIApp, max_bytes: int, timeout_s: float) -> None:
        self._app, self._max_bytes, self._timeout_s = app, max_bytes, timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        headers = Headers(scope=scope)
        n_declared, chunked = int(headers.get("content-length", "0")), "transfer-encoding" in headers
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
                raise HTTPException(413, _too_large(self._max_bytes))
            return message

        async def closing_send(message: Message) -> None:
            nonlocal closing
            if message["type"] == "http.response.start":
                closing = not complete and (chunked or n_declared - n_read > DISCARDED_BYTES)
                if closing:
                    MutableHeaders(scope=message)["connection"] = "close"
            elif closing and not message.get("more_body", False):
                # Closing at once can reset the connection before the client has read the response.
                await send({**message, "more_body": True})
                await asyncio.sleep(LINGER_S)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        await self._app(scope, limited_receive, closing_send)


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


def _too_large(max_bytes: int) -> str:
    return f"the upload is larger than {max_bytes:,} bytes"


def _keys(headers: Headers) -> Iterator[bytes]:
    """Yield the keys that a request carries."""
    yield headers.get("x-api-key", "").encode("latin-1")
    scheme, _, value = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer":
        yield value.strip().encode("latin-1")
    elif scheme.lower() == "basic":
        try:
            yield base64.b64decode(value.strip(), validate=True).partition(b":")[2]
        except ValueError:
            return
