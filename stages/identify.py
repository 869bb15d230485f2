"""Which song is this snippet from? 5 to 15 seconds are enough; noise, codecs and rooms may have spoiled them.

python -m stages.identify snippet.mp3
python -m stages.identify --format jsonl recordings/
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence

from stages import params
from stages.answers import Answer, add_song_options, answer_all
from stages.commands import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Name the song of every snippet; return 1 if any file could not be read."""
    arguments = _parser().parse_args(argv)
    from stages.search import manifest
    from stages.search.fingerprints import Index
    from stages.search.recognition import identify
    from stages.search.settings import search_settings

    settings = search_settings(params.load())
    answer = functools.partial(
        identify,
        index=Index.load(manifest.LANDMARKS),
        start=arguments.start,
        duration=arguments.duration,
        min_score=settings.min_score if arguments.min_score is None else arguments.min_score,
        max_speed_change=settings.max_speed_change,
    )
    return answer_all(arguments.songs, answer, _text, arguments.format)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.identify",
        description="Tell which indexed song a snippet is from, and where in it. Of a long file the first 30 s count.",
    )
    add_song_options(parser, "SNIPPET")
    parser.add_argument(
        "--min-score", type=_share, metavar="P", help="below this no song is named (default: search.min_score)"
    )
    return parser


def _text(answer: Answer) -> str:
    if answer["song"] is None:
        return f"{answer['file']}: no indexed song (score {answer['score']:.2f})"
    place = f"{answer['genre']}/{answer['song']} at {answer['offset']:.2f} s"
    return f"{answer['file']}: {place} (score {answer['score']:.2f})"


def _share(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


if __name__ == "__main__":
    run_command(main)
