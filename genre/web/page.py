"""The page at /ui: drop or record a song; see its genre, chunk by chunk, which song it is, and songs like it.

Gradio draws the upload, page_parts.py the rest. Nothing is fetched from other machines, by the page or for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import tempfile
import warnings
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.responses import RedirectResponse

from genre.errors import GenreError
from genre.web import page_parts
from genre.web.app import PAGE as PATH
from genre.web.contract import Asked, Limits
from genre.web.page_guard import Guard
from genre.web.page_listener import Listener
from genre.web.page_songs import Library, Song, serve_songs
from genre.web.uploads import Kept

if not importlib.util.find_spec("gradio"):  # it is imported later, when it has been told where to keep uploads
    raise ModuleNotFoundError("the page needs the package gradio", name="gradio")

TITLE = "What genre is this song?"
N_EXAMPLES = 5  # songs to try
AT_ONCE = 1  # songs that are worked on: the HTTP interface must not starve
WAITING = 16  # songs that wait for their turn
CHECK_S, KEEP_S = 60, 1800  # how often uploads are looked at, and how long they are kept
ICON = """<link rel="icon" href="data:image/svg+xml,%3Csvg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 16 16'%3E
%3Cpath d='M2 6v4M6 2v12M10 4v8M14 7v2' stroke='%234f46e5' stroke-width='2.4' stroke-linecap='round'/%3E%3C/svg%3E">"""


def mount(app: FastAPI, answerer: Asked, limits: Limits, root: Path = Path()) -> FastAPI:
    """Add the page to a service, at `PATH`.

    Uploads are kept in a folder of their own for half an hour, and removed with it when the service ends. As many bytes
    are kept as may be received at once; the oldest go first.

    Parameters
    ----------
    app : FastAPI
        Of `service.create_app`: it counts the uploads that are under way.
    answerer : Asked
        It need not be ready yet; until it is, the page says so.
    limits : Limits
        The section `serve` of params.yaml.
    root : Path
        The project's folder, with the songs to listen to.
    """
    uploads = tempfile.TemporaryDirectory(prefix="genre-page-", ignore_cleanup_errors=True)
    os.environ.update(GRADIO_TEMP_DIR=uploads.name, GRADIO_ANALYTICS_ENABLED="False")
    import gradio as gr

    library = Library(root)
    serve_songs(app, library, PATH + "/songs")

    @app.get(PATH, include_in_schema=False)
    def page() -> RedirectResponse:
        return RedirectResponse(PATH.rpartition("/")[2] + "/")

    with warnings.catch_warnings():  # pydantic's, about how Gradio declares its own routes
        warnings.simplefilter("ignore", UserWarning)
        gr.mount_gradio_app(
            app,
            _build(Listener(answerer, library, Path(uploads.name), limits.max_audio_s), root),
            path=PATH,
            theme=_theme(),
            head=f"{ICON}<style>{_asset('page.css')}</style>",  # Gradio drops the newer rules of a css argument
            js=_asset("page.js"),
            max_file_size=limits.max_upload_bytes,
            footer_links=[],
            run_history=False,
            show_error=False,
            ssr_mode=False,
            mcp_server=False,
            pwa=False,
            enable_monitoring=False,
        )
    # Gradio forgets what it did not receive to the end, or was told to remove by nobody: that goes a little later.
    kept = Kept(Path(uploads.name), limits.uploads * limits.max_upload_bytes, KEEP_S + 2 * CHECK_S)
    app.add_middleware(Guard, path=PATH, uploads=app.state.uploads, kept=kept, max_upload_bytes=limits.max_upload_bytes)
    _remove_in_time(app, uploads, kept)
    return app


