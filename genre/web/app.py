"""The HTTP application: query, identify and similar for an uploaded song as JSON; the page at /ui."""

from __future__ import annotations

import asyncio
import errno
import functools
import logging
import math
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, FastAPI, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, RedirectResponse
from fastapi.security import APIKeyHeader
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from pydantic import BaseModel, ConfigDict, Field
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from typing_extensions import TypedDict

from genre import archives
from genre.errors import AudioError, GenreError, TimeLimitError
from genre.models.query import Answer
from genre.search.identify import Match
from genre.search.similar import Similar
from genre.web.middleware import DISCONNECTED, LOOPBACK_NAMES, check_requests, count_requests, failure, limit_transfers
from genre.web.service import MEDIA_TYPES, Info, Service, playable

log = logging.getLogger(__name__)

STATIC = Path(__file__).parent / "static"
FIELD = "audio"  # the form field of the file
MAX_FIELD_BYTES = 1 << 16  # of a form field that is not a file
MAX_NAME_BYTES = 200  # file systems allow 255


class Verdict(TypedDict):
    """The answer of `POST /`."""

    duration: float  # s, to answer
    message: str  # the genre
    status: Literal["success"]


class Failure(TypedDict):
    """Body of every error response."""

    status: Literal["error"]
    message: str


class Excerpt(BaseModel):
    """Query parameters: the excerpt of the song to analyse."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)
    start: float = Field(default=0.0, ge=0.0, le=1e6, description="start in seconds")
    duration: float | None = Field(default=None, gt=0.0, le=1e6, description="length in seconds; default: to the end")


class TopExcerpt(Excerpt):
    """Query parameters of similar."""

    top: int = Field(default=10, ge=1, le=100, description="number of songs")


async def _answer(service: Service, request: Request, command: str, excerpt: Excerpt) -> Any:
    """Return the answer of a command about the uploaded song; HTTPException if it fails."""
    service.check_ready()
    service.workers.check()  # before the upload is read
    options = excerpt.model_dump() | {"duration": min(excerpt.duration or math.inf, service.params.max_audio_s)}
    try:
        with tempfile.TemporaryDirectory(prefix="genre-", ignore_cleanup_errors=True) as folder:
            song = await _receive(request, Path(folder), max_fields=service.params.max_parts)
            answer = functools.partial(service.answer, command, song, **options)
            result = await service.workers.run(answer, functools.partial(_disconnected, request))
            return {**result, "file": song.name}
    except TimeLimitError:
        raise HTTPException(504, f"the answer took longer than {service.params.timeout_s:g} s") from None
    except AudioError as error:
        raise HTTPException(400, str(error).replace(f"{folder}/", "")) from None
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        log.warning("%s: the disk for temporary files is full", tempfile.gettempdir())
        raise HTTPException(507, "the disk for temporary files is full") from None
    except asyncio.CancelledError:  # by uvicorn, after timeout_graceful_shutdown
        raise HTTPException(503, "the service is shutting down") from None


async def _receive(request: Request, folder: Path, *, max_fields: int) -> Path:
    """Store the uploaded song in a folder, under its name, and return it; HTTPException 400, 415 or 422 without one."""
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    has_body = request.headers.get("content-length", "0") != "0" or "transfer-encoding" in request.headers
    if media_type != "multipart/form-data" and (media_type or has_body):
        raise HTTPException(415, f"send the song as the file {FIELD} of a multipart/form-data form")
    try:
        async with request.form(max_files=1, max_fields=max_fields, max_part_size=MAX_FIELD_BYTES) as fields:
            file = fields.get(FIELD)
            if not isinstance(file, UploadFile) or not (file.filename or file.size):
                raise HTTPException(422, f"the form field {FIELD} is missing: send the song as a file in it")
            if not file.size:
                raise HTTPException(400, f"the file in the form field {FIELD} is empty")
            song = folder / _plain_name(file.filename or "")
            with song.open("xb") as stream:
                await asyncio.to_thread(shutil.copyfileobj, file.file, stream)
            return song
    except (UnicodeError, LookupError):  # unknown charset
        raise HTTPException(400, "the form is malformed") from None


def _plain_name(name: str) -> str:
    """Return the last part of a file name without unprintable characters; it names no other folder."""
    last = "".join(char for char in Path(name.replace("\\", "/")).name if char.isprintable())
    return last.strip().lstrip(".").encode()[-MAX_NAME_BYTES:].decode(errors="ignore") or "upload"


async def _service(request: Request) -> Any:
    return request.app.state.service


async def _disconnected(request: Request) -> None:
    """Wait until the client has disconnected."""
    while (await request.receive())["type"] != "http.disconnect":
        pass


Injected = Annotated[Service, Depends(_service)]
_FILE = {"type": "string", "format": "binary", "description": "an audio file of any format"}
_SCHEMA = {"type": "object", "required": [FIELD], "properties": {FIELD: _FILE}}
_FORM = {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": _SCHEMA}}}}
_ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {"model": Failure, "description": "The request is refused; `message` has the reason"},
    "5XX": {"model": Failure, "description": "The service cannot answer now; `message` has the reason"},
}

router = APIRouter(responses=_ERRORS)
post = functools.partial(router.post, openapi_extra=_FORM)


@post("/", summary="Genre of a song, one word")
async def verdict(request: Request, service: Injected) -> Verdict:
    """Return the genre, in the format of the first version of this service."""
    start = time.perf_counter()
    answer = await query(request, service, Excerpt())
    return {"duration": round(time.perf_counter() - start, 3), "message": answer["genre"], "status": "success"}


@post("/v1/query", summary="Genre of a song and of each chunk")
async def query(request: Request, service: Injected, excerpt: Annotated[Excerpt, Query()]) -> Answer:
    """Return the answer of query (docs/query.md)."""
    answer: Answer = await _answer(service, request, "query", excerpt)
    service.audio_s.inc(answer["duration"])
    return answer


@post("/v1/identify", summary="Indexed song that a snippet is from", response_model=Match)
async def identify(request: Request, service: Injected, excerpt: Annotated[Excerpt, Query()]) -> Any:
    """Return the answer of identify (docs/search.md)."""
    return await _answer(service, request, "identify", excerpt)


@post("/v1/similar", summary="Indexed songs most similar to a song", response_model=Similar)
async def similar(request: Request, service: Injected, excerpt: Annotated[TopExcerpt, Query()]) -> Any:
    """Return the answer of similar (docs/search.md)."""
    return await _answer(service, request, "similar", excerpt)


@router.get("/v1/info", summary="Model, limits and example songs")
def info(service: Injected) -> Info:
    """Return the description of the model, the limits of uploads and example songs."""
    service.check_ready()
    return service.info()


@router.get("/v1/audio", include_in_schema=False)
def audio(service: Injected, genre: str, song: str) -> Response:
    """Return the file of an indexed song, with support of byte ranges, or its first chunk in an archive."""
    row = service.songs.get((genre, song))
    if row is None or (path := playable(row, service.paths)) is None:
        raise HTTPException(404, "there is no such song in the index")
    media_type, headers = MEDIA_TYPES[path.suffix.lower()], {"cache-control": "private, max-age=3600"}
    if path.is_file():
        return FileResponse(path, media_type=media_type, headers=headers)
    return Response(archives.read_bytes(path), media_type=media_type, headers=headers)


@router.head("/healthz", include_in_schema=False)
@router.get("/healthz", summary="Whether the process is alive")
async def healthz() -> dict[str, str]:
    """Return 200 while the process runs."""
    return {"status": "alive"}


@router.head("/readyz", include_in_schema=False)
@router.get("/readyz", summary="Whether the models are loaded")
async def readyz(service: Injected) -> dict[str, str]:
    """Return 200 if the models are loaded."""
    service.check_ready()
    return {"status": "ready"}


@router.get("/metrics", include_in_schema=False)
async def metrics_text(service: Injected) -> Response:
    """Return the metrics for Prometheus."""
    return Response(generate_latest(service.metrics), media_type=CONTENT_TYPE_LATEST)


@router.get("/docs", include_in_schema=False)
@router.get("/favicon.ico", include_in_schema=False)
async def file(request: Request) -> FileResponse:
    """Return Swagger UI, whose files are served here, or the icon, for pages that name none."""
    return FileResponse(STATIC / ("docs.html" if request.url.path.endswith("/docs") else "icon.svg"))


@router.get("/", include_in_schema=False)
@router.get("/ui", include_in_schema=False)
async def page() -> RedirectResponse:
    """Redirect to the page; relative, so that it works under a prefix of a proxy."""
    return RedirectResponse("ui/")


def create_app(service: Service, *, host: str) -> FastAPI:
    """Return the application, which is reached at the address `host`; before `service` is loaded it answers with 503.

    Requests need a Host of the params or of loopback, unless both are missing, and the key, if one is set.
    """
    params = service.params
    local = LOOPBACK_NAMES if params.hosts or {host, f"[{host}]"} & {*LOOPBACK_NAMES} else ()
    key = os.environ.get(params.api_key)
    app = FastAPI(
        title="Genre",
        summary="Genre of a song, recognition of an indexed song, similar songs.",
        version="1",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(APIKeyHeader(name="X-API-Key", auto_error=False))] if key else [],
        servers=[{"url": "."}],  # relative to openapi.json: works under a prefix of a proxy
        exception_handlers=HANDLERS,
    )
    app.state.service = service
    app.include_router(router)
    app.mount("/ui", StaticFiles(directory=STATIC, html=True))
    app.mount("/docs-assets", StaticFiles(packages=[("fastapi_offline", "static")]))
    labels = {getattr(route, "path", "") for route in router.routes} | {"/openapi.json"}
    app.add_middleware(check_requests, hosts=[*params.hosts, *local], key=key)
    app.add_middleware(limit_transfers, params=params, uploads=service.uploads)
    app.add_middleware(count_requests, registry=service.metrics, paths=labels, prefix="/ui")  # outermost
    return app


# Handlers of exceptions; asynchronous, since a thread cannot be awaited during the shutdown


async def _http_error(_: Request, error: Any) -> Response:
    messages = {"Not Found": "unknown path; see /docs", "Method Not Allowed": "method not allowed on this path"}
    return failure(error.status_code, messages.get(error.detail, error.detail), error.headers)


async def _invalid_parameter(_: Request, error: Any) -> Response:
    messages = []
    for fault in error.errors():
        message = "unknown parameter" if fault["type"] == "extra_forbidden" else fault["msg"].lower()
        messages.append(f"{str(fault['loc'][-1])[:MAX_NAME_BYTES]}: {message}")
    return failure(422, "; ".join(messages))


async def _unavailable(_: Request, error: Any) -> Response:
    log.warning("%s", error)
    return failure(503, str(error))


async def _failed(status: int, message: str, *_: object) -> Response:
    return failure(status, message)


HANDLERS: dict[int | type[Exception], Callable[..., Any]] = {
    HTTPException: _http_error,
    RequestValidationError: _invalid_parameter,
    GenreError: _unavailable,
    ClientDisconnect: functools.partial(_failed, DISCONNECTED, "the client disconnected"),
    Exception: functools.partial(_failed, 500, "internal error; see the log of the service"),
}
