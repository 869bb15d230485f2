"""What a browser needs of the page goes through; everything else that Gradio offers over HTTP does not.

Gradio would fetch addresses that a client names (`/file=http...`, `/proxy=`), run functions by name and record
histories. None of it is needed here, and nothing may leave the machine. What goes through is bounded: uploads in number
and in bytes, streams of events in number and in time.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from genre.web.limits import failure
from genre.web.uploads import Kept, Uploads

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

log = logging.getLogger(__name__)

OPEN = re.compile(
    r"/?|/config|/theme\.css|/favicon\.ico|/(assets|static|svelte|songs)/.*"
    r"|/gradio_api/(info|startup-events|app_id|upload|run/predict|reset|cancel|queue/join|queue/data)/?"
    r"|/gradio_api/file=/(?!/).*",
    re.DOTALL,
)
UPLOAD, STREAM = "/gradio_api/upload", "/gradio_api/queue/data"
MAX_STREAMS = 64  # open at the same time: connections must be left for others
STREAM_S = 1800.0  # that one may last, which is as long as an upload is kept
RETRY_S = 5  # after which a client that was sent away should ask again
# Gradio makes the addresses on the page of these. A proxy hands the Host through, and uvicorn takes the scheme from
# X-Forwarded-Proto of those that it trusts before this is reached.
NOT_BELIEVED = frozenset({b"x-forwarded-host", b"x-forwarded-proto", b"forwarded", b"x-gradio-server"})
# Scripts and styles of Gradio are inline and use eval; the rest holds everything back that is not from this server.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:;"
    " worker-src 'self' blob:; object-src 'none'; form-action 'self'; frame-ancestors 'self'"
)


class Guard:
    """ASGI middleware for everything below one path."""

    def __init__(self, app: App, path: str, *, uploads: Uploads, kept: Kept, max_upload_bytes: int) -> None:
        """Guard what lies below `path`, with what answers.

        Parameters
        ----------
        app : ASGI application
        path : str
        uploads : Uploads
            Those of the page are counted there.
        kept : Kept
            Where the page keeps them.
        max_upload_bytes : int
            What an upload may be that does not declare its length.
        """
        self._app, self._path = app, path
        self._uploads, self._kept, self._max_bytes = uploads, kept, max_upload_bytes
        self._n_streams = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404 for what is not open, and add the content security policy to the rest."""
        inside = scope.get("path", "")
        if scope["type"] != "http" or not (inside + "/").startswith(self._path + "/"):
            await self._app(scope, receive, send)
            return
        answer = _Answer(send)
        name = inside.removeprefix(self._path)
        if not OPEN.fullmatch(name):
            await answer.fail(404, "there is nothing here")
            return
        believed = [header for header in scope["headers"] if header[0] not in NOT_BELIEVED]
        scope = {**scope, "headers": believed}
        if name.rstrip("/") == UPLOAD:
            await self._upload(scope, receive, answer)
        elif name.rstrip("/") == STREAM:
            await self._stream(scope, receive, answer)
        else:
            await self._app(scope, receive, answer)

    async def _upload(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """Let an upload through if there is a place for it, after room was made for it."""
        if self._uploads.full:
            await answer.fail(429, "as many uploads are under way as may: try again in a moment")
            return
        declared = next((int(value) for name, value in scope["headers"] if name == b"content-length"), self._max_bytes)
        with self._uploads.one():
            await asyncio.to_thread(self._kept.make_room, declared)
            answer.hides_faults = True
            try:
                # Without its query Gradio does not record the progress, which nobody can ask for.
                await self._app({**scope, "query_string": b""}, receive, answer)
            except Exception as error:
                log.warning("an upload to the page failed: %s", _named(error))
                if isinstance(error, OSError):
                    await answer.fail(507, "the upload cannot be kept: the service's log says why")
                else:
                    await answer.fail(400, "the form is not well-formed")

    async def _stream(self, scope: Scope, receive: Receive, answer: _Answer) -> None:
        """Let a stream of events through, for a while."""
        if self._n_streams >= MAX_STREAMS:
            await answer.fail(429, "as many listen for their songs as may: try again in a moment")
            return
        self._n_streams += 1
        try:
            async with asyncio.timeout(STREAM_S):
                await self._app(scope, receive, answer)
        except TimeoutError:
            await answer.end()
        except Exception as error:  # Gradio has told the page before it raises, as that a session is not known
            log.info("a stream of the page ended: %s", _named(error))
            await answer.end()
        finally:
            self._n_streams -= 1


class _Answer:
    """Where an answer goes: with the policy, and if asked without what Gradio says of its own faults."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self.hides_faults = False  # of status 500: what follows tells more
        self._begun = self._ended = self._hidden = False

    async def __call__(self, message: Message) -> None:
        """Send a message of the application."""
        if message["type"] == "http.response.start":
            self._hidden = self.hides_faults and message["status"] == 500
            if self._hidden:
                return
            ours = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
            message = {**message, "headers": [*message.get("headers", []), *ours]}
            self._begun = True
        elif self._hidden or self._ended:
            return
        else:
            self._ended = not message.get("more_body", False)
        await self._send(message)

    async def fail(self, status: int, sentence: str) -> None:
        """Answer with a sentence, if nothing was answered yet."""
        if self._begun:
            await self.end()
            return
        headers = [(b"content-type", b"application/json")]
        if status == 429:
            headers.append((b"retry-after", str(RETRY_S).encode()))
        await self({"type": "http.response.start", "status": status, "headers": headers})
        await self({"type": "http.response.body", "body": failure(sentence)})

    async def end(self) -> None:
        """End an answer that was begun."""
        if not self._begun:
            await self.fail(404, "there is nothing here")
        elif not self._ended:
            await self({"type": "http.response.body", "body": b""})


def _named(error: BaseException) -> str:
    """Return kind and words of an error, in a line; of a group, those of its first."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}".replace("\n", " ")
