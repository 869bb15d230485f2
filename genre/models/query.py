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
from genre.audio.dataset import UNKNOWN
from genre.audio.process import collected_warnings
from genre.features.numpy_engine import compute
from genre.models.embeddings import Batch
from genre.models.predict import Predictor
from genre.models.rejection import UNSURE, Rejection
from genre.models.vote import vote
from genre.parallel import available_cores, map_threads

COVERAGE = 0.9  # of the prediction sets: the fraction of songs whose set holds their genre


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
    genre: str  # genre of most chunks, or "unknown"
    reason: str | None  # why the genre is "unknown"
    confidence: float  # mean probability of the genre of most chunks
    genre_set: list[str]  # prediction set, the most probable first; empty if the genre is "unknown"
    set_coverage: float  # fraction of songs like the training songs whose set holds their genre
    set_songs: int  # out-of-fold songs that the coverage is estimated from
    warnings: list[str]  # about the song or the model
    votes: dict[str, int]  # chunks by genre
    vector: list[int]  # class index of each chunk
    chunks: list[ChunkAnswer]


class Options(TypedDict, total=False):
    """The keywords of `answer` that a user sets."""

    start: float
    duration: float | None
    middle: float | None
    min_confidence: float
    coverage: float


def answer(
    path: Path,
    predictor: Predictor,
    *,
    start: float = 0.0,
    duration: float | None = None,
    middle: float | None = None,
    rejection: Rejection | None = None,
    min_confidence: float = 0.0,
    coverage: float = COVERAGE,
    workers: int | None = None,
) -> Answer:
    """Return the genre of a song, with the predictions for its chunks.

    `start` and `duration` are the part of the file to analyse, in seconds; or `middle`, so many seconds in its middle,
    and all of a shorter file. The genre is "unknown" if `rejection` rejects the song or the confidence is below
    `min_confidence`. `coverage` is the fraction of songs whose `genre_set` holds their genre; with too few training
    songs for it, the set has all genres. `workers` is the number of threads, None for one per core; the answer does not
    depend on it. Raises AudioError if the song cannot be decoded.
    """
    settings, genres = predictor.card.settings, predictor.card.genres

    def of_chunk(chunk: chunks.Chunk) -> tuple[float, float, npt.NDArray[np.float32], npt.NDArray[np.float64] | None]:
        """Return start, seconds, probabilities and distances."""
        audio = chunk.samples, settings.sample_rate
        batch = Batch({feature: values[np.newaxis] for feature, values in compute(*audio).items()}, [audio])
        probabilities = predictor.predict(batch)[0]
        distances = None if rejection is None else rejection.distances(batch)[0]
        return chunk.start_s, chunk.seconds, probabilities, distances

    with collected_warnings() as warnings:
        if middle is not None:
            start, duration = max(0.0, (ffmpeg.decoded_seconds(path) - middle) / 2), middle
        pieces = chunks.audible(chunks.iterate(path, **asdict(settings), start=start, duration=duration), path)
        results = list(map_threads(of_chunk, pieces, workers or available_cores()))
    starts_s, seconds, probabilities, distances = zip(*results, strict=True)
    outcome = vote(np.stack(probabilities))
    reason = UNSURE if outcome.confidence < min_confidence else None
    if rejection is not None:
        reason = rejection.reason(np.stack(distances), outcome.confidence) or reason
    calibration = predictor.card.calibration
    positions = calibration.genre_set(outcome.means, outcome.genre, coverage)
    if positions is None:
        positions = list(range(len(genres)))
        warnings.append(f"genre_set has all genres: {calibration.n_songs} songs are too few for {100 * coverage:g} %")
    return {
        "file": str(path),
        "duration": round(sum(seconds), 3),
        "model": predictor.card.model,
        "genre": UNKNOWN if reason else genres[outcome.genre],
        "reason": reason,
        "confidence": round(outcome.confidence, 6),
        "genre_set": [] if reason else [genres[position] for position in positions],
        "set_coverage": coverage,
        "set_songs": calibration.n_songs,
        "warnings": [*predictor.card.warnings, *(rejection.warnings if rejection else []), *warnings],
        "votes": {genre: n for genre, n in zip(genres, outcome.counts, strict=True) if n},
        "vector": outcome.vector,
        "chunks": [
            {
                "start": round(start_s, 3),
                "end": round(start_s + length_s, 3),
                "genre": genres[position],
                "probabilities": {genre: round(float(p), 6) for genre, p in zip(genres, row, strict=True)},
            }
            for start_s, length_s, row, position in zip(starts_s, seconds, probabilities, outcome.vector, strict=True)
        ],
    }
