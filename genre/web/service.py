"""What the service and the page answer with: models and indexes, loaded once, asked by many threads."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from genre import params
from genre.audio import chunks, ffmpeg
from genre.errors import GenreError, ModelError, SearchError

if TYPE_CHECKING:
    from genre.models.predict import Answers
    from genre.models.query import Answer
    from genre.search.engines import Engine, Match
    from genre.search.settings import SearchSettings
    from genre.search.similar import Neighbours, Similar

Loaded = TypeVar("Loaded")

log = logging.getLogger(__name__)

WARM_UP_S = 5.0  # of made noise that is answered about before the first song comes


class Answerer:
    """The answers of query, identify and similar, from models that stay loaded. Methods may be called by any thread."""

    def __init__(self, root: Path = Path(), *, model: str | None = None) -> None:
        """Name the project's folder, and the model that answers (None: the ensemble's choice)."""
        self._root, self._model = root, model
        self._ready = False
        self._settings: SearchSettings
        self._predictor: Answers
        self._min_confidence = 0.0
        self._engine: Engine | str  # of identify, or why there is none
        self._neighbours: Neighbours | str
        self._held = contextlib.ExitStack()  # what is open: vector stores

    def load(self) -> None:
        """Load models and indexes, and answer once about made noise. An index that is missing is told when it is asked.

        Raises
        ------
        GenreError
            If params.yaml, ffmpeg or the model that answers is missing or damaged.
        """
        from genre.models import ensemble, predict
        from genre.search.settings import search_settings

        ffmpeg.executable()
        everything = params.load(self._root / params.PARAMS_FILE)
        self._settings = search_settings(everything)
        with _missing_packages_named():
            self._predictor = predict.load(self._model, self._root)
        self._min_confidence = ensemble.unknown_threshold(self._predictor.card.unknown, self._root) or 0.0
        self._engine = _or_reason("identify", partial(self._load_engine, everything))
        self._neighbours = _or_reason("similar", partial(self._load_neighbours, everything))
        self._warm_up()
        self._ready = True

    def close(self) -> None:
        """Let go of the vector stores."""
        self._ready = False
        self._held.close()

    @property
    def ready(self) -> bool:
        """Whether everything is loaded."""
        return self._ready

    @property
    def model(self) -> str | None:
        """The name of the model that answers; None before `load`."""
        return self._predictor.card.model if self._ready else None

    @property
    def genres(self) -> list[str]:
        """The genres that query tells apart, in the order of the model's outputs; none before `load`."""
        return self._predictor.card.genres if self._ready else []

    def query(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> Answer:
        """Return the genre of a song, in the form of the query contract (docs/query.md).

        Raises
        ------
        AudioError
            If the song cannot be decoded.
        """
        from genre.models.query import answer

        return answer(path, self._predictor, start=start, duration=duration, min_confidence=self._min_confidence)

    def identify(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> Match:
        """Return which indexed song a snippet is from, in the form of the identify contract (docs/search.md).

        Raises
        ------
        AudioError
            If the snippet cannot be decoded.
        SearchError
            If there is no index; it says what makes one.
        """
        from genre.search.engines import identify

        if isinstance(self._engine, str):
            raise SearchError(self._engine)
        return identify(path, engine=self._engine, start=start, duration=duration, min_score=self._settings.min_score)

    def similar(self, path: Path, *, top: int = 10, start: float = 0.0, duration: float | None = None) -> Similar:
        """Return the songs most like a song, in the form of the similar contract (docs/search.md).

        Raises
        ------
        AudioError
            If the song cannot be decoded.
        SearchError
            If there is no index, it says what makes one; or the vector store does not answer.
        """
        from genre.search.similar import similar

        if isinstance(self._neighbours, str):
            raise SearchError(self._neighbours)
        made_with = self._neighbours.made_with
        return similar(
            path,
            store=self._neighbours.store,
            projection=self._neighbours.projection,
            embedding=made_with.embedding,
            settings=made_with.feature_settings,
            top=top,
            top_k=self._settings.top_k,
            start=start,
            duration=duration,
        )

    def _load_engine(self, everything: params.Params) -> Engine:
        from genre.search import engines
        from genre.search.settings import index_settings

        return self._held.enter_context(
            engines.opened(
                self._settings.engine,
                index_settings(everything),
                max_speed_change=self._settings.max_speed_change,
                root=self._root,
            )
        )

    def _load_neighbours(self, everything: params.Params) -> Neighbours:
        from genre.search import similar as neighbours
        from genre.search.settings import index_settings

        return self._held.enter_context(neighbours.opened(self._root, index_settings(everything)))

    def _warm_up(self) -> None:
        """Answer about noise: what is loaded on first use is loaded now, and what does not work shows now."""
        sample_rate = self._predictor.card.feature_settings.sample_rate
        noise = np.random.default_rng(0).normal(0.0, 1000.0, round(WARM_UP_S * sample_rate)).astype(np.int16)
        with tempfile.TemporaryDirectory(prefix="genre-") as folder:
            path = Path(folder, "noise.wav")
            chunks.write(path, noise, sample_rate=sample_rate)
            with _missing_packages_named():
                self.query(path)
            if not isinstance(self._engine, str):
                self._engine = _or_reason("identify", partial(_tried, self._engine, self.identify, path))
            if not isinstance(self._neighbours, str):
                self._neighbours = _or_reason("similar", partial(_tried, self._neighbours, self.similar, path))


def _tried(loaded: Loaded, ask: Callable[[Path], Any], path: Path) -> Loaded:
    ask(path)
    return loaded


def _or_reason(command: str, load: Callable[[], Loaded]) -> Loaded | str:
    """Return what is loaded, or why it cannot be: then the other answers are given all the same."""
    try:
        with _missing_packages_named():
            return load()
    except GenreError as error:
        log.warning("%s cannot answer: %s", command, error)
        return f"{error}; then start the service again"


@contextlib.contextmanager
def _missing_packages_named() -> Iterator[None]:
    """Say in a sentence that something was never converted, and TensorFlow, which does it, is not to be had here."""
    try:
        yield
    except ImportError as error:
        raise ModelError(
            f"a model needs the package {error.name}, which is not to be had here: where it is, run"
            " `python -m stages.query` and `python -m stages.similar` on a song once"
        ) from error
