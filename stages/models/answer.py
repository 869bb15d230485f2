"""From a song to its genre, in memory: cut, features, prediction, vote.

Chunks are answered in threads while ffmpeg, a process of its own, decodes what follows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from stages.audio import chunks, ffmpeg
from stages.audio.chunks import Chunk
from stages.audio.collection import UNKNOWN
from stages.features.numpy_engine import compute
from stages.machine import available_cores
from stages.models.predict import Answers
from stages.models.vote import vote

Item = TypeVar("Item")
Result = TypeVar("Result")


def answer(
    path: Path,
    predictor: Answers,
    *,
    start: float = 0.0,
    duration: float | None = None,
    middle: float | None = None,
    min_confidence: float = 0.0,
    workers: int | None = None,
) -> dict[str, Any]:
    """Return the genre of a song with all that led to it, in the form of the query contract (see docs/query.md).

    Parameters
    ----------
    path : Path
        An audio file that ffmpeg reads.
    predictor : Answers
        As `predict.load` returns it.
    start, duration : float
        The part of the file that is asked about, in seconds.
    middle : float or None
        Or so many seconds in the middle of it (all of a shorter file); then `start` and `duration` do not count.
    min_confidence : float
        Below it the genre is "unknown".
    workers : int or None
        Threads; None is one per core. The answer is the same for any number.

    Raises
    ------
    AudioError
        If the song cannot be decoded.
    """
    if middle is not None:
        start, duration = max(0.0, ((ffmpeg.seconds_of(path) or 0.0) - middle) / 2), middle
    settings, genres = predictor.card.feature_settings, predictor.card.genres

    def of_chunk(chunk: Chunk) -> tuple[float, float, npt.NDArray[np.float32]]:
        """Return start, seconds and probabilities."""
        features = compute(chunk.samples, settings.sample_rate)
        inputs = {feature: values[np.newaxis] for feature, values in features.items()}
        return chunk.start_s, chunk.seconds, predictor.predict(inputs, [chunk.samples])[0]

    pieces = chunks.iterate(path, **asdict(settings), start=start, duration=duration)
    cut = list(side_by_side(of_chunk, pieces, workers or available_cores()))
    probabilities = np.stack([row for _, _, row in cut])
    outcome = vote(probabilities)
    known = outcome.confidence >= min_confidence
    return {
        "file": str(path),
        "duration": round(sum(seconds for _, seconds, _ in cut), 3),
        "model": predictor.card.model,
        "genre": genres[outcome.genre] if known else UNKNOWN,
        "confidence": round(outcome.confidence, 6),
        "votes": {genre: n for genre, n in zip(genres, outcome.counts, strict=True) if n},
        "vector": outcome.vector,
        "chunks": [
            {
                "start": round(start_s, 3),
                "end": round(start_s + seconds, 3),
                "genre": genres[position],
                "probabilities": {genre: round(float(p), 6) for genre, p in zip(genres, row, strict=True)},
            }
            for (start_s, seconds, row), position in zip(cut, outcome.vector, strict=True)
        ],
    }


def side_by_side(function: Callable[[Item], Result], items: Iterable[Item], workers: int) -> Iterator[Result]:
    """Call a function on every item in threads, and yield the results in the order of the items.

    Few items are held at a time: they may be large, or many. What the function raises is raised here.
    """
    waiting: deque[Future[Result]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for item in items:
            if len(waiting) > workers:
                yield waiting.popleft().result()
            waiting.append(pool.submit(function, item))
        while waiting:
            yield waiting.popleft().result()
