"""Prometheus metrics of the service."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
DISCONNECTED = 499  # status of a request whose client disconnected before the response


class Metrics:
    """The metrics of one application."""

    def __init__(self) -> None:
        registry = self._registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        description = "Requests by path and status; 499: the client disconnected"
        self.requests = Counter("genre_requests", description, ["path", "status"], registry=registry)
        description = "Time from the head of a request to the end of its response"
        self.seconds = Histogram("genre_request_seconds", description, ["path"], buckets=BUCKETS_S, registry=registry)
        self.audio = Counter("genre_audio_seconds", "Seconds of audio analysed by query", registry=registry)

    def gauge(self, name: str, description: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read from `value`."""
        Gauge(name, description, registry=self._registry).set_function(value)

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)


class CountRequests:
    """Middleware that counts requests and measures their duration, by path."""

    def __init__(self, app: ASGIApp, metrics: Metrics, paths: Collection[str], prefix: str) -> None:
        """Label a request with its path if it is in `paths`, with `prefix` if it is below it, or else with 'other'."""
        self._app, self._metrics, self._paths, self._prefix = app, metrics, frozenset(paths), prefix

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
            self._metrics.requests.labels(label, str(status)).inc()
            self._metrics.seconds.labels(label).observe(time.perf_counter() - start)
