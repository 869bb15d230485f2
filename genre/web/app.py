"""The HTTP service: upload a song, get the answer of query, identify or similar as JSON.

The first version of this service answered `POST /`; it still does, in the same words.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import math
import re
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import Depends, FastAPI, HTTPException, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse
from fastapi.security import APIKeyHeader
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from genre.errors import AudioError, GenreError
from genre.web import documentation
from genre.web.contract import Answering, Limits
from genre.web.limits import VANISHED
from genre.web.metrics import CONTENT_TYPE, Metrics
from genre.web.uploads import Uploads
from genre.web.workers import AbandonedError, QueueFullError, TooSlowError, Workers

log = logging.getLogger(__name__)

FIELD = "audio"  # of the form
PAGE = "/ui"  # where the page is
MAX_FIELD_BYTES = 1 << 16  # of a field that is not the file
MAX_TOP = 100  # songs that similar names
NAME_LENGTH = 200  # characters of an upload's name that are kept
LOADING_RETRY_S = 2


class Verdict(BaseModel):
    """The answer of `POST /`."""

    duration: float  # seconds it took
    message: str  # the genre
    status: Literal["success"]


class Chunk(BaseModel):
    """A piece of a song, with the model's answer about it."""

    start: float
    end: float
    genre: str
    probabilities: dict[str, float]


class Queried(BaseModel):
    """The genre of a song."""

    file: str
    duration: float
    model: str
    genre: str
    confidence: float
    votes: dict[str, int]
    vector: list[int]
    chunks: list[Chunk]


class Identified(BaseModel):
    """The indexed song that a snippet is from; null when there is none."""

    file: str
    song: str | None
    offset: float | None
    score: float
    genre: str | None


class Neighbour(BaseModel):
    """An indexed song, and how similar it is."""

    song: str
    genre: str
    score: float


class Alike(BaseModel):
    """The songs most like a song, and the genre they vote for."""

    file: str
    genre: str
    weighted_genre: str
    votes: dict[str, int]
    songs: list[Neighbour]


class State(BaseModel):
    """How the service is."""

    status: Literal["alive", "ready"]


class Failure(BaseModel):
    """Every answer that is not the one asked for."""

    status: Literal["error"]
    message: str


Start = Annotated[float, Query(ge=0.0, le=1e6, allow_inf_nan=False, description="begin at this second of the song")]
Duration = Annotated[
    float | None, Query(gt=0.0, le=1e6, allow_inf_nan=False, description="hear this many seconds (default: to the end)")
]
Top = Annotated[int, Query(ge=1, le=MAX_TOP, description="songs to name")]

_REASONS = {
    400: "The file is empty or cannot be decoded, or the form is not well-formed",
    401: "A key is needed",
    403: "The request comes from a page of another site",
    408: "The upload took too long",
    413: "The upload is too large",
    415: "The request is not a multipart/form-data form",
    421: "The service does not answer under this name",
    422: "The form has no file `audio`, or a parameter has a bad value or is unknown",
    429: "Too many songs wait, or too many uploads are under way; see Retry-After",
    503: "The models are not loaded yet, or there is no index",
    504: "The answer took too long",
}
_FORM = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": [FIELD],
                "properties": {FIELD: {"type": "string", "format": "binary", "description": "a song of any format"}},
            }
        }
    },
}


