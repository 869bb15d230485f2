"""From a song to its genre, in memory: cut, features, prediction, vote."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.audio import chunks
from stages.audio.chunks import Chunk
from stages.features.numpy_engine import compute
from stages.features.transforms import TRANSFORMS
from stages.features.vectors import Settings
from stages.models.predict import Answers
from stages.models.vote import vote


def features_of(
    path: Path, settings: Settings, *, start: float = 0.0, duration: float | None = None
) -> Iterator[tuple[Chunk, dict[str, npt.NDArray[np.float32]]]]:
    """Cut a song as the DAG does, and compute the features of each chunk in memory.

    Yields
    ------
    chunk : Chunk
    features : dict of npt.NDArray[np.float32] [shape=(frames, columns)]
        Equal to what the DAG reads back from its CSV files, to their six digits.

    Raises
    ------
    AudioError
        If the song cannot be decoded.
    """
    for chunk in chunks.iterate(
        path,
        sample_rate=settings.sample_rate,
        chunk_seconds=settings.chunk_seconds,
        min_seconds=settings.min_seconds,
        start=start,
        duration=duration,
    ):
        yield chunk, compute(chunk.samples, settings.sample_rate)


def answer(
    path: Path,
    predictor: Answers,
    *,
    start: float = 0.0,
    duration: float | None = None,
    min_confidence: float = 0.0,
) -> dict[str, Any]:
    """Return the genre of a song with all that led to it, in the form of the query contract (see docs/query.md).

    Raises
    ------
    AudioError
        If the song cannot be decoded.
    """
    genres = predictor.card.genres
    cut = list(features_of(path, predictor.card.feature_settings, start=start, duration=duration))
    inputs = {feature: np.stack([features[feature] for _, features in cut]) for feature in TRANSFORMS}
    probabilities = predictor.predict(inputs, [chunk.samples for chunk, _ in cut])
    outcome = vote(probabilities)
    known = outcome.confidence >= min_confidence
    return {
        "file": str(path),
        "duration": round(sum(chunk.seconds for chunk, _ in cut), 3),
        "model": predictor.card.model,
        "genre": genres[outcome.genre] if known else "unknown",
        "confidence": round(outcome.confidence, 6),
        "votes": {genre: n for genre, n in zip(genres, outcome.counts, strict=True) if n},
        "vector": outcome.vector,
        "chunks": [
            {
                "start": round(chunk.start_s, 3),
                "end": round(chunk.start_s + chunk.seconds, 3),
                "genre": genres[position],
                "probabilities": {genre: round(float(p), 6) for genre, p in zip(genres, row, strict=True)},
            }
            for (chunk, _), position, row in zip(cut, outcome.vector, probabilities, strict=True)
        ],
    }
