"""Write a package of the trained models, for query on machines that have neither the songs nor the training packages.

python -m stages.pack my-genres.zip
python -m stages.pack --index my-genres.zip      with the indexes, for identify and similar
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genre import files
from genre.cli import argument_parser, run_command
from genre.errors import SearchError
from genre.paths import Paths

if TYPE_CHECKING:
    from genre.models.cards import ModelCard

README = """\
# {file}: genres {genres}

The model {model}, trained on {songs} songs of the data set {name}. {accuracy}{warning}

    genre query --models {file} song.mp3

predicts the genre of any audio file. The command is that of the project that wrote this package; it needs neither the
songs nor TensorFlow nor DVC.{index}

In Python: `genre.Project("{file}").query("song.mp3")["genre"]`
{licence}"""
ACCURACY = "Of {n} test songs it predicted {accuracy:.1%} right (95 % interval: {low:.1%} to {high:.1%})."
INDEX = " `genre identify` and `genre similar` search its indexed songs, with the same option."
LICENCE = """
`model_weights/musicnn/` has a network of Pons and Serra, "musicnn: pre-trained convolutional neural networks for music
audio tagging" (ISMIR 2019), converted to ONNX. Licence of the package musicnn: ISC.
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the package."""
    parser = argument_parser(__doc__)
    parser.add_argument("package", type=Path, metavar="FILE", help="the zip file to write")
    parser.add_argument("--index", action="store_true", help="add the indexes of identify and similar")
    arguments = parser.parse_args(argv)
    from genre import package
    from genre.models import cards, predict, rejection

    paths = Paths()
    card = predict.default_card(paths)
    names = {card.model}
    if cards.ENSEMBLE in cards.available(paths):
        names |= {cards.ENSEMBLE, *cards.read(cards.ENSEMBLE, paths).models}
    for name in sorted(names):
        predict.load(name, paths)  # an error here is better than one of who receives the package
    rejection.load(paths, card.model, 0.5)
    parts = [paths.params, paths.rejection, *(path(name) for name in names for path in (paths.card, paths.onnx))]
    parts += [*paths.musicnn("").parent.glob("*.onnx"), paths.scores / f"{card.model}.json"]
    if arguments.index:
        if not any((index := paths.index.parent).glob("*.db*")):
            raise SearchError(f"{index}/ has no vector store (index.uri): run `dvc repro index`, or leave out --index")
        parts += index.rglob("*")
    present = [path.relative_to(paths.root).as_posix() for path in parts if path.is_file()]
    package.write(arguments.package, paths.root, present, _readme(card, paths, arguments))
    n_bytes = arguments.package.stat().st_size
    print(f"pack: {arguments.package}: {len(names)} models, {len(card.genres)} genres, {n_bytes / 1e6:.1f} MB")
    return 0


def _readme(card: ModelCard, paths: Paths, arguments: argparse.Namespace) -> str:
    """Return the text for who receives the package."""
    scores = paths.scores / f"{card.model}.json"
    return README.format(
        file=arguments.package.name,
        genres=", ".join(card.genres),
        model=card.model,
        songs=card.dataset["songs"],
        name=card.dataset["name"],
        accuracy=ACCURACY.format(**files.read_json(scores)) if scores.is_file() else "It was not evaluated.",
        warning="".join(f"\n\n**Warning: {warning}**" for warning in card.warnings),
        index=INDEX if arguments.index else "",
        licence=LICENCE if any(paths.musicnn("").parent.glob("*.onnx")) else "",
    )


if __name__ == "__main__":
    run_command(main)
