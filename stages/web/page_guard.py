"""What a browser needs of the page goes through; everything else that Gradio offers over HTTP does not.

Gradio would fetch addresses that a client names (`/file=http...`, `/proxy=`), run functions by name and record
histories. None of it is needed here, and nothing may leave the machine.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

OPEN = re.compile(
    r"/?|/config|/theme\.css|/favicon\.ico|/(assets|static|svelte|songs)/.*"
    r"|/gradio_api/(info|startup-events|app_id|upload|upload_progress|run/predict|reset|cancel|queue/join|queue/data|heartbeat/\w+)/?"
    r"|/gradio_api/file=/(?!/).*",
    re.DOTALL,
)
# Scripts and styles of Gradio are inline and use eval; the rest holds everything back that is not from this server.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline';"
    " img-src 'self' data: blob:; media-src 'self' data: blob:; font-src 'self' data:; connect-src 'self' blob: data:;"
    " worker-src 'self' blob:; object-src 'none'; form-action 'self'; frame-ancestors 'self'"
)


class Guard:
    """ASGI middleware for everything below one path."""

    def __init__(self, app: App, path: str) -> None:
        """Guard what lies below `path`, with what answers."""
        self._app, self._path = app, path

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer 404 for what is not open, and add the content security policy to the rest."""
        inside = scope.get("path", "")
        if scope["type"] != "http" or not (inside + "/").startswith(self._path + "/"):
            await self._app(scope, receive, send)
            return
        if not OPEN.fullmatch(inside.removeprefix(self._path)):
            await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
            await send({"type": "http.response.body", "body": b"there is nothing here\n"})
            return

        async def with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                ours = [(b"content-security-policy", POLICY.encode()), (b"referrer-policy", b"no-referrer")]
                message["headers"] = [*message.get("headers", []), *ours]
            await send(message)

        await self._app(scope, receive, with_policy)
