"""What is this song like? The nearest songs, and the genre that they vote for.

python -m stages.similar song.mp3
python -m stages.similar --top 5 --format jsonl albums/
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence
from pathlib import Path

from genre import params
from genre.cli import Answer, add_song_options, answer_all, run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Answer about the songs that are named; return 1 if any could not be read."""
    arguments = _parser().parse_args(argv)
    from genre.search import similar
    from genre.search.settings import index_settings, search_settings

    everything = params.load()
    with similar.opened(Path(), index_settings(everything)) as found:
        answer = functools.partial(
            similar.similar,
            store=found.store,
            projection=found.projection,
            embedding=found.made_with.embedding,
            settings=found.made_with.feature_settings,
            top=arguments.top,
            top_k=search_settings(everything).top_k,
            start=arguments.start,
            duration=arguments.duration,
        )
        return answer_all(arguments.songs, answer, _text, arguments.format)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.similar", description="Name the indexed songs most like a song, and its genre by them."
    )
    add_song_options(parser, "SONG")
    parser.add_argument("--top", type=_count, default=10, metavar="N", help="songs to name (default: %(default)s)")
    return parser


def _text(answer: Answer) -> str:
    alike = [song for song in answer["songs"] if song["score"] > 0]  # those below point the other way
    lines = [answer["file"], *(f"  {song['score']:.3f}  {song['genre']}/{song['song']}" for song in alike)]
    if not answer["votes"]:
        return "\n".join([*lines, "genre: unknown (no other song is indexed)"])
    n_chunks = sum(answer["votes"].values())
    chunks = f"{answer['votes'][answer['genre']]} of {n_chunks} chunk" + ("s" if n_chunks > 1 else "")
    return "\n".join([*lines, f"genre: {answer['genre']} ({chunks}; weighted: {answer['weighted_genre']})"])


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 1000")
    return value


if __name__ == "__main__":
    run_command(main)
