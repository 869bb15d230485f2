"""What the service counts, in the form that Prometheus reads."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)

CONTENT_TYPE = CONTENT_TYPE_LATEST
LATENCIES_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
OTHER = "other"  # paths that are not served: whatever strangers ask for, the number of labels stays the same


class Metrics:
    """Counters of one application, in a registry of their own."""

    def __init__(self) -> None:
        self.paths: set[str] = set()  # that are counted under their names
        self.prefixes: set[str] = set()  # below which everything is counted under this name
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "genre_requests",
            "Requests by path and status; 499: the client went away",
            ["path", "status"],
            registry=self._registry,
        )
        self._seconds = Histogram(
            "genre_request_seconds",
            "Time from the head of a request to the end of its answer",
            ["path"],
            buckets=LATENCIES_S,
            registry=self._registry,
        )
        self._audio = Counter(
            "genre_audio_seconds", "Seconds of music that query has answered about", registry=self._registry
        )
        self._waiting = Gauge("genre_queue_waiting", "Songs that wait for a worker", registry=self._registry)
        self._running = Gauge("genre_queue_running", "Songs that are worked on", registry=self._registry)
        self._uploading = Gauge("genre_uploads", "Uploads that are being received", registry=self._registry)
        self._ready = Gauge("genre_ready", "1 when the models are loaded", registry=self._registry)

    def observe(self, path: str, status: int, seconds: float) -> None:
        """Count a request."""
        label = path if path in self.paths else OTHER
        for prefix in self.prefixes:
            if (path + "/").startswith(prefix + "/"):
                label = prefix
        self._requests.labels(label, str(status)).inc()
        self._seconds.labels(label).observe(seconds)

    def heard(self, seconds: float) -> None:
        """Count seconds of music."""
        self._audio.inc(seconds)

    def watch(
        self,
        *,
        waiting: Callable[[], float],
        running: Callable[[], float],
        uploading: Callable[[], float],
        ready: Callable[[], float],
    ) -> None:
        """Name where the gauges are read."""
        self._waiting.set_function(waiting)
        self._running.set_function(running)
        self._uploading.set_function(uploading)
        self._ready.set_function(ready)

    def text(self) -> bytes:
        """Return all of it, as `CONTENT_TYPE`."""
        return generate_latest(self._registry)
