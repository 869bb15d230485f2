"""The service behind the HTTP interface: models and indexes, loaded once, songs to play, worker threads and metrics."""

from __future__ import annotations

import contextlib
import functools
import logging
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector
from starlette.exceptions import HTTPException
from typing_extensions import TypedDict

from genre import archives
from genre.audio import chunks, ffmpeg, manifest
from genre.errors import DatasetError, GenreError, SearchError
from genre.models import cards
from genre.params import ServeParams
from genre.paths import Paths
from genre.project import Project
from genre.web.workers import Workers

log = logging.getLogger(__name__)

WARM_UP_S = 5.0  # length of the noise that is analysed before the service is ready
N_EXAMPLES = 5
# Formats that browsers play; of a song in another format, the first chunk (wav) is played
MEDIA_TYPES = {".wav": "audio/wav", ".mp3": "audio/mpeg", ".flac": "audio/flac", ".m4a": "audio/mp4"}
MEDIA_TYPES |= dict.fromkeys((".ogg", ".oga", ".opus"), "audio/ogg")

Index = dict[tuple[str, str], manifest.Row]  # first chunk of each song, by genre and name


class Example(TypedDict):
    """An indexed song that a client can try."""

    song: str
    genre: str


class Info(TypedDict):
    """Description of the model, limits of uploads and example songs."""

    model: str
    genres: list[str]  # in the order of the model's outputs
    accuracy: float | None  # on validation songs; None if the card has none
    validation_songs: int | None
    max_upload_bytes: int
    max_audio_s: float
    examples: list[Example]


class Service:
    """Models, indexes, worker threads and metrics of a project. `answer` is thread-safe."""

    def __init__(self, project: Project, limits: ServeParams) -> None:
        """Use the models and indexes of a project, which `load` loads and `close` closes."""
        self.project, self.paths, self.params = project, project.paths, limits
        self.uploads: set[object] = set()  # large ones that are being received
        self.workers = workers = Workers(self.params.workers, self.params.queue, self.params.timeout_s)
        self.metrics = CollectorRegistry()
        ProcessCollector(registry=self.metrics)
        self.audio_s = Counter("genre_audio_seconds", "Seconds of audio analysed by query", registry=self.metrics)
        gauge = functools.partial(Gauge, namespace="genre", registry=self.metrics)
        waiting, running = gauge("queue_waiting", "Songs in the queue"), gauge("queue_running", "Songs being analysed")
        waiting.set_function(lambda: len(workers.jobs) - workers.n_running)
        running.set_function(lambda: workers.n_running)
        gauge("uploads", "Large uploads being received").set_function(lambda: len(self.uploads))
        gauge("ready", "1 when the models are loaded").set_function(lambda: self.ready)
        self.songs: Index = {}
        self._failures: dict[str, str] = {}  # command: why it is not available
        self.ready = False

    def load(self, url: str) -> None:
        """Load models and indexes and answer once about noise, which loads the rest; `url` is logged.

        If only an index is missing or damaged, query still works.
        Raises GenreError if params.yaml, ffmpeg or the model is missing or damaged.
        """
        ffmpeg.executable()
        self.songs = read_songs(self.paths)
        sample_rate = self.project.predictor.card.settings.sample_rate
        noise = np.random.default_rng(0).normal(0.0, 1000.0, round(WARM_UP_S * sample_rate)).astype(np.int16)
        with tempfile.TemporaryDirectory(prefix="genre-") as folder:
            chunks.write(song := Path(folder, "noise.wav"), noise, sample_rate=sample_rate)
            self.answer("query", song)
            for command in ("identify", "similar"):
                try:
                    self.answer(command, song)
                except GenreError as error:
                    log.warning("%s is not available: %s", command, error)
                    self._failures[command] = f"{error}; then restart the service"
        self.ready = True
        log.info("ready: %s (page at /ui, documentation at /docs)", url)

    def close(self) -> None:
        """End the work, and close the vector stores."""
        self.workers.close()
        self.project.close()

    def check_ready(self) -> None:
        """Raise HTTPException 503 until the models are loaded."""
        if not self.ready:
            raise HTTPException(503, "the models are still loading: retry shortly", {"Retry-After": "2"})

    def info(self) -> Info:
        """Return the description of the model, the limits of uploads and example songs."""
        card = self.project.predictor.card
        scores = card.scores
        if cards.ENSEMBLE in cards.available(self.paths):
            scores = cards.read(cards.ENSEMBLE, self.paths).scores.get(card.model, scores)
        n_songs, examples = scores.get("n_songs"), _examples(self.songs, self.paths)
        return {
            "model": card.model,
            "genres": list(card.genres),
            "accuracy": scores.get("song_accuracy", scores.get("validation_accuracy")),
            "validation_songs": None if n_songs is None else int(n_songs),
            "max_upload_bytes": self.params.max_upload_bytes,
            "max_audio_s": self.params.max_audio_s,
            "examples": [{"song": row.song, "genre": row.genre} for row in examples],
        }

    def answer(self, command: str, path: Path, **options: Any) -> Mapping[str, Any]:
        """Return the answer of query, identify or similar about a song; SearchError if there is no index."""
        if command in self._failures:
            raise SearchError(self._failures[command])
        answer: Mapping[str, Any] = getattr(self.project, command)(path, **options)
        return answer


def read_songs(paths: Paths) -> Index:
    """Return the songs of chunks/index.csv; none if it is missing or damaged."""
    index: Index = {}
    with contextlib.suppress(DatasetError):
        for row in manifest.read(paths.chunks):  # which refuses paths outside chunks/ and dataset/
            index.setdefault((row.genre, row.song), row)
    return index


def _examples(index: Index, paths: Paths) -> list[manifest.Row]:
    """Return the first rows of at most `N_EXAMPLES` playable test songs, one per genre."""
    by_genre: dict[str, manifest.Row] = {}
    for row in index.values():
        if row.split == "test" and row.genre not in by_genre and playable(row, paths):
            by_genre[row.genre] = row
    return list(by_genre.values())[:N_EXAMPLES]


def playable(row: manifest.Row, paths: Paths) -> Path | None:
    """Return the source of a song or its first chunk, which may be in an archive; None for links to other folders."""
    data_set = paths.root.joinpath(*Path(row.source).parts[:2])  # may itself be a symbolic link
    for path, folder in ((paths.root / row.source, data_set), (paths.chunks / row.chunk, paths.chunks)):
        exists = path.is_file() or archives.archive_of(path) is not None
        if exists and path.suffix.lower() in MEDIA_TYPES and path.resolve().is_relative_to(folder.resolve()):
            return path
    return None
