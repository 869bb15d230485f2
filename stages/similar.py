"""What is this song like? The nearest songs, and the genre that they vote for.

python -m stages.similar song.mp3
python -m stages.similar --top 5 --format jsonl albums/
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Sequence

from stages import params
from stages.answers import Answer, add_song_options, answer_all
from stages.commands import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Answer about the songs that are named; return 1 if any could not be read."""
    arguments = _parser().parse_args(argv)
    from stages.search import manifest
    from stages.search.neighbours import similar
    from stages.search.projection import Projection
    from stages.search.settings import index_settings, search_settings
    from stages.search.store import VectorStore

    everything = params.load()
    made_with = manifest.read()
    project = Projection.load(manifest.PROJECTION)
    with VectorStore(
        index_settings(everything),
        kind=manifest.KIND,
        fingerprint=made_with.fingerprint,
        dimension=made_with.dimension,
    ) as store:
        store.open()
        answer = functools.partial(
            similar,
            store=store,
            projection=project,
            embedding=made_with.embedding,
            settings=made_with.feature_settings,
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
    lines = [f"{answer['file']}"]
    lines += [f"  {song['score']:.3f}  {song['genre']}/{song['song']}" for song in answer["songs"]]
    return "\n".join([*lines, f"genre: {answer['genre']} (weighted: {answer['weighted_genre']})"])


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError(f"{text} is not between 1 and 1000")
    return value


if __name__ == "__main__":
    run_command(main)