def _build(listener: Listener, root: Path) -> Any:
    """Return the page as Gradio blocks."""
    import gradio as gr

    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(CHECK_S, KEEP_S)) as blocks:
        gr.HTML(page_parts.render("head"), elem_classes="gp-slot")
        song = gr.Audio(
            sources=["upload", "microphone"],
            type="filepath",
            label="Song",
            editable=False,
            buttons=[],
            waveform_options=gr.WaveformOptions(show_recording_waveform=False),
            elem_id="gp-song",
        )
        _take_only_uploads(song, listener)
        examples = listener.library.examples(N_EXAMPLES)
        with gr.Row(elem_classes="gp-examples", visible=bool(examples)):
            gr.HTML("<span>No song at hand?</span>", elem_classes="gp-slot")
            tries = [(example, gr.Button(example.song, size="sm")) for example in examples]
        names = ("status", "answer", "known", "near")
        parts = [gr.HTML(elem_id=f"gp-{name}", elem_classes="gp-slot", apply_default_css=False) for name in names]
        foot = gr.HTML(elem_classes="gp-slot")

        hidden: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
        work: dict[str, Any] = {**hidden, "concurrency_limit": AT_ONCE, "concurrency_id": "songs"}
        blocks.load(listener.empty, None, parts, queue=False, **hidden)
        clock = gr.Timer(1.0)

        def look(upload: Any) -> tuple[Any, Any]:
            """Tell when the models have come, once, unless there is a song already."""
            if upload or not listener.answerer.ready:
                return gr.skip(), gr.Timer(active=not upload)
            return listener.empty()[1], gr.Timer(active=False)

        clock.tick(look, song, [parts[1], clock], preprocess=False, queue=False, **hidden)
        blocks.load(
            lambda: page_parts.render("foot", **_model(root, listener.answerer.model)),
            None,
            foot,
            queue=False,
            **hidden,
        )
        begun = [gr.on([song.upload, song.stop_recording], listener.waiting, song, parts, preprocess=False, **hidden)]
        for example, button in tries:
            begun.append(button.click(_taker(example, listener.uploads), None, song, **hidden))
        running = [event.then(listener.listen, song, parts, preprocess=False, **work) for event in begun]
        song.clear(listener.empty, None, parts, queue=False, cancels=running, **hidden)
    blocks.queue(max_size=WAITING, api_open=False)
    return blocks


def _take_only_uploads(song: Any, listener: Listener) -> None:
    """Make a component take no file but an upload.

    Gradio in a mounted application would copy any path that a client names to where the client can fetch it, and
    download any address (checked with 6.31: `has_launched` is not set there).
    """
    from gradio import Error

    take = song.async_move_resource_to_block_cache

    async def take_upload(path: str | Path | None) -> str | None:
        if path is not None and not listener.is_upload(str(path)):
            raise Error("that is no upload", print_exception=False)
        return await take(path)  # type: ignore[no-any-return]

    song.async_move_resource_to_block_cache = take_upload


def _taker(song: Song, uploads: Path) -> Any:
    """Return what a button does: a copy of the song becomes an upload."""
    from gradio.processing_utils import save_file_to_cache

    return lambda: save_file_to_cache(song.audio, str(uploads)) if song.audio else None


def _theme() -> Any:
    """Return Gradio's theme with the fonts of the user's machine: others would be fetched."""
    import gradio as gr

    return gr.themes.Default(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        font=("system-ui", "-apple-system", "Segoe UI", "Roboto", "DejaVu Sans", "sans-serif"),
        font_mono=("ui-monospace", "Consolas", "DejaVu Sans Mono", "monospace"),
    ).set(body_text_color_subdued="*neutral_500", body_text_color_subdued_dark="*neutral_400")


def _model(root: Path, name: str | None) -> dict[str, Any]:
    """Return what the footer tells of the model that answers, from its card; nothing where there is none."""
    from genre.models import cards, ensemble

    told: dict[str, Any] = {"model": name, "score": "", "genres": 0}
    with contextlib.suppress(GenreError):
        told["model"] = name = name or ensemble.default_model(root)
        if ensemble.card_path(root).is_file() and name in (chosen := ensemble.read(root)).scores:
            scores = chosen.scores[name]
            told["score"] = f"right about {scores['song_accuracy']:.0%} of {scores['n_songs']:.0f} validation songs"
            told["genres"] = len(chosen.genres)
        elif name in cards.available(root):
            found = cards.read(name, root)
            told["score"] = f"right about {found.scores['validation_accuracy']:.0%} of its validation songs"
            told["genres"] = len(found.genres)
    return told


def _remove_in_time(app: FastAPI, uploads: tempfile.TemporaryDirectory[str], kept: Kept) -> None:
    """Remove the uploads when they are old, and all of them when the service ends."""
    before = app.router.lifespan_context

    async def sweep() -> None:
        while True:
            await asyncio.sleep(CHECK_S)
            await asyncio.to_thread(kept.make_room)

    @contextlib.asynccontextmanager
    async def lifespan(of: FastAPI) -> AsyncIterator[Any]:
        with uploads:
            sweeping = asyncio.create_task(sweep())
            async with before(of) as state:
                yield state
            sweeping.cancel()

    app.router.lifespan_context = lifespan


def _asset(name: str) -> str:
    return (page_parts.FOLDER / name).read_text(encoding="utf-8")
