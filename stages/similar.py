"""Name the indexed songs most similar to a song, and the genre that they vote for.

python -m stages.similar song.mp3
python -m stages.similar --top 5 --format jsonl albums/
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence

from genre import params
from genre.cli import Answer, add_song_options, answer_all, count, run_command
from genre.paths import Paths


def main(argv: Sequence[str] | None = None) -> int:
    """Answer for every song; return 1 if any file could not be read."""
    arguments = _parser().parse_args(argv)
    from genre.search import similar

    paths = Paths()
    with similar.open_neighbours(params.load(paths.params), paths) as neighbours:
        answer = functools.partial(
            neighbours.similar, top=arguments.top, start=arguments.start, duration=arguments.duration
        )
        return answer_all(arguments.songs, answer, _text, arguments.format)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.similar", description="Name the indexed songs most similar to a song."
    )
    add_song_options(parser, "SONG")
    parser.add_argument(
        "--top", type=count(1, 1000), default=10, metavar="N", help="songs to name (default: %(default)s)"
    )
    return parser


def _text(answer: Answer) -> str:
    songs = [song for song in answer["songs"] if song["score"] > 0]
    lines = [answer["file"], *(f"  {song['score']:.3f}  {song['genre']}/{song['song']}" for song in songs)]
    if not answer["votes"]:
        return "\n".join([*lines, "genre: unknown (no other song is indexed)"])
    n_chunks = sum(answer["votes"].values())
    chunks = f"{answer['votes'][answer['genre']]} of {n_chunks} chunk" + ("s" if n_chunks > 1 else "")
    return "\n".join([*lines, f"genre: {answer['genre']} ({chunks}; weighted: {answer['weighted_genre']})"])


if __name__ == "__main__":
    run_command(main)
