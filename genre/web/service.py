"""Models and indexes of the service: loaded once, called from several threads."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from typing_extensions import TypedDict

from genre import params
from genre.audio import chunks, ffmpeg
from genre.errors import GenreError, ModelError, SearchError
from genre.paths import Paths

if TYPE_CHECKING:
    from genre.models.predict import Answers
    from genre.models.query import Answer
    from genre.search.engine import Engine
    from genre.search.identify import Match
    from genre.search.similar import Neighbours, Similar

Loaded = TypeVar("Loaded")

log = logging.getLogger(__name__)

WARM_UP_S = 5.0  # length of the noise that is analysed once before the service is ready


class ModelInfo(TypedDict):
    """The model that answers."""

    model: str
    genres: list[str]  # in the order of the model's outputs
    accuracy: float | None  # on validation songs; None if the card has none
    validation_songs: int | None


class Service:
    """The answers of query, identify and similar. Its methods may be called from any thread."""

    def __init__(self, paths: Paths, *, model: str | None = None) -> None:
        """Use the models of a project; `model` None means the default of query."""
        self._paths, self._model = paths, model
        self._predictor: Answers
        self._engine: Engine | str  # of identify, or the reason why there is none
        self._neighbours: Neighbours | str  # of similar, or the reason why there are none
        self._resources = contextlib.ExitStack()
        self.ready = False

    def load(self) -> None:
        """Load models and indexes and analyse some noise. Without an index only identify and similar fail.

        Raises
        ------
        GenreError
            If params.yaml, ffmpeg or the model is missing or damaged.
        """
        from genre.models import ensemble, predict
        from genre.search.identify import open_engine
        from genre.search.similar import open_neighbours

        ffmpeg.executable()
        settings = params.load(self._paths.params)
        self._min_score, root = settings.search.min_score, self._paths.root
        self._predictor = _with_packages(partial(predict.load, self._model, root))
        self._min_confidence = ensemble.unknown_threshold(self._predictor.card.unknown, root) or 0.0
        engine = open_engine(settings, self._paths)
        self._engine = _or_reason("identify", partial(self._resources.enter_context, engine))
        neighbours = open_neighbours(settings, self._paths)
        self._neighbours = _or_reason("similar", partial(self._resources.enter_context, neighbours))
        self._warm_up()
        self.ready = True

    def close(self) -> None:
        """Close the vector stores."""
        self.ready = False
        self._resources.close()

    @property
    def info(self) -> ModelInfo:
        """Name, genres and validation accuracy of the model that answers."""
        from genre.models import ensemble

        card = self._predictor.card
        scores: dict[str, Any] = getattr(card, "scores", {})
        if ensemble.card_path(self._paths.root).is_file():
            scores = ensemble.read(self._paths.root).scores.get(card.model, scores)
        accuracy, songs = scores.get("song_accuracy", scores.get("validation_accuracy")), scores.get("n_songs")
        return {
            "model": card.model,
            "genres": list(card.genres),
            "accuracy": accuracy,
            "validation_songs": None if songs is None else int(songs),
        }

    def query(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> Answer:
        """Return the genre of a song (docs/query.md). See `genre.models.query.answer` for errors."""
        from genre.models.query import answer

        return answer(path, self._predictor, start=start, duration=duration, min_confidence=self._min_confidence)

    def identify(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> Match:
        """Return the indexed song of a snippet (docs/search.md); SearchError if there is no index."""
        from genre.search.identify import identify

        if isinstance(self._engine, str):
            raise SearchError(self._engine)
        return identify(path, self._engine, start=start, duration=duration, min_score=self._min_score)

    def similar(self, path: Path, *, top: int = 10, start: float = 0.0, duration: float | None = None) -> Similar:
        """Return the songs most similar to a song (docs/search.md); SearchError if there is no index."""
        if isinstance(self._neighbours, str):
            raise SearchError(self._neighbours)
        return self._neighbours.similar(path, top=top, start=start, duration=duration)

    def _warm_up(self) -> None:
        """Analyse noise, to load what is loaded on first use and to detect what does not work."""
        sample_rate = self._predictor.card.feature_settings.sample_rate
        noise = np.random.default_rng(0).normal(0.0, 1000.0, round(WARM_UP_S * sample_rate)).astype(np.int16)
        with tempfile.TemporaryDirectory(prefix="genre-") as folder:
            path = Path(folder, "noise.wav")
            chunks.write(path, noise, sample_rate=sample_rate)
            _with_packages(partial(self.query, path))
            for command, function, attribute in (
                ("identify", self.identify, "_engine"),
                ("similar", self.similar, "_neighbours"),
            ):
                if not isinstance(getattr(self, attribute), str):
                    outcome: Any = _or_reason(command, partial(function, path))
                    if isinstance(outcome, str):
                        setattr(self, attribute, outcome)


def _or_reason(command: str, load: Callable[[], Loaded]) -> Loaded | str:
    """Return the result of `load`, or the reason why it failed: the other commands still work."""
    try:
        return _with_packages(load)
    except GenreError as error:
        log.warning("%s is not available: %s", command, error)
        return f"{error}; then restart the service"


def _with_packages(load: Callable[[], Loaded]) -> Loaded:
    """Return the result of `load`; a missing optional package becomes a ModelError that says what to do."""
    try:
        return load()
    except ImportError as error:
        raise ModelError(
            f"a model needs the package {error.name}, which is not installed:"
            " run `python -m stages.query` and `python -m stages.similar` once where it is"
        ) from error
