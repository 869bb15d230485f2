"""ASGI middleware: checks of heads, limits of transfers, metrics; form of the error responses; security headers."""

from __future__ import annotations

import asyncio
import base64
import contextlib
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


def check_requests(app: ASGIApp, hosts: Collection[str], key: str | None) -> ASGIApp:
    """Return middleware that refuses requests by their head, host, origin and key.

    `hosts` are names without port (empty: any), `key` is needed if given.
    """
    names = {host.lower() for host in hosts}

    def refusals(scope: Scope, headers: Headers) -> Iterator[JSONResponse]:
        if headers.get("content-length", "0") != "0" and "transfer-encoding" in headers:  # smuggling, RFC 9112 6.1
            yield failure(400, "a request must not have both Content-Length and Transfer-Encoding")
        n_bytes = len(scope["raw_path"]) + len(scope["query_string"])
        n_bytes += sum(len(name) + len(": \r\n") + len(value) for name, value in scope["headers"])
        if n_bytes > MAX_HEAD_BYTES or len(scope["headers"]) > MAX_HEADERS:
            yield failure(431, f"path and headers are longer than 16 KiB, or more than {MAX_HEADERS} headers")
        host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
        name, colon, port = host.rpartition(":")
        if names and (name if colon and port.isdigit() else host) not in names:  # DNS rebinding
            yield failure(421, "the host name is not one of this service's; add it to serve.hosts in params.yaml")
        if origin and origin not in (f"http://{host}", f"https://{host}"):
            yield failure(403, "requests from pages of other sites are refused")
        if key and scope["path"] not in OPEN_PATHS and not _has_key(headers, key.encode()):
            response = failure(401, "a key is required: send it as X-API-Key, bearer token or Basic password")
            response.headers.append("www-authenticate", "Bearer")
            response.headers.append("www-authenticate", 'Basic realm="genre"')
            yield response

    async def checked(scope: Scope, receive: Receive, send: Send) -> None:
        await next(refusals(scope, Headers(scope=scope)), app)(scope, receive, send)

    return checked


def limit_transfers(app: ASGIApp, params: ServeParams, uploads: set[object]) -> ASGIApp:
    """Return middleware that limits the size, number and time of uploads, and the time of responses.

    `uploads` holds the large bodies that are being received. An upload beyond a limit is an HTTPException 408, 413 or
    429 for its reader; uvicorn closes the connection if the response is not complete.
    """

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        headers, now, upload = Headers(scope=scope), asyncio.get_running_loop().time, object()
        n_declared, n_received = int(headers.get("content-length", "0")), 0  # bytes
        is_complete = not n_declared and "transfer-encoding" not in headers
        is_refused = False  # the response began before the body was complete
        upload_end = now() + params.upload_timeout_s

        def check_size() -> None:
            if max(n_declared, n_received) > params.max_upload_bytes:
                raise HTTPException(413, f"the upload is larger than {params.max_upload_bytes:,} bytes")
            if n_received > MEMORY_BYTES and upload not in uploads:
                if len(uploads) >= params.uploads:
                    raise HTTPException(429, "too many uploads: retry after 2 s", {"Retry-After": "2"})
                uploads.add(upload)

        async def receive_limited() -> Message:
            nonlocal n_received, is_complete
            if is_complete:
                return await receive()
            check_size()
            try:
                async with asyncio.timeout_at(min(upload_end, now() + params.stall_s)):
                    message = await receive()
            except TimeoutError:
                limits = f"{params.upload_timeout_s:g} s, or paused for {params.stall_s:g} s"
                raise HTTPException(408, f"the upload took longer than {limits}") from None
            n_received += len(message.get("body", b""))
            check_size()
            if is_complete := not message.get("more_body", False):
                uploads.discard(upload)
            return message

        async def send_limited(message: Message) -> None:
            nonlocal is_refused
            if message["type"] == "http.response.start":
                response.reschedule(now() + params.response_timeout_s)
                if is_refused := not is_complete:
                    MutableHeaders(scope=message)["connection"] = "close"
            elif is_refused and not message.get("more_body", False):
                # Closing at once can reset the connection before the client has read the response.
                await send({**message, "more_body": True})
                await asyncio.sleep(LINGER_S)
                message = {"type": "http.response.body", "body": b""}
            await send(message)

        try:
            async with asyncio.timeout(None) as response:
                await app(scope, receive_limited, send_limited)
        except TimeoutError:
            if not response.expired():
                raise
        finally:
            uploads.discard(upload)

    return limited


def count_requests(app: ASGIApp, registry: CollectorRegistry, paths: Collection[str], prefix: str) -> ASGIApp:
    """Return middleware that counts requests and measures their duration, by path and status.

    A request is labelled with its path if it is in `paths`, with `prefix` if it is below it, or else with 'other'.
    """
    name, description = "genre_request_seconds", "Time from the head of a request to the end of its response"
    seconds = Histogram(name, description, ["path", "status"], buckets=BUCKETS_S, registry=registry)

    async def counted(scope: Scope, receive: Receive, send: Send) -> None:
        status, start, path = DISCONNECTED, time.perf_counter(), scope["path"]

        async def observe(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await app(scope, receive, observe)
        finally:
            label = path if path in paths else prefix if path.startswith(f"{prefix}/") else "other"
            seconds.labels(label, str(status)).observe(time.perf_counter() - start)

    return counted


def _has_key(headers: Headers, key: bytes) -> bool:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    keys = [headers.get("x-api-key", "").encode("latin-1"), value.strip().encode("latin-1")]
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            keys.append(base64.b64decode(keys[1], validate=True).partition(b":")[2])
    return any(hmac.compare_digest(sent, key) for sent in keys)
