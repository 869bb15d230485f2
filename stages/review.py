"""Listen to the most doubtful songs of the data set and correct their genres, in a browser.

python -m stages.review           opens the page; answers go to corrections/<data set>.csv
python -m stages.review --list    the songs that are not answered, in the order in which they are asked

Needs audit/, which `python -m stages.audit` writes.
"""

from __future__ import annotations

import logging
import webbrowser
from collections.abc import Sequence
from dataclasses import asdict

from genre import params
from genre.audit.review import Review
from genre.audit.songs import AuditedSongs
from genre.cli import answer_all, argument_parser, integer, run_command
from genre.paths import Paths

COLUMNS = ("song", "genre", "suggested", "margin", "finding", "evidence")


def main(argv: Sequence[str] | None = None) -> int:
    """Serve the page on this machine until SIGTERM or SIGINT, or print the queue."""
    parser = argument_parser(__doc__)
    parser.add_argument("--port", type=integer(0, 65_535), default=5001, help="0: a free port (default: %(default)s)")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page, whose address is logged")
    parser.add_argument("--list", action="store_true", help="print the songs that are not answered, and exit")
    parser.add_argument("--format", choices=("csv", "json"), default="csv", help="of --list (default: %(default)s)")
    arguments = parser.parse_args(argv)
    settings = params.load()
    review = Review(AuditedSongs(settings, Paths()))
    if arguments.list:
        questions = {question.song: asdict(question) for question in review.remaining()}
        names, answer = list(questions), lambda song: questions[str(song)]
        return answer_all(names, answer, str, arguments.format, COLUMNS, lambda row: [[row[c] for c in COLUMNS]])
    from genre.web import server
    from genre.web.review import create_app

    logging.getLogger("genre.web").setLevel(logging.INFO)
    show = (lambda _: False) if arguments.no_browser else webbrowser.open
    app = create_app(review, settings.serve)
    server.run(app, settings.serve, show, host="127.0.0.1", port=arguments.port)
    return 0


if __name__ == "__main__":
    run_command(main)
