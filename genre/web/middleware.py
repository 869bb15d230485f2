"""ASGI middleware: checks of heads, limits of transfers, metrics; form of the error responses; security headers."""

from __future__ import annotations

import asyncio
import base64
import hmac
import time
from collections.abc import Collection, Iterator, Mapping

from prometheus_client import CollectorRegistry, Histogram
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from genre.params import ServeParams

LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
OPEN_PATHS = frozenset({"/healthz", "/readyz"})  # need no key: orchestrators probe them
MAX_HEAD_BYTES = 1 << 14  # of the path and the headers of a request
MAX_HEADERS = 128
MEMORY_BYTES = 1 << 20  # of an upload, which Starlette holds in memory; a larger one takes a place on the disk
LINGER_S = 1.0  # time before a connection is closed on a client that still sends, so that it can read the response
BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
DISCONNECTED = 499  # status of a request whose client disconnected before the response

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
    """Return an error response with the body of all errors."""
    return JSONResponse({"status": "error", "message": message}, status, headers)


class CheckRequests:
    """Middleware that refuses requests by their head, host, origin and key."""

    def __init__(self, app: ASGIApp, hosts: Collection[str], key: str | None) -> None:
        """`hosts` are names without port (empty: any), `key` is needed if given."""
        self._app, self._key = app, key
        self._hosts = {host.lower() for host in hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request; pass on any other."""
        refusal = next(self._refusals(scope, Headers(scope=scope)), None)
        await (refusal or self._app)(scope, receive, send)

    def _refusals(self, scope: Scope, headers: Headers) -> Iterator[JSONResponse]:
        if headers.get("content-length", "0") != "0" and "transfer-encoding" in headers:  # smuggling, RFC 9112 6.1
            yield failure(400, "a request must not have both Content-Length and Transfer-Encoding")
        n_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        n_bytes += sum(len(name) + len(": \r\n") + len(value) for name, value in scope["headers"])
        if n_bytes > MAX_HEAD_BYTES or len(scope["headers"]) > MAX_HEADERS:
            yield failure(431, f"path and headers are longer than 16 KiB, or more than {MAX_HEADERS} headers")
        host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
        name, colon, port = host.rpartition(":")
        if self._hosts and (name if colon and port.isdigit() else host) not in self._hosts:  # DNS rebinding
            yield failure(421, "the host name is not one of this service's; add it to serve.hosts in params.yaml")
        if origin and origin not in (f"http://{host}", f"https://{host}"):
            yield failure(403, "requests from pages of other sites are refused")
        if self._key and scope["path"] not in OPEN_PATHS and not _has_key(headers, self._key.encode()):
            response = failure(401, "a key is required: send it as X-API-Key, bearer token or Basic password")
            response.headers.append("www-authenticate", "Bearer")
            response.headers.append("www-authenticate", 'Basic realm="genre"')
            yield response


class LimitTransfers:
    """Middleware that limits the size, number and time of uploads, and the time of responses."""

    def __init__(self, app: ASGIApp, params: ServeParams, uploads: set[object]) -> None:
        """`uploads` holds the large bodies that are being received."""
        self._app, self._params, self._uploads = app, params, uploads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on; uvicorn closes the connection if the response is not complete."""
        upload = _Upload(receive, self._params, self._uploads, Headers(scope=scope))
        is_refused = False  # the response began before the body was complete

        async def send_limited(message: Message) -> None:
            nonlocal is_refused
            if message["type"] == "http.response.start":
                limit.reschedule(asyncio.get_running_loop().time() + self._params.response_timeout_s)
                if is_refused := not upload.is_complete:
                    MutableHeaders(scope=message)["connection"] = "close"
            elif is_refused and not message.get("more_body", False):
                # Closing at once can reset the connection before the client has read the response.
                await send({**message, "more_body": True})
                await asyncio.sleep(LINGER_S)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            async with asyncio.timeout(None) as limit:
                await self._app(scope, upload.receive, send_limited)
        except TimeoutError:
            if not limit.expired():
                raise
        finally:
            self._uploads.discard(upload)


class _Upload:
    """The body of a request."""

    def __init__(self, receive: Receive, params: ServeParams, uploads: set[object], headers: Headers) -> None:
        self._receive, self._params, self._uploads = receive, params, uploads
        self._n_declared, self._n_received = int(headers.get("content-length", "0")), 0  # bytes
        self.is_complete = not self._n_declared and "transfer-encoding" not in headers
        self._end = asyncio.get_running_loop().time() + params.upload_timeout_s

    async def receive(self) -> Message:
        """Return the next message; HTTPException 408, 413 or 429 if a limit is exceeded."""
        if self.is_complete:
            return await self._receive()
        self._check()
        try:
            async with asyncio.timeout_at(min(self._end, asyncio.get_running_loop().time() + self._params.stall_s)):
                message = await self._receive()
        except TimeoutError:
            limits = f"{self._params.upload_timeout_s:g} s, or paused for {self._params.stall_s:g} s"
            raise HTTPException(408, f"the upload took longer than {limits}") from None
        self._n_received += len(message.get("body", b""))
        self._check()
        self.is_complete = not message.get("more_body", False)
        if self.is_complete:
            self._uploads.discard(self)
        return message

    def _check(self) -> None:
        if max(self._n_declared, self._n_received) > self._params.max_upload_bytes:
            raise HTTPException(413, f"the upload is larger than {self._params.max_upload_bytes:,} bytes")
        if self._n_received > MEMORY_BYTES and self not in self._uploads:
            if len(self._uploads) >= self._params.uploads:
                raise HTTPException(429, "too many uploads: retry after 2 s", {"Retry-After": "2"})
            self._uploads.add(self)


class CountRequests:
    """Middleware that counts requests and measures their duration, by path and status."""

    def __init__(self, app: ASGIApp, registry: CollectorRegistry, paths: Collection[str], prefix: str) -> None:
        """Label a request with its path if it is in `paths`, with `prefix` if it is below it, or else with 'other'."""
        self._app, self._paths, self._prefix = app, frozenset(paths), prefix
        name, description = "genre_request_seconds", "Time from the head of a request to the end of its response"
        self._seconds = Histogram(name, description, ["path", "status"], buckets=BUCKETS_S, registry=registry)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        status, start = DISCONNECTED, time.perf_counter()

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._app(scope, receive, observe)
        finally:
            path = scope["path"]
            label = path if path in self._paths else self._prefix if path.startswith(f"{self._prefix}/") else "other"
            self._seconds.labels(label, str(status)).observe(time.perf_counter() - start)


def _has_key(headers: Headers, key: bytes) -> bool:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    keys = [headers.get("x-api-key", "").encode("latin-1")]
    if scheme.lower() == "bearer":
        keys.append(value.strip().encode("latin-1"))
    elif scheme.lower() == "basic":
        try:
            keys.append(base64.b64decode(value.strip(), validate=True).partition(b":")[2])
        except ValueError:
            return False
    return any(hmac.compare_digest(sent, key) for sent in keys)
