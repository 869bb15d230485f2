"""Name the indexed song that a snippet is from, and the position in it. 5 to 15 s are enough.

python -m stages.identify snippet.mp3
python -m stages.identify --format jsonl recordings/
python -m stages.identify --engine embeddings snippet.mp3
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence

from genre import params
from genre.cli import Answer, add_song_options, answer_all, fraction, run_command
from genre.paths import Paths


def main(argv: Sequence[str] | None = None) -> int:
    """Name the song of every snippet; return 1 if any file could not be read."""
    arguments = _parser().parse_args(argv)
    from genre.search.identify import identify, open_engine

    paths = Paths()
    settings = params.load(paths.params)
    min_score = settings.search.min_score if arguments.min_score is None else arguments.min_score
    with open_engine(settings, paths, arguments.engine) as engine:
        answer = functools.partial(
            identify, engine=engine, start=arguments.start, duration=arguments.duration, min_score=min_score
        )
        return answer_all(arguments.songs, answer, _text, arguments.format)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.identify",
        description="Name the indexed song that a snippet is from, and the position in it. At most 30 s are used.",
    )
    add_song_options(parser, "SNIPPET")
    parser.add_argument(
        "--engine", choices=("landmarks", "embeddings"), help="identification engine (default: search.engine)"
    )
    parser.add_argument(
        "--min-score", type=fraction, metavar="P", help="name no song below this score (default: search.min_score)"
    )
    return parser


def _text(answer: Answer) -> str:
    if answer["song"] is None:
        return f"{answer['file']}: no indexed song (score {answer['score']:.2f})"
    song = f"{answer['genre']}/{answer['song']}"
    offset = answer["offset"]
    position = f"at {offset:.2f} s" if offset >= 0 else f"starts {-offset:.2f} s before the song"
    return f"{answer['file']}: {song} {position} (score {answer['score']:.2f})"


if __name__ == "__main__":
    run_command(main)
