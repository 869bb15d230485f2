"""The server: uvicorn, with limits on connections and on the heads of requests, and an end in good order."""

from __future__ import annotations

import asyncio
import http
import logging
import os
import signal
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from genre.errors import GenreError
from genre.params import ServeParams
from genre.web.app import PAGE, create_app, has_page
from genre.web.limits import LOOPBACK_NAMES, MAX_HEAD_BYTES, Gate, failure
from genre.web.metrics import Metrics
from genre.web.service import Answerer

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
BACKLOG = 256  # connections that the kernel holds until they are accepted

Mount = Callable[..., Any]


def run(settings: ServeParams, *, host: str, port: int, model: str | None = None, mount: Mount | None = None) -> None:
    """Serve until SIGTERM or SIGINT, and let requests in flight end.

    Parameters
    ----------
    settings : ServeParams
    host, port : str, int
        Where to listen; port 0 takes a free one, which the log names.
    model : str or None
        What answers; None: the ensemble's choice.
    mount : callable or None
        Called with the application, the answerer and the settings, to add the page.

    Raises
    ------
    GenreError
        If the models cannot be loaded.
    """
    answerer, metrics = Answerer(Path(), model=model), Metrics()
    api_key = os.environ.get(settings.api_key) or None
    failures: list[BaseException] = []

    def failed(error: BaseException) -> None:
        failures.append(error)
        server.should_exit = True

    def loaded(app: FastAPI) -> None:
        page = f"page at {PAGE}, " if has_page(app) else ""
        log.info("ready: %s (%sinterface at /docs)", _url(listener), page)

    app = create_app(answerer, settings, metrics, key_needed=api_key is not None, loaded=loaded, failed=failed)
    if mount is not None:
        mount(app, answerer, settings)
    gate = Gate(
        app,
        metrics=metrics,
        max_upload_bytes=settings.max_upload_bytes,
        upload_timeout_s=settings.upload_timeout_s,
        api_key=api_key,
        hosts=settings.hosts or (LOOPBACK_NAMES if host in LOOPBACK else ()),
    )
    server = uvicorn.Server(
        uvicorn.Config(
            gate,
            http=_protocol(settings),
            ws="none",
            loop="asyncio",
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_graceful_shutdown=settings.shutdown_s,
            server_header=False,
            log_config=None,
        )
    )
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn sends it once more when all has ended: the exit code is 0
    with _listen(host, port) as listener:
        log.info("%s", _url(listener))  # alone on its line, for programs that have to find the port
        server.run(sockets=[listener])
    if failures:
        raise failures[0]
    _leave(answerer)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol is named because asyncio sets TCP_NODELAY only where it is; without, each answer takes 40 ms more.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise GenreError(
            f"{host} port {port} cannot be listened on ({error.strerror}): choose others with --host, --port"
        ) from None
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


def _leave(answerer: Answerer) -> None:
    """End, also when a thread still works on what nobody waits for."""
    answerer.close()
    logging.shutdown()
    sys.stdout.flush()
    os._exit(0)


def _protocol(settings: ServeParams) -> type[H11Protocol]:
    """Return uvicorn's HTTP/1.1 with limits that it does not have, which answers in JSON where it answers itself."""

    class LimitedProtocol(H11Protocol):
        """HTTP/1.1."""

        _head_timer: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            if len(self.connections) > settings.connections:
                transport.write(_response(503, "too many connections are open: ask again in a moment"))
                transport.close()
                return
            self._wait_for_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._stop_timer()
            super().connection_lost(exc)

        def data_received(self, data: bytes) -> None:
            if self._head_timer is None and (self.cycle is None or self.cycle.response_complete):
                self._wait_for_head()
            super().data_received(data)

        def handle_events(self) -> None:
            before = self.cycle
            super().handle_events()
            if self.cycle is not before:
                self._stop_timer()

        def send_400_response(self, msg: str) -> None:  # noqa: ARG002 (uvicorn's is no JSON)
            self.transport.write(
                _response(400, f"this is not HTTP, or the head of the request is longer than {MAX_HEAD_BYTES:,} bytes")
            )
            self.transport.close()

        def _wait_for_head(self) -> None:
            self._head_timer = self.loop.call_later(settings.header_timeout_s, self.transport.close)

        def _stop_timer(self) -> None:
            if self._head_timer is not None:
                self._head_timer.cancel()
                self._head_timer = None

    return LimitedProtocol


def _response(status: int, message: str) -> bytes:
    body = failure(message)
    head = (
        f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nx-content-type-options: nosniff\r\nconnection: close\r\n\r\n"
    )
    return head.encode("ascii") + body
