"""The HTTP service: upload a song, get its genre, its name or songs like it as JSON; a page for people at /ui.

python -m stages.serve
python -m stages.serve --host 0.0.0.0 --port 8000
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from typing import Any

from genre.cli import run_command
from genre.parallel import one_thread_each


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until the process is told to end."""
    arguments = _parser().parse_args(argv)
    from genre import params

    settings = params.load().serve
    # MusiCNN is converted with TensorFlow on its first use. A service is not the place for that: it says what to do.
    sys.modules.setdefault("tensorflow", None)  # type: ignore[arg-type]
    for name in ("uvicorn.access", "genre.web"):  # uvicorn's "startup complete" comes before the models are loaded
        logging.getLogger(name).setLevel(logging.INFO)
    from genre.web import server

    server.run(
        settings,
        host=arguments.host,
        port=arguments.port,
        model=arguments.model,
        mount=_page() if arguments.page else None,
    )
    return 0


def _page() -> Callable[..., Any] | None:
    """Return what adds the page, if Gradio is installed."""
    try:
        from genre.web import page
    except ImportError as error:
        if not (error.name or "").startswith("gradio"):
            raise
        print("the page at /ui needs gradio (`uv pip install gradio`): serving without it", file=sys.stderr)
        return None
    return page.mount


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.serve",
        description="Answer about uploaded songs over HTTP; what it allows stands in params.yaml under serve.",
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=5000, metavar="N", help="0: a free one (default: %(default)s)")
    parser.add_argument("--model", metavar="NAME", help="as of stages.query (default: the ensemble's choice)")
    parser.add_argument("--no-page", dest="page", action="store_false", help="do not serve the page at /ui")
    return parser


def _port(text: str) -> int:
    value = int(text)
    if not 0 <= value <= 65535:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 65535")
    return value


if __name__ == "__main__":
    one_thread_each()  # songs are answered side by side
    run_command(main)