def create_app(
    answerer: Answering,
    limits: Limits,
    metrics: Metrics,
    *,
    key_needed: bool = False,
    loaded: Callable[[FastAPI], None] | None = None,
    failed: Callable[[BaseException], None] | None = None,
) -> FastAPI:
    """Return the application, which loads the models when it starts; `gate.Gate` belongs in front of it.

    Parameters
    ----------
    answerer : Answerer
    limits : Limits
        The section `serve` of params.yaml.
    metrics : Metrics
    key_needed : bool
        Whether the gate asks for a key: the documentation then says so.
    loaded : callable or None
        Called with the application when the models are loaded.
    failed : callable or None
        Called with the exception when the models cannot be loaded.
    """
    uploads = Uploads(limits.uploads)
    service = _Service(answerer, limits, metrics, uploads)

    @contextlib.asynccontextmanager
    async def lifespan(of: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(service.load(loaded and functools.partial(loaded, of), failed))
        yield
        loading.cancel()
        service.workers.close()

    app = FastAPI(
        title="Genre",
        summary="What genre is it, which song is it, what is like it: upload a song.",
        version="1",
        lifespan=lifespan,
        docs_url=None,  # FastAPI's pages load their scripts from elsewhere
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.uploads = uploads
    key = [Depends(APIKeyHeader(name="X-API-Key", auto_error=False))] if key_needed else []
    asks: dict[str, Any] = {
        "responses": {status: {"model": Failure, "description": reason} for status, reason in _REASONS.items()},
        "openapi_extra": {"requestBody": _FORM},
        "response_description": "The answer",
        "dependencies": key,
    }
    strict = {**asks, "dependencies": [*key, Depends(_check_parameters)]}  # the first version took any parameter

    @app.post("/", summary="The genre of a song, in a word", **asks)
    async def verdict(request: Request) -> Verdict:
        began = time.perf_counter()
        answer = await service.answer(request, answerer.query, 0.0, None)
        metrics.heard(answer["duration"])
        return Verdict(duration=round(time.perf_counter() - began, 3), message=answer["genre"], status="success")

    @app.post("/v1/query", summary="The genre of a song, and of each part of it", response_model=Queried, **strict)
    async def query(request: Request, start: Start = 0.0, duration: Duration = None) -> dict[str, Any]:
        answer = await service.answer(request, answerer.query, start, duration)
        metrics.heard(answer["duration"])
        return answer

    @app.post("/v1/identify", summary="Which indexed song a snippet is from", response_model=Identified, **strict)
    async def identify(request: Request, start: Start = 0.0, duration: Duration = None) -> dict[str, Any]:
        return await service.answer(request, answerer.identify, start, duration)

    @app.post("/v1/similar", summary="The indexed songs most like a song", response_model=Alike, **strict)
    async def similar(request: Request, top: Top = 10, start: Start = 0.0, duration: Duration = None) -> dict[str, Any]:
        return await service.answer(request, functools.partial(answerer.similar, top=top), start, duration)

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", summary="Whether the process lives", response_description="It does")
    async def healthz() -> State:
        return State(status="alive")

    @app.head("/readyz", include_in_schema=False)
    @app.get(
        "/readyz",
        summary="Whether the models are loaded",
        response_description="They are",
        responses={503: asks["responses"][503]},
    )
    async def readyz() -> State:
        service.check_ready()
        return State(status="ready")

    @app.get("/metrics", include_in_schema=False)
    async def metrics_text() -> Response:
        return Response(metrics.text(), media_type=CONTENT_TYPE)

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> HTMLResponse:
        base = str(request.base_url).rstrip("/")
        return HTMLResponse(documentation.page(app.openapi(), base), headers=documentation.HEADERS)

    @app.get("/", include_in_schema=False)
    async def home() -> RedirectResponse:
        return RedirectResponse("ui" if has_page(app) else "docs")

    _answer_failures(app)
    metrics.paths |= {"/", "/openapi.json", "/docs", "/metrics", "/healthz", "/readyz"}
    metrics.paths |= {"/v1/query", "/v1/identify", "/v1/similar"}
    metrics.prefixes.add(PAGE)
    return app


def has_page(app: FastAPI) -> bool:
    """Return whether the page was added to the application."""
    return any(getattr(route, "path", "") == PAGE for route in app.routes)


class _Service:
    def __init__(self, answerer: Answering, limits: Limits, metrics: Metrics, uploads: Uploads) -> None:
        self.workers = Workers(limits.workers, limits.queue)
        self._answerer, self._limits = answerer, limits
        self._uploads = uploads
        metrics.watch(
            waiting=lambda: self.workers.waiting,
            running=lambda: self.workers.running,
            uploading=lambda: uploads.count,
            ready=lambda: float(answerer.ready),
        )

    async def load(self, loaded: Callable[[], None] | None, failed: Callable[[BaseException], None] | None) -> None:
        try:
            await asyncio.to_thread(self._answerer.load)
        except Exception as error:
            if failed is None:
                raise
            failed(error)
        else:
            if loaded is not None:
                loaded()

    def check_ready(self) -> None:
        if not self._answerer.ready:
            raise HTTPException(
                503, "the models are being loaded: ask again in a moment", {"Retry-After": str(LOADING_RETRY_S)}
            )

    async def answer(
        self, request: Request, ask: Callable[..., dict[str, Any]], start: float, duration: float | None
    ) -> dict[str, Any]:
        """Return an answer about the song that a request brings."""
        self.check_ready()
        async with self._upload(request) as (path, name):
            heard_s = min(duration or math.inf, self._limits.max_audio_s)
            try:
                answer = await self.workers.run(
                    functools.partial(ask, path, start=start, duration=heard_s),
                    timeout_s=self._limits.timeout_s,
                    abandoned=functools.partial(_disconnected, request),
                )
            except AudioError as error:
                raise HTTPException(400, _without_path(str(error), path, name)) from None
            except GenreError as error:
                log.warning("%s", error)
                raise HTTPException(503, _without_path(str(error), path, name)) from None
            except TooSlowError:
                raise HTTPException(504, f"the answer took longer than {self._limits.timeout_s:g} s") from None
            except QueueFullError:
                raise self._busy() from None
        return {**answer, "file": name}

    @contextlib.asynccontextmanager
    async def _upload(self, request: Request) -> AsyncIterator[tuple[Path, str]]:
        """Yield a temporary file with what was uploaded, and the name that the client gave it."""
        _check_type(request)
        if self.workers.full or self._uploads.full:
            raise self._busy()
        with tempfile.TemporaryDirectory(prefix="genre-", ignore_cleanup_errors=True) as folder:
            with self._uploads.one():
                path, name = await self._receive(request, Path(folder))
            yield path, name

    async def _receive(self, request: Request, folder: Path) -> tuple[Path, str]:
        form = request.form(max_files=1, max_fields=self._limits.max_parts, max_part_size=MAX_FIELD_BYTES)
        try:
            async with form as fields:
                upload = fields.get(FIELD)
                if not isinstance(upload, UploadFile) or not (upload.filename or upload.size):
                    raise HTTPException(422, f"the form field {FIELD} is missing: send the song as a file in it")
                if not upload.size:
                    raise HTTPException(400, f"the file in the form field {FIELD} is empty")
                name = _plain_name(upload.filename or "")
                path = folder / f"upload{_suffix(name)}"
                await asyncio.to_thread(_copy, upload, path)
        except (UnicodeError, LookupError):  # a charset that is none
            raise HTTPException(400, "the form is not well-formed") from None
        return path, name

    def _busy(self) -> HTTPException:
        message = "as many songs wait as may: ask again after the seconds that Retry-After names"
        return HTTPException(429, message, {"Retry-After": str(self.workers.retry_after_s)})


def _answer_failures(app: FastAPI) -> None:
    """Let every error answer in the one form, without what only the log should hold."""

    def failure(status: int, message: str, headers: Any = None) -> JSONResponse:
        return JSONResponse({"status": "error", "message": message}, status, headers)

    async def of_http(_: Request, error: Exception) -> Response:
        assert isinstance(error, StarletteHTTPException)
        sentences = {404: "there is nothing here: /docs tells what there is", 405: "this path takes another method"}
        sentence = sentences.get(error.status_code, str(error.detail))
        if not isinstance(error, HTTPException):  # Starlette's own phrases; ours may begin with the name of a file
            sentence = sentence[:1].lower() + sentence[1:]
        return failure(error.status_code, sentence, error.headers)

    async def of_validation(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        faults = (f"{fault['loc'][-1]}: {fault['msg'].lower()}" for fault in error.errors())
        return failure(422, "; ".join(faults))

    async def of_defect(*_: object) -> Response:
        return failure(500, "the service failed: its log says why")

    async def of_absence(*_: object) -> Response:
        return Response(status_code=VANISHED)

    app.add_exception_handler(StarletteHTTPException, of_http)
    app.add_exception_handler(RequestValidationError, of_validation)
    app.add_exception_handler(ClientDisconnect, of_absence)
    app.add_exception_handler(AbandonedError, of_absence)
    app.add_exception_handler(Exception, of_defect)


def _check_type(request: Request) -> None:
    """Check that a request brings a form; one without a body brings a form without fields."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if not media_type and not has_body:
        raise HTTPException(422, f"the form field {FIELD} is missing: send the song as a file in it")
    if media_type != "multipart/form-data":
        raise HTTPException(415, f"send the song as the file {FIELD} of a multipart/form-data form")


def _check_parameters(request: Request) -> None:
    """Check that a request names no parameter that the path does not have, as one that is misspelt."""
    known = [parameter.alias for parameter in request.scope["route"].dependant.query_params]
    for name in request.query_params:
        if name not in known:
            raise HTTPException(422, f"{name[:NAME_LENGTH]}: there is no such parameter, but {', '.join(known)}")


async def _disconnected(request: Request) -> None:
    """Wait until the client is gone."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _copy(upload: UploadFile, path: Path) -> None:
    with path.open("xb") as stream:
        shutil.copyfileobj(upload.file, stream, 1 << 20)


def _plain_name(name: str) -> str:
    """Return the last part of a file's name, without characters that cannot be seen."""
    last = re.split(r"[/\\]", name)[-1]
    return "".join(char for char in last if char.isprintable())[-NAME_LENGTH:].strip() or "upload"


def _suffix(name: str) -> str:
    """Return the extension of a name if it is a plain one: ffmpeg takes it for a hint."""
    found = re.search(r"\.[A-Za-z0-9]{1,8}$", name)
    return found[0] if found else ""


def _without_path(message: str, path: Path, name: str) -> str:
    return message.replace(str(path), name).replace(str(path.parent), "")
