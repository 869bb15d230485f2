"""The answers of the service: models and indexes, loaded once."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from typing_extensions import TypedDict

from genre import params
from genre.audio import chunks, ffmpeg
from genre.errors import GenreError, SearchError
from genre.models import cards, predict, rejection
from genre.models.query import Answer, answer
from genre.paths import Paths
from genre.search.identify import Engine, Match, identify, open_engine
from genre.search.similar import Neighbours, Similar, open_neighbours

log = logging.getLogger(__name__)

WARM_UP_S = 5.0  # length of the noise that is analysed before the service is ready


class ModelInfo(TypedDict):
    """Description of the model."""

    model: str
    genres: list[str]  # in the order of the model's outputs
    accuracy: float | None  # on validation songs; None if the card has none
    validation_songs: int | None


class Service:
    """The answers of query, identify and similar. The methods are thread-safe."""

    def __init__(self, paths: Paths, *, model: str | None = None) -> None:
        """Use the models of a project; `model` None: the default model of query."""
        self._paths, self._model = paths, model
        self._predictor: predict.Predictor
        self._engine: Engine
        self._neighbours: Neighbours
        self._failures: dict[str, str] = {}  # command: why it is not available
        self._resources = contextlib.ExitStack()
        self.ready = False

    def load(self) -> None:
        """Load models and indexes and answer once about noise, which loads the rest.

        If only an index is missing or damaged, query still works.
        Raises GenreError if params.yaml, ffmpeg or the model is missing or damaged.
        """
        ffmpeg.executable()
        settings = params.load(self._paths.params)
        self._min_score = settings.search.min_score
        self._predictor = predict.load(self._model, self._paths)
        self._rejection = rejection.load(self._paths, self._predictor.card.model, settings.query.reject)
        sample_rate = self._predictor.card.feature_settings.sample_rate
        samples = np.random.default_rng(0).normal(0.0, 1000.0, round(WARM_UP_S * sample_rate)).astype(np.int16)
        with tempfile.TemporaryDirectory(prefix="genre-") as folder:
            noise = Path(folder, "noise.wav")
            chunks.write(noise, samples, sample_rate=sample_rate)
            self.query(noise)
            with self._optional("identify"):
                self._engine = self._resources.enter_context(open_engine(settings, self._paths))
                self.identify(noise)
            with self._optional("similar"):
                self._neighbours = self._resources.enter_context(open_neighbours(settings, self._paths))
                self.similar(noise)
        self.ready = True

    def close(self) -> None:
        """Close the vector stores."""
        self.ready = False
        self._resources.close()

    @property
    def info(self) -> ModelInfo:
        """Name, genres and validation accuracy of the model."""
        card = self._predictor.card
        scores = card.scores
        if cards.ENSEMBLE in cards.available(self._paths):
            scores = cards.read(cards.ENSEMBLE, self._paths).scores.get(card.model, scores)
        accuracy, songs = scores.get("song_accuracy", scores.get("validation_accuracy")), scores.get("n_songs")
        return {
            "model": card.model,
            "genres": list(card.genres),
            "accuracy": accuracy,
            "validation_songs": None if songs is None else int(songs),
        }

    def query(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> Answer:
        """Return the genre of a song; see `genre.models.query.answer`."""
        return answer(path, self._predictor, start=start, duration=duration, rejection=self._rejection)

    def identify(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> Match:
        """Return the indexed song of a snippet; SearchError if there is no index."""
        self._check("identify")
        return identify(path, self._engine, start=start, duration=duration, min_score=self._min_score)

    def similar(self, path: Path, *, top: int = 10, start: float = 0.0, duration: float | None = None) -> Similar:
        """Return the indexed songs most similar to a song; SearchError if there is no index."""
        self._check("similar")
        return self._neighbours.similar(path, top=top, start=start, duration=duration)

    def _check(self, command: str) -> None:
        if command in self._failures:
            raise SearchError(self._failures[command])

    @contextlib.contextmanager
    def _optional(self, command: str) -> Iterator[None]:
        """Store the message of a GenreError: the other commands still work."""
        try:
            yield
        except GenreError as error:
            log.warning("%s is not available: %s", command, error)
            self._failures[command] = f"{error}; then restart the service"
