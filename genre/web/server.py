"""The server: uvicorn on a socket, with limits and a graceful shutdown."""

from __future__ import annotations

import functools
import logging
import os
import signal
import socket
import threading

import uvicorn
from fastapi import FastAPI

from genre.audio import process
from genre.errors import GenreError
from genre.params import ServeParams
from genre.web.connections import Connection
from genre.web.middleware import LOOPBACK_NAMES, MAX_HEAD_BYTES, SECURITY_HEADERS
from genre.web.service import Service

log = logging.getLogger(__name__)

BACKLOG = 256  # connections that the kernel holds until they are accepted
KEEP_ALIVE_S = 5
CLOSE_S = 2.0  # for the end of the thread that loads the models
TCP_OPTIONS = {  # of Linux; connections inherit them
    "TCP_NODELAY": 1,  # without it a response takes 40 ms longer
    "TCP_NOTSENT_LOWAT": 1 << 14,  # bytes to send in the kernel; what a client does not read is seen in the service
    "TCP_USER_TIMEOUT": 30_000,  # ms until the kernel drops what the client of a closed connection does not read
}


def run(app: FastAPI, params: ServeParams, *, host: str, port: int) -> None:
    """Serve an application until SIGTERM or SIGINT; requests in flight are completed.

    Port 0 is a free port; the address is logged. `app.state.service` is a `Service`, or like one: `load` is called in
    a thread with the address, `close` at the end. Raises what `load` raises; GenreError if the port is taken.
    """
    service: Service = app.state.service
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=functools.partial(Connection, params=params, uploads=service.uploads),  # type: ignore[arg-type]
            ws="none",
            lifespan="off",
            loop="asyncio",
            backlog=BACKLOG,
            limit_concurrency=params.connections,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=params.shutdown_s,
            server_header=False,
            headers=list(SECURITY_HEADERS.items()),
            log_config=None,
        )
    )
    errors: list[BaseException] = []

    def load() -> None:
        try:
            service.load(url)
        except BaseException as error:
            errors.append(error)
            server.should_exit = True

    # before uvicorn handles it, and after the shutdown, when uvicorn raises it again; the exit code is 0
    signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
    with _listen(host, port) as listener:
        url = f"http://{_bracketed(listener.getsockname()[0])}:{listener.getsockname()[1]}"
        log.info("%s", url)  # ends its line, for programs that read the port
        if _bracketed(host) not in LOOPBACK_NAMES:
            log.warning("clients are not limited by address, and nothing is encrypted: put a reverse proxy in front")
            if not os.environ.get(params.api_key):
                log.warning("everyone who reaches %s can use the service: set a key in %s", url, params.api_key)
        loader = threading.Thread(target=load, daemon=True)
        loader.start()
        server.run(sockets=[listener])
    failed = list(errors)  # before the decoder of a loader that still runs is ended
    process.kill_all()
    loader.join(CLOSE_S)
    service.close()
    if failed:
        raise failed[0]


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        raise GenreError(
            f"cannot listen on {host} port {port} ({error.strerror}): choose others with --host, --port"
        ) from None
    for option, value in TCP_OPTIONS.items():
        if hasattr(socket, option):
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
    return listener


def _bracketed(host: str) -> str:
    """Return a host as in a URL: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host
