"""Write the predicted genres of songs into their tags, and take them back.

python -m stages.tags --dry-run albums/
python -m stages.tags --min-confidence 0.95 --only-empty --map genres.yaml albums/
python -m stages.tags --undo albums/

Reads and writes most formats, and only the genre (docs/tags.md).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from genre import files
from genre.cli import SONGS_AT_ONCE, Answer, add_song_options, answer_all, argument_parser, fraction, run_command
from genre.parallel import one_thread_each
from genre.paths import Paths
from genre.project import Project

COLUMNS = ("file", "old", "new", "reason")  # of the format csv


def main(argv: Sequence[str] | None = None) -> int:
    """Change the tags of every song; return 1 if a song could not be analysed or changed."""
    parser = argument_parser(__doc__)
    add_song_options(parser, "SONG", others="")
    parser.add_argument("--model", metavar="NAME", help="as in stages.query")
    parser.add_argument("--min-confidence", type=fraction, metavar="P", default=0.0, help="of genres that are written")
    parser.add_argument("--map", type=Path, metavar="FILE", help="YAML file with your names of genres (docs/tags.md)")
    parser.add_argument("--multi", action="store_true", help="also genres with a mean probability of 25 %% or more")
    parser.add_argument("--only-empty", action="store_true", help="keep every genre that is there")
    parser.add_argument("--dry-run", action="store_true", help="only print the changes")
    parser.add_argument("--undo", action="store_true", help="restore the genres from before the first change")
    force_help = "write genres of a model of synthetic songs too; --undo: even if another program changed the genre"
    parser.add_argument("--force", action="store_true", help=force_help)
    parser.add_argument("--journal", type=Path, default=Paths().tags, metavar="FILE", help="default: %(default)s")
    arguments = parser.parse_args(argv)
    from genre.audio import sources, tags

    if other := [name for name in arguments.songs if not sources.is_file_name(name)]:
        parser.error(f"tags are in files; {other[0]} is not a file")
    if not arguments.dry_run:
        files.check_output(arguments.journal, [".jsonl"])
    if arguments.undo and not arguments.journal.exists():
        parser.error(f"there is no journal {arguments.journal}: nothing was written, or --journal names another file")
    options = {name: getattr(arguments, name) for name in ("journal", "dry_run", "force")}
    if arguments.undo:
        return answer_all(arguments.songs, tags.Tagger(**options).undo, tags.describe, arguments.format, COLUMNS, _rows)
    with Project(arguments.models, model=arguments.model) as project:
        card = project.predictor.card
        if card.synthetic and not (arguments.force or arguments.dry_run):
            parser.error(f"{card.warnings[0]}; they are written only with --force")
        tagger = tags.Tagger(names=tags.read_map(arguments.map, card.genres) if arguments.map else {}, **options)
        limits = {name: getattr(arguments, name) for name in ("start", "duration", "min_confidence")}

        def write(path: Path) -> tags.Change:
            change = tagger.write(path, [])  # only reads
            if arguments.only_empty and change["old"]:
                return change | {"reason": "has a genre"}
            answer = project.query(path, **limits)
            change = tagger.write(path, tags.genres(answer, multi=arguments.multi))
            return {**change, "reason": answer["reason"] or change["reason"]}

        output = (tags.describe, arguments.format, COLUMNS, _rows)
        return answer_all(arguments.songs, write, *output, at_once=SONGS_AT_ONCE)


def _rows(change: Answer) -> Iterator[Sequence[object]]:
    yield [change["file"], "; ".join(change["old"]), "; ".join(change["new"]), change["reason"]]


if __name__ == "__main__":
    one_thread_each()  # chunks are predicted in parallel
    run_command(main)
