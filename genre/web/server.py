"""The server: uvicorn on a socket, with limits and a graceful shutdown."""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable

import uvicorn
from fastapi import FastAPI

from genre.audio import process
from genre.errors import GenreError
from genre.params import ServeParams
from genre.web.middleware import LOOPBACK_NAMES, MAX_HEAD_BYTES, SECURITY_HEADERS

log = logging.getLogger(__name__)

BACKLOG = 256  # connections that the kernel holds until they are accepted
MAX_UNSENT_BYTES = 1 << 14  # of a response, in the kernel
CLOSE_S = 2.0  # for the end of the thread that loads the models


def run(app: FastAPI, params: ServeParams, load: Callable[[str], object], *, host: str, port: int) -> None:
    """Serve an application until SIGTERM or SIGINT; requests in flight are completed.

    Port 0 is a free port; the address is logged, and `load` is called with it in a thread. Raises what `load` raises;
    GenreError if the port is taken; SystemExit after SIGTERM, and what the handler of SIGINT raises.
    """
    server = uvicorn.Server(
        uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            loop="asyncio",
            backlog=BACKLOG,
            limit_concurrency=params.connections,
            h11_max_incomplete_event_size=MAX_HEAD_BYTES,
            timeout_graceful_shutdown=params.shutdown_s,
            server_header=False,
            headers=list(SECURITY_HEADERS.items()),
            log_config=None,
        )
    )
    errors: list[BaseException] = []

    def attempt() -> None:
        try:
            load(url)
        except BaseException as error:
            errors.append(error)
            server.should_exit = True

    # before uvicorn handles it, and after the shutdown, when uvicorn raises it again
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    with _listen(host, port, params.stall_s) as listener:
        url = f"http://{_bracketed(listener.getsockname()[0])}:{listener.getsockname()[1]}"
        log.info("%s", url)  # ends its line, for programs that read the port
        if _bracketed(host) not in LOOPBACK_NAMES:
            log.warning(
                "put a reverse proxy in front (docs/service.md): nothing is encrypted, addresses are not limited, and"
                " slow heads, uploads and readers and bodies of tiny chunks take connections and time from others"
            )
            if not os.environ.get(params.api_key):
                log.warning("everyone who reaches %s can use the service: set a key in %s", url, params.api_key)
        loader = threading.Thread(target=attempt, daemon=True)
        loader.start()
        try:
            server.run(sockets=[listener])
        finally:
            process.kill_all()
            loader.join(CLOSE_S)
    if errors:
        raise errors[0]


def _listen(host: str, port: int, stall_s: float) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG, dualstack_ipv6=dual)
    except OSError as error:
        raise GenreError(f"cannot listen on {host} port {port} ({error.strerror}): see --host and --port") from None
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # of connections, whose responses take 40 ms less
    if sys.platform == "linux":  # sending waits for the client; the kernel closes the connection if it reads nothing
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, MAX_UNSENT_BYTES)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(1000 * stall_s))
    return listener


def _bracketed(host: str) -> str:
    """Return a host as in a URL: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host
