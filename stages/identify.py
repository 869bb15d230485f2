"""Name the indexed song that a snippet is from, and the position in it; 5 to 15 s are enough, at most 30 s are used.

python -m stages.identify snippet.mp3
python -m stages.identify --format jsonl recordings/
python -m stages.identify --engine embeddings snippet.mp3
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from genre.cli import Answer, add_song_options, answer_all, argument_parser, fraction, run_command
from genre.project import Project

COLUMNS = ("file", "song", "genre", "offset", "score", "path")  # of the format csv


def main(argv: Sequence[str] | None = None) -> int:
    """Name the song of every snippet; return 1 if any file could not be read."""
    parser = argument_parser(__doc__)
    add_song_options(parser, "SNIPPET")
    parser.add_argument("--engine", choices=("landmarks", "embeddings"), help="default: search.engine")
    score_help = "name no song below this score (default: search.min_score)"
    parser.add_argument("--min-score", type=fraction, metavar="P", help=score_help)
    arguments = parser.parse_args(argv)
    options = {name: getattr(arguments, name) for name in ("start", "duration", "min_score")}
    with Project(arguments.models, engine=arguments.engine) as project:
        _ = project.engine  # an error of the index is not one of a song
        output = (_text, arguments.format, COLUMNS, lambda answer: [[answer[column] for column in COLUMNS]])
        return answer_all(arguments.songs, functools.partial(project.identify, **options), *output)


def _text(answer: Answer) -> str:
    if answer["song"] is None:
        return f"{answer['file']}: no indexed song (score {answer['score']:.2f})"
    return f"{answer['file']}: " + ", and ".join(_song(song) for song in answer["songs"])


def _song(song: dict[str, Any]) -> str:
    offset = song["offset"]
    position = f"at {offset:.2f} s" if offset >= 0 else f"starts at {-offset:.2f} s of the snippet"
    path = f", {song['path']}" if song["path"] else ""
    return f"{song['genre']}/{song['song']} {position} (score {song['score']:.2f} of 1{path})"


if __name__ == "__main__":
    run_command(main)
