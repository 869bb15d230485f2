"""Limits on requests, as ASGI middleware: checks of the head, limits of the body; security headers."""

from __future__ import annotations

import asyncio
import base64
import functools
import hmac
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genre.params import ServeParams

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # need no key: orchestrators probe them
MAX_HEAD_BYTES = 1 << 14  # of the path and the headers of a request
DISCARDED_BYTES = 1 << 16  # of an unread body; if more is to come, the connection is closed
UNCOUNTED_BYTES = 1 << 16  # of a body, for which it needs no place
EVICTABLE_S = 1.0  # age of an upload that may give way to a new one
CROWDED_FACTOR = 4  # factor of the minimum rate while all places for uploads are taken
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


class TimeBudget:
    """Time that a transfer may still wait for the client; each byte adds what it takes at the minimum rate."""

    def __init__(self, limit_s: float, min_bytes_s: float) -> None:
        self._limit_s, self._min_bytes_s, self.left_s = limit_s, min_bytes_s, limit_s

    def update(self, waited_s: float, n_bytes: int) -> None:
        """Subtract the time waited, and add that of the bytes transferred."""
        self.left_s = min(self._limit_s, self.left_s - waited_s + n_bytes / self._min_bytes_s)

    def reset(self) -> None:
        """Set the time left to the limit."""
        self.left_s = self._limit_s


class Body:
    """State of the body of a request."""

    def __init__(self, headers: Headers, params: ServeParams) -> None:
        self.n_declared, self.chunked = int(headers.get("content-length", "0")), "transfer-encoding" in headers
        self.complete = not (self.n_declared or self.chunked)
        self.n_read = 0
        self.start = asyncio.get_running_loop().time()
        self.budget = TimeBudget(params.stall_s, params.min_bytes_s)
        self.timeout: asyncio.Timeout | None = None  # of the read in progress

    @property
    def age_s(self) -> float:
        """Seconds since the head of the request."""
        return asyncio.get_running_loop().time() - self.start

    @property
    def bytes_s(self) -> float:
        """Mean rate, infinite for a new body."""
        return self.n_read / self.age_s if self.age_s > EVICTABLE_S else math.inf


class Uploads:
    """The bodies that are being received. If all places are taken, a slow one gives way to a new one."""

    def __init__(self, params: ServeParams) -> None:
        self._params = params
        self._bodies: set[Body] = set()

    def __len__(self) -> int:
        return len(self._bodies)

    def enter(self, body: Body) -> None:
        """Take a place; HTTPException 429 if there is none."""
        if body not in self._bodies and len(self) >= self._params.uploads:
            slowest = min(self._bodies, key=lambda other: other.bytes_s)
            if slowest.bytes_s > CROWDED_FACTOR * self._params.min_bytes_s:
                raise HTTPException(429, "too many uploads: retry after 2 s", {"Retry-After": "2"})
            slowest.budget.left_s = 0.0
            if slowest.timeout:
                slowest.timeout.reschedule(0.0)
            self.leave(slowest)
        self._bodies.add(body)

    def leave(self, body: Body) -> None:
        """Free the place of a body that has one."""
        self._bodies.discard(body)


class LimitBody:
    """Limit the size (413), the rate and the duration (408) of a body; close the connection if most is not read."""

    def __init__(self, app: ASGIApp, params: ServeParams, uploads: Uploads) -> None:
        self._app, self._params, self._uploads = app, params, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        body, closing = Body(Headers(scope=scope), self._params), False

        async def closing_send(message: Message) -> None:
            nonlocal closing
            if message["type"] == "http.response.start":
                closing = not body.complete and (body.chunked or body.n_declared - body.n_read > DISCARDED_BYTES)
                if closing:
                    MutableHeaders(scope=message)["connection"] = "close"
            elif closing and not message.get("more_body", False):
                # Closing at once can reset the connection before the client has read the response.
                await send({**message, "more_body": True})
                await asyncio.sleep(LINGER_S)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            await self._app(scope, functools.partial(self._receive, body, receive), closing_send)
        finally:
            self._uploads.leave(body)

    async def _receive(self, body: Body, receive: Receive) -> Message:
        """Return the next message of a body."""
        if body.complete:
            return await receive()
        if body.n_read > UNCOUNTED_BYTES:
            self._uploads.enter(body)
        limit_s, start = self._params.upload_timeout_s, asyncio.get_running_loop().time()
        try:
            async with asyncio.timeout(max(0.0, min(body.budget.left_s, limit_s - body.age_s))) as body.timeout:
                message = await receive()
        except TimeoutError:
            slow = f"{limit_s:g} s or was slower than {self._params.min_bytes_s:,} bytes/s"
            raise HTTPException(408, f"the upload took longer than {slow}") from None
        finally:
            body.timeout = None
        n_bytes = len(message.get("body", b""))
        body.budget.update(asyncio.get_running_loop().time() - start, n_bytes)
        body.n_read += n_bytes
        body.complete = not message.get("more_body", False)
        if body.complete:
            self._uploads.leave(body)
        if body.n_read > self._params.max_upload_bytes:
            raise HTTPException(413, _too_large(self._params.max_upload_bytes))
        return message


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
