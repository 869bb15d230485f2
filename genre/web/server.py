"""The server: uvicorn on a socket, with limits and a graceful shutdown."""

from __future__ import annotations

import logging
import os
import signal
import socket
import threading

import uvicorn

from genre.errors import GenreError
from genre.params import ServeParams
from genre.paths import Paths
from genre.web.app import create_app
from genre.web.connections import with_limits
from genre.web.limits import LOOPBACK_NAMES, MAX_HEAD_BYTES, SECURITY_HEADERS
from genre.web.service import Service
from genre.web.workers import CLOSE_S

log = logging.getLogger(__name__)

BACKLOG = 256  # connections that the kernel holds until they are accepted
KEEP_ALIVE_S = 5
TCP_OPTIONS = {  # of Linux; connections inherit them
    "TCP_NOTSENT_LOWAT": 1 << 14,  # bytes to send in the kernel; what a client does not read is seen in the service
    "TCP_USER_TIMEOUT": 30_000,  # ms until the kernel drops what the client of a closed connection does not read
}


def run(params: ServeParams, paths: Paths, *, host: str, port: int, model: str | None = None) -> None:
    """Load the models and serve until SIGTERM or SIGINT; requests in flight are completed.

    Port 0 is a free port; the address is logged. `model` is that of `Service`. Raises GenreError if the models cannot
    be loaded or the port is taken.
    """
    service = Service(paths, model=model)
    hosts = params.hosts or (LOOPBACK_NAMES if _bracketed(host) in LOOPBACK_NAMES else ())
    key = os.environ.get(params.api_key)
    app = create_app(service, params, paths, hosts=hosts, key=key)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http=with_limits(params),
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
            service.load()
            log.info("ready: %s (page at /ui, documentation at /docs)", url)
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
            if not key:
                log.warning("everyone who reaches %s can use the service: set a key in %s", url, params.api_key)
        loader = threading.Thread(target=load, daemon=True)
        loader.start()
        server.run(sockets=[listener])
    failed = list(errors)  # before the decoder of a loader that still runs is ended
    app.state.backend.close()
    loader.join(CLOSE_S)
    service.close()
    if failed:
        raise failed[0]


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that name their protocol; without it a response takes 40 ms longer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for option, value in TCP_OPTIONS.items():
            if hasattr(socket, option):
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), value)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise GenreError(
            f"cannot listen on {host} port {port} ({error.strerror}): choose others with --host, --port"
        ) from None
    return listener


def _bracketed(host: str) -> str:
    """Return a host as in a URL: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host
