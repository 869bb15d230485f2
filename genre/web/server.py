"""The server: uvicorn on a socket, with middleware, limits and a graceful shutdown."""

from __future__ import annotations

import logging
import os
import signal
import socket

import uvicorn

from genre.errors import GenreError
from genre.params import ServeParams
from genre.paths import Paths
from genre.web.app import create_app
from genre.web.limits import LOOPBACK_NAMES
from genre.web.service import Service

log = logging.getLogger(__name__)

LOOPBACK = ("127.0.0.1", "localhost", "::1")
BACKLOG = 256  # connections that the kernel holds until they are accepted
MAX_HEAD_BYTES = 1 << 14  # of an incomplete request head
KEEP_ALIVE_S = 5


def run(params: ServeParams, paths: Paths, *, host: str, port: int, model: str | None = None) -> None:
    """Serve until SIGTERM or SIGINT; requests in flight are completed.

    Parameters
    ----------
    params : ServeParams
    paths : Paths
    host, port : str, int
        Address; with port 0 a free port is taken and logged.
    model : str or None
        See `Service`.

    Raises
    ------
    GenreError
        If the models cannot be loaded or the port is taken.
    """
    errors: list[BaseException] = []

    def loaded(error: BaseException | None) -> None:
        if error is None:
            log.info("ready: %s (page at /ui, documentation at /docs)", url)
        else:
            errors.append(error)
            server.should_exit = True

    service = Service(paths, model=model)
    hosts = params.hosts or (LOOPBACK_NAMES if host in LOOPBACK else ())
    app = create_app(service, params, paths, hosts=hosts, key=os.environ.get(params.api_key), loaded=loaded)
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            loop="asyncio",
            limit_concurrency=params.connections,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_keep_alive=KEEP_ALIVE_S,
            timeout_graceful_shutdown=params.shutdown_s,
            server_header=False,
            log_config=None,
        )
    )
    signal.signal(signal.SIGTERM, lambda *_: None)  # uvicorn raises it again after the shutdown; the exit code is 0
    with _listen(host, port) as listener:
        url = _url(listener)
        log.info("%s", url)  # alone on its line, for programs that read the port
        server.run(sockets=[listener])
    if errors:
        raise errors[0]


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sets TCP_NODELAY only on sockets that name their protocol; without it an answer takes 40 ms longer.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise GenreError(
            f"cannot listen on {host} port {port} ({error.strerror}): choose others with --host, --port"
        ) from None
    return listener


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"
