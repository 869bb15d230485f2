"""The genre of a song, computed in memory: chunks, features, predictions, vote.

Chunks are predicted in threads while an ffmpeg process decodes the next ones.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import numpy.typing as npt
from typing_extensions import TypedDict

from genre.audio import chunks, ffmpeg
from genre.audio.chunks import Chunk
from genre.audio.dataset import UNKNOWN
from genre.audio.process import collected_warnings
from genre.features.numpy_engine import compute
from genre.models.predict import Predictor
from genre.models.vote import vote
from genre.parallel import available_cores, map_threads


class ChunkAnswer(TypedDict):
    """The answer about one chunk."""

    start: float  # s from the start of the file
    end: float  # s
    genre: str
    probabilities: dict[str, float]  # by genre, in the model's order


class Answer(TypedDict):
    """The answer about one song: the contract of query, the HTTP service, the page and the plot (docs/query.md)."""

    file: str
    duration: float  # s that were analysed
    model: str
    genre: str  # genre of most chunks, or "unknown" if the confidence is below `min_confidence`
    confidence: float  # mean probability of the genre of most chunks
    warnings: list[str]  # about the song or the model
    votes: dict[str, int]  # chunks by genre
    vector: list[int]  # class index of each chunk
    chunks: list[ChunkAnswer]


def answer(
    path: Path,
    predictor: Predictor,
    *,
    start: float = 0.0,
    duration: float | None = None,
    middle: float | None = None,
    min_confidence: float = 0.0,
    workers: int | None = None,
) -> Answer:
    """Return the genre of a song, with the predictions for its chunks.

    Raises AudioError if the song cannot be decoded.

    Parameters
    ----------
    start, duration : float
        The part of the file to analyse, in seconds.
    middle : float or None
        Seconds in the middle of the file to analyse instead; all of a shorter file.
    min_confidence : float
        Confidence below which the genre is "unknown".
    workers : int or None
        Number of threads; None for one per core. The answer does not depend on it.
    """
    settings, genres = predictor.card.feature_settings, predictor.card.genres

    def of_chunk(chunk: Chunk) -> tuple[float, float, npt.NDArray[np.float32]]:
        """Return start, seconds and probabilities."""
        features = compute(chunk.samples, settings.sample_rate)
        inputs = {feature: values[np.newaxis] for feature, values in features.items()}
        return chunk.start_s, chunk.seconds, predictor.predict(inputs, [chunk.samples])[0]

    with collected_warnings() as warnings:
        if middle is not None:
            start, duration = max(0.0, (ffmpeg.decoded_seconds(path) - middle) / 2), middle
        pieces = chunks.audible(chunks.iterate(path, **asdict(settings), start=start, duration=duration), path)
        cut = list(map_threads(of_chunk, pieces, workers or available_cores()))
    probabilities = np.stack([row for _, _, row in cut])
    outcome = vote(probabilities)
    accepted = outcome.confidence >= min_confidence
    return {
        "file": str(path),
        "duration": round(sum(seconds for _, seconds, _ in cut), 3),
        "model": predictor.card.model,
        "genre": genres[outcome.genre] if accepted else UNKNOWN,
        "confidence": round(outcome.confidence, 6),
        "warnings": [*predictor.card.warnings, *warnings],
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
