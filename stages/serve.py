"""Serve query, identify and similar over HTTP, as JSON and as a page; the limits are in params.yaml under serve.

python -m stages.serve
python -m stages.serve --host 0.0.0.0 --port 8000
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Sequence

from genre.cli import argument_parser, integer, run_command
from genre.parallel import one_thread_each


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until SIGTERM or SIGINT."""
    parser = argument_parser(__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address of the service (default: %(default)s)")
    parser.add_argument("--port", type=integer(0, 65_535), default=5000, help="0: a free port (default: %(default)s)")
    parser.add_argument("--model", metavar="NAME", help="as in stages.query")
    parser.add_argument("--models", metavar="FILE", help="as in stages.query")
    arguments = parser.parse_args(argv)
    from genre import params
    from genre.paths import Paths
    from genre.project import Project
    from genre.web import server
    from genre.web.app import create_app
    from genre.web.service import Service

    # not uvicorn.error: its "startup complete" comes before the models are loaded
    for name in ("uvicorn.access", "genre.web"):
        logging.getLogger(name).setLevel(logging.INFO)
    own = Paths().params  # a package has no limits and no key
    limits = params.load(own if own.is_file() or not arguments.models else params.INSTALLED).serve
    with contextlib.closing(Service(Project(arguments.models, model=arguments.model), limits)) as service:
        app = create_app(service, host=arguments.host)
        server.run(app, service.params, service.load, host=arguments.host, port=arguments.port)
    return 0


if __name__ == "__main__":
    one_thread_each()  # songs are analysed in parallel
    run_command(main, log_format="%(asctime)s %(message)s")
