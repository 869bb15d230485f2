"""The HTTP application of the review: questions, ten seconds of a song, answers; the page."""

from __future__ import annotations

import io
import wave
from typing import Annotated, Any

from fastapi import Body, FastAPI, HTTPException, Response
from fastapi.staticfiles import StaticFiles

from genre.audio import corrections, ffmpeg
from genre.audit.review import Review
from genre.errors import GenreError
from genre.params import ServeParams
from genre.web.app import HANDLERS, STATIC
from genre.web.middleware import LOOPBACK_NAMES, check_requests, limit_transfers

SAMPLE_RATE = 44_100  # Hz
EXCERPT_S = 10.0


def create_app(review: Review, params: ServeParams) -> FastAPI:
    """Return the application, for this machine only."""
    handlers = HANDLERS | {OSError: HANDLERS[GenreError]}  # the corrections cannot be written
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, exception_handlers=handlers)
    app.add_middleware(check_requests, hosts=LOOPBACK_NAMES, key=None)
    app.add_middleware(limit_transfers, params=params, uploads=set())

    @app.get("/v1/review")
    async def question() -> dict[str, Any]:
        return review.state()

    @app.post("/v1/review")
    async def answer(song: Annotated[str, Body()], genre: Annotated[str | None, Body()]) -> dict[str, Any]:
        if song not in review.songs or genre not in (*review.genres, corrections.DROP, None):
            raise HTTPException(422, f"song and genre must be of the data set, or the genre {corrections.DROP} or null")
        review.answer(song, genre)  # None: skipped
        return review.state()

    @app.delete("/v1/review")
    async def undo() -> dict[str, Any]:
        if not review.undo():
            raise HTTPException(409, "there is no answer to undo")
        return review.state()

    @app.get("/v1/review/audio")
    def audio(song: str) -> Response:
        if (row := review.songs.get(song)) is None:  # the last chunk
            raise HTTPException(404, "there is no such song in the data set")
        path, start_s = review.root / row.source, max(0.0, (row.start_s + row.seconds - EXCERPT_S) / 2)
        with wave.open(stream := io.BytesIO(), "wb") as writer:
            writer.setparams((1, 2, SAMPLE_RATE, 0, "NONE", ""))
            for block in ffmpeg.stream_pcm(path, sample_rate=SAMPLE_RATE, start=start_s, duration=EXCERPT_S):
                writer.writeframes(block.astype("<i2").tobytes())
        return Response(stream.getvalue(), media_type="audio/wav")

    app.mount("/ui", StaticFiles(directory=STATIC))  # style and icon
    app.mount("/", StaticFiles(directory=STATIC.parent / "review_page", html=True))
    return app
