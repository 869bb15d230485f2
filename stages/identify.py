"""Which song is this snippet from? 5 to 15 seconds are enough; noise, codecs and rooms may have spoiled them.

python -m stages.identify snippet.mp3
python -m stages.identify --format jsonl recordings/
python -m stages.identify --engine network snippet.mp3
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence

from genre import params
from genre.cli import Answer, add_song_options, answer_all, fraction, run_command
from genre.search.settings import ENGINES


def main(argv: Sequence[str] | None = None) -> int:
    """Name the song of every snippet; return 1 if any file could not be read."""
    arguments = _parser().parse_args(argv)
    from genre.search import engines
    from genre.search.settings import index_settings, search_settings

    everything = params.load()
    settings = search_settings(everything)
    with engines.opened(
        arguments.engine or settings.engine,
        index_settings(everything),
        max_speed_change=settings.max_speed_change,
    ) as engine:
        answer = functools.partial(
            engines.identify,
            engine=engine,
            start=arguments.start,
            duration=arguments.duration,
            min_score=settings.min_score if arguments.min_score is None else arguments.min_score,
        )
        return answer_all(arguments.songs, answer, _text, arguments.format)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.identify",
        description="Tell which indexed song a snippet is from, and where in it. Of a long file the first 30 s count.",
    )
    add_song_options(parser, "SNIPPET")
    parser.add_argument(
        "--engine", choices=ENGINES, help="what recognises: landmarks, or the network (default: search.engine)"
    )
    parser.add_argument(
        "--min-score", type=fraction, metavar="P", help="below this no song is named (default: search.min_score)"
    )
    return parser


def _text(answer: Answer) -> str:
    if answer["song"] is None:
        return f"{answer['file']}: no indexed song (score {answer['score']:.2f})"
    song = f"{answer['genre']}/{answer['song']}"
    offset = answer["offset"]
    place = f"at {offset:.2f} s" if offset >= 0 else f"starts {-offset:.2f} s before the song"
    return f"{answer['file']}: {song} {place} (score {answer['score']:.2f})"


if __name__ == "__main__":
    run_command(main)
