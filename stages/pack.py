"""Write a package of the trained models, for query on machines that have neither the songs nor the training packages.

python -m stages.pack my-genres.zip
python -m stages.pack --index my-genres.zip      with the indexes, for identify and similar
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from genre import files, package
from genre.cli import argument_parser, run_command
from genre.errors import SearchError
from genre.paths import Paths


def main(argv: Sequence[str] | None = None) -> int:
    """Write the package."""
    parser = argument_parser(__doc__)
    parser.add_argument("package", type=Path, metavar="FILE", help="the zip file to write")
    parser.add_argument("--index", action="store_true", help="add the indexes of identify and similar")
    arguments = parser.parse_args(argv)
    from genre.evaluation import report
    from genre.models import cards, predict, rejection

    paths = Paths()
    card = predict.default_card(paths)
    names = {card.model}
    if cards.ENSEMBLE in cards.available(paths):
        names |= {cards.ENSEMBLE, *cards.read(cards.ENSEMBLE, paths).models}
    for name in sorted(names):  # an error here is better than one on the other machine
        predict.load(name, paths)
        rejection.load(paths, name, 0.5)
    networks, scores = list(paths.weights.glob("musicnn/*.onnx")), paths.scores / f"{card.model}.json"
    parts = [paths.params, paths.rejection, scores, *networks]
    parts += [path(name) for name in names for path in (paths.card, paths.onnx)]
    if arguments.index:
        if not any((index := paths.index.parent).glob("*.db*")):
            raise SearchError(f"{index}/ has no vector store (index.uri): run `dvc repro index`, or leave out --index")
        parts += index.rglob("*")
    has = {"has_index": arguments.index, "has_musicnn": bool(networks)}
    readme = (
        report.environment()
        .get_template("package.md")
        .render(
            file=arguments.package.name, card=card, scores=files.read_json(scores) if scores.is_file() else None, **has
        )
    )
    present = [path.relative_to(paths.root).as_posix() for path in parts if path.is_file()]
    package.write(arguments.package, paths.root, present, readme)
    n_bytes = arguments.package.stat().st_size
    print(f"pack: {arguments.package}: {len(names)} models, {len(card.genres)} genres, {n_bytes / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    run_command(main)
