"""A project from Python: query, identify, similar and features (docs/python.ipynb)."""

from __future__ import annotations

import contextlib
import functools
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from genre.errors import AudioError, ModelError, SearchError
from genre.paths import Paths

if TYPE_CHECKING:
    from genre.features.transforms import Features, Samples
    from genre.models.predict import Predictor
    from genre.models.query import Answer, Options
    from genre.models.rejection import Rejection
    from genre.params import CommandParams
    from genre.search.identify import Engine, Match
    from genre.search.similar import Neighbours, Similar


class Project(contextlib.AbstractContextManager["Project"]):
    """The models and indexes of a project or a package of models, each loaded when it is first used.

    Close it, or use it in a with statement. A song is the path of a file of any format that ffmpeg decodes; `start` and
    `duration` are the part of it to use, in seconds. The methods raise AudioError if a song cannot be decoded, and
    another GenreError if a model or an index is missing, damaged or made with other settings. Threads may share a
    project after its first answer of each kind.
    """

    def __init__(self, root: str | Path | None = None, *, model: str | None = None, engine: str | None = None) -> None:
        """Use a project's folder, or a package that `stages.pack` wrote; raise ModelError if there is neither.

        `root` None is the folder of GENRE_PROJECT, or the working directory. `model` None is the default model, and
        `engine` None that of search.engine: "landmarks" or "embeddings".
        """
        self._model, self._engine = model, engine
        self.paths = Paths() if root is None else Paths(Path(root).expanduser())
        self._resources = contextlib.ExitStack()
        self._package = self.paths.root if root is not None and self.paths.root.is_file() else None
        if self._package:
            from genre import package

            folder = package.extract(self._package)
            self.paths = Paths(Path(self._resources.enter_context(folder)))
        elif not self.paths.root.is_dir():
            raise ModelError(f"{self.paths.root} is not the folder of a project (GENRE_PROJECT) or a package")

    def query(self, song: str | Path, **options: Unpack[Options]) -> Answer:
        """Return the genre of a song and of each chunk (docs/query.md).

        `options` are those of `models.query.answer`.
        """
        from genre.models import query

        return query.answer(Path(song), self.predictor, rejection=self.rejection, **options)

    def query_samples(self, samples: Samples, sample_rate: int, **options: Unpack[Options]) -> Answer:
        """Return the answer of `query` for mono samples [shape=(n,)], int16, or floats of -1 to 1, at a rate in Hz."""
        import tempfile

        import numpy as np

        from genre.audio import chunks

        is_float = np.issubdtype(samples.dtype, np.floating) and np.isfinite(samples).all()
        if samples.ndim != 1 or not (is_float or samples.dtype == np.int16) or sample_rate < 1:
            raise AudioError("samples must be mono [shape=(n,)], int16 or finite floats of -1 to 1, at a rate in Hz")
        pcm = np.rint(np.clip((32768 if is_float else 1) * samples, -32768, 32767)).astype(np.int16)
        with tempfile.TemporaryDirectory(prefix="genre-") as folder:
            chunks.write(song := Path(folder, "samples.wav"), pcm, sample_rate=sample_rate)
            try:
                return {**self.query(song, **options), "file": ""}
            except AudioError as error:
                raise AudioError(str(error).replace(str(song), "samples")) from error

    def identify(
        self, song: str | Path, *, start: float = 0.0, duration: float | None = None, min_score: float | None = None
    ) -> Match:
        """Return the indexed songs that a snippet is from, best first, with its position in them (docs/search.md).

        There are none if all score below `min_score` (None: search.min_score).
        """
        from genre.search.identify import identify

        least = self.params.search.min_score if min_score is None else min_score
        match = identify(Path(song), self.engine, start=start, duration=duration, min_score=least)
        songs = self._with_paths(match["songs"])
        return {**match, "songs": songs, "path": songs[0]["path"] if songs else None}

    def similar(self, *songs: str | Path, top: int = 10, start: float = 0.0, duration: float | None = None) -> Similar:
        """Return the `top` indexed songs most similar to all of some songs, and the genre of their neighbours.

        See docs/search.md.
        """
        result = self.neighbours.similar(*map(Path, songs), top=top, start=start, duration=duration)
        return {**result, "songs": self._with_paths(result["songs"])}

    def features(self, song: str | Path) -> Features:
        """Return the features of a whole song at its own sample rate, by name, each [shape=(frames, columns)].

        They are the numbers that `python -m stages.extract FILE --engine numpy` writes, before they are rounded.
        """
        import numpy as np

        from genre.features import extraction, numpy_engine

        sample_rate, blocks = extraction.open_audio(Path(song))
        return numpy_engine.compute(np.concatenate(list(blocks)), sample_rate)

    @functools.cached_property
    def params(self) -> CommandParams:
        """Return the settings of params.yaml, `Params`; of a package, `PackagedParams`."""
        from genre import params

        return params.read(self.paths.params, params.PackagedParams if self._package else params.Params)

    @functools.cached_property
    def predictor(self) -> Predictor:
        """Return the model, loaded in the background; its `predict` takes the features or samples of chunks."""
        from genre.models import predict

        return predict.load(self._model, self.paths, wait=False)

    @functools.cached_property
    def rejection(self) -> Rejection | None:
        """Return the detectors of unknown songs at the rate query.reject; None without."""
        from genre.models import rejection

        return rejection.load(self.paths, self.predictor.card.model, self._reject())

    @functools.cached_property
    def engine(self) -> Engine:
        """Return the engine of identify, with its index."""
        from genre.search.identify import open_engine

        return self._resources.enter_context(open_engine(self.params, self._with_index(), self._engine))

    @functools.cached_property
    def neighbours(self) -> Neighbours:
        """Return the embedding index."""
        from genre.search.similar import open_neighbours

        return self._resources.enter_context(open_neighbours(self.params, self._with_index()))

    def close(self) -> None:
        """Close the indexes."""
        for name in ("engine", "neighbours"):
            self.__dict__.pop(name, None)
        self._resources.close()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _with_index(self) -> Paths:
        """Return the paths; raise SearchError for a package without an index."""
        if self._package and not self.paths.index.is_file():
            raise SearchError(f"{self._package} has no index: `genre pack --index` adds it")
        return self.paths

    @functools.cached_property
    def _sources(self) -> dict[str, str]:
        from genre.audio import manifest

        return {song: str(self.paths.root / path) for song, path in manifest.sources(self.paths.chunks).items()}

    def _with_paths(self, songs: Any) -> list[Any]:
        return [{**song, "path": self._sources.get(f"{song['genre']}/{song['song']}")} for song in songs]

    def _reject(self) -> float | None:
        """Return query.reject alone: a check of all settings would take a tenth of a query."""
        from genre import files

        with contextlib.suppress(Exception):
            rate: float | None = files.read_yaml(self.paths.params)["query"]["reject"]
            if rate is None or (isinstance(rate, float) and 0.0 < rate <= 0.5):
                return rate
        return self.params.query.reject  # raises an error that says what is wrong
