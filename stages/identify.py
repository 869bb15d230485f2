"""Name the indexed song that a snippet is from, and the position in it; 5 to 15 s are enough, at most 30 s are used.

python -m stages.identify snippet.mp3
python -m stages.identify --format jsonl recordings/
python -m stages.identify --engine embeddings snippet.mp3
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from genre import params
from genre.audio import manifest
from genre.cli import Answer, add_song_options, answer_all, argument_parser, fraction, run_command
from genre.paths import Paths

COLUMNS = ("file", "song", "genre", "offset", "score", "path")  # of the format csv


def main(argv: Sequence[str] | None = None) -> int:
    """Name the song of every snippet; return 1 if any file could not be read."""
    parser = argument_parser(__doc__)
    add_song_options(parser, "SNIPPET")
    parser.add_argument("--engine", choices=("landmarks", "embeddings"), help="default: search.engine")
    score_help = "name no song below this score (default: search.min_score)"
    parser.add_argument("--min-score", type=fraction, metavar="P", help=score_help)
    arguments = parser.parse_args(argv)
    from genre.search.identify import identify, open_engine

    paths = Paths()
    settings = params.load(paths.params)
    min_score = settings.search.min_score if arguments.min_score is None else arguments.min_score
    with open_engine(settings, paths, arguments.engine) as engine:
        options = {"start": arguments.start, "duration": arguments.duration, "min_score": min_score}
        sources = manifest.sources(paths.chunks)

        def answer(path: Path) -> Answer:
            match = identify(path, engine=engine, **options)
            songs = [{**song, "path": sources.get(f"{song['genre']}/{song['song']}")} for song in match["songs"]]
            return {**match, "songs": songs, "path": songs[0]["path"] if songs else None}

        return answer_all(arguments.songs, answer, _text, arguments.format, COLUMNS, _rows)


def _text(answer: Answer) -> str:
    if answer["song"] is None:
        return f"{answer['file']}: no indexed song (score {answer['score']:.2f})"
    return f"{answer['file']}: " + ", and ".join(_song(song) for song in answer["songs"])


def _song(song: dict[str, Any]) -> str:
    offset = song["offset"]
    position = f"at {offset:.2f} s" if offset >= 0 else f"starts {-offset:.2f} s before the song"
    path = f", {song['path']}" if song["path"] else ""
    return f"{song['genre']}/{song['song']} {position} (score {song['score']:.2f} of 1{path})"


def _rows(answer: Answer) -> Iterator[Sequence[object]]:
    yield [answer[column] for column in COLUMNS]


if __name__ == "__main__":
    run_command(main)
