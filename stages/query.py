"""Predict the genre of songs: of each chunk, and by the vote of the chunks.

python -m stages.query song.mp3
python -m stages.query --middle 7 song.mp3
python -m stages.query --format jsonl *.flac albums/
python -m stages.query --plot song.svg song.mp3
python -m stages.query --write-tags --dry-run albums/
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from genre import cli, files
from genre.cli import Answer, add_song_options, answer_all, argument_parser, fraction, positive, run_command
from genre.parallel import one_thread_each
from genre.paths import Paths
from genre.project import Project
from genre.terminal import one_line


def main(argv: Sequence[str] | None = None) -> int:
    """Print the genre of each song; return 1 if a song could not be analysed."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    if arguments.middle is not None and (arguments.start or arguments.duration is not None):
        parser.error("--middle goes without --start and --duration")
    if arguments.dry_run and not arguments.write_tags:
        parser.error("--dry-run goes with --write-tags")
    afterwards = _afterwards(parser, arguments)
    with Project(arguments.models, model=arguments.model) as project:
        card = project.predictor.card
        if arguments.write_tags and card.synthetic and not arguments.dry_run:
            parser.error(f"{card.warnings[0]}; `python -m stages.tags --force` writes them")
        options = {name: getattr(arguments, name) for name in ("start", "duration", "middle", "min_confidence")}
        if arguments.sets:
            options["coverage"] = arguments.sets
        of_song = functools.partial(project.query, **options)
        header = ["file", "song_genre", "song_confidence", "song_set", "start", "end", "genre", *card.genres]
        text = functools.partial(_text, sets=arguments.sets is not None)
        output = (arguments.format, header, _rows)
        return answer_all(arguments.songs, of_song, text, *output, at_once=cli.SONGS_AT_ONCE, afterwards=afterwards)


def _afterwards(parser: argparse.ArgumentParser, arguments: argparse.Namespace) -> Callable[[Answer], None] | None:
    """Return the function that is called with each answer after it is printed; None without --plot and --write-tags."""
    if arguments.plot:
        from genre.evaluation import plots

        files.check_output(arguments.plot, plots.SUFFIXES)
        if len(arguments.songs) > 1 or cli.is_folder(arguments.songs[0]):
            parser.error("--plot takes one song")
        return lambda answer: plots.write_timeline(cast(Any, answer), arguments.plot)
    if arguments.write_tags:
        from genre.audio import sources, tags

        if other := [name for name in arguments.songs if not sources.is_file_name(name)]:
            parser.error(f"--write-tags needs files; {other[0]} is not a file")
        tagger = tags.Tagger(Paths().tags, dry_run=arguments.dry_run)

        def write_tags(answer: Answer) -> None:
            change = tagger.write(Path(answer["file"]), tags.genres(answer))
            print(one_line(tags.describe(change)), file=sys.stderr)

        return write_tags
    return None


def _parser() -> argparse.ArgumentParser:
    parser = argument_parser(__doc__)
    add_song_options(parser, "SONG")
    parser.add_argument("--middle", type=positive, metavar="S", help="analyse S seconds in the middle of the file")
    parser.add_argument("--model", metavar="NAME", help="such as merged (default: the choice of stages.ensemble)")
    confidence_help = 'the genre is "unknown" below this confidence too, not only if query.reject rejects the song'
    parser.add_argument("--min-confidence", type=fraction, metavar="P", default=0.0, help=confidence_help)
    parser.add_argument("--sets", type=fraction, metavar="P", help="print a set with the genre of this share of songs")
    output = parser.add_mutually_exclusive_group()
    output.add_argument("--plot", type=Path, metavar="FILE", help="draw the predictions for one song as .png or .svg")
    output.add_argument("--write-tags", action="store_true", help="write the genres into tags, as stages.tags")
    parser.add_argument("--dry-run", action="store_true", help="with --write-tags: only print the changes")
    return parser


def _text(answer: Answer, *, sets: bool) -> str:
    lines = [answer["file"], f"{'start':>8} {'end':>8}  {'genre':<16} probabilities"]
    for chunk in answer["chunks"]:
        best = sorted(chunk["probabilities"].items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"{genre} {100 * p:.0f} %" for genre, p in best)
        lines.append(f"{cli.clock(chunk['start']):>8} {cli.clock(chunk['end']):>8}  {chunk['genre']:<16} {shown}")
    if sets:
        share = f"{100 * answer['set_coverage']:g} % of songs like the {answer['set_songs']} training songs"
        lines.append(f"set: {' or '.join(answer['genre_set']) or 'unknown'} (it has the genre of {share})")
    return "\n".join([*lines, f"genre: {cli.verdict(answer)}"])


def _rows(answer: Answer) -> Iterator[Sequence[object]]:
    """Yield a row per chunk, with the prediction for its song."""
    for chunk in answer["chunks"]:
        song = [answer["file"], answer["genre"], answer["confidence"], " or ".join(answer["genre_set"])]
        yield [*song, chunk["start"], chunk["end"], chunk["genre"], *chunk["probabilities"].values()]


if __name__ == "__main__":
    one_thread_each()  # chunks are predicted in parallel
    run_command(main)
