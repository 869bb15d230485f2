"""Write a package of the trained models, for query on machines that have neither the songs nor the training packages.

python -m stages.pack my-genres.zip
python -m stages.pack --index my-genres.zip      with the indexes, for identify and similar
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import yaml

from genre import files, package, params
from genre.cli import argument_parser, run_command
from genre.errors import SearchError
from genre.paths import Paths
from genre.project import Project


def main(argv: Sequence[str] | None = None) -> int:
    """Write the package."""
    parser = argument_parser(__doc__)
    parser.add_argument("package", type=Path, metavar="FILE.zip", help="the file to write")
    parser.add_argument("--index", action="store_true", help="add the indexes of identify and similar")
    arguments = parser.parse_args(argv)
    files.check_output(arguments.package, [".zip"])
    from genre.evaluation import report
    from genre.models import cards, predict, rejection

    paths, settings = Paths(), params.load().model_dump(include=set(params.PackagedParams.model_fields))
    card = predict.default_card(paths)
    names = {card.model}
    if cards.ENSEMBLE in cards.available(paths):
        names |= {cards.ENSEMBLE, *cards.read(cards.ENSEMBLE, paths).models}
    parts, embeddings = [], set()
    for name in sorted(names):
        parts += [paths.card(name), paths.onnx(name)]
        described = predict.load(name, paths).card.embedding  # an error here is better than one on the other machine
        embeddings |= {described["name"]} if described else set()
    if detectors := rejection.load(paths, card.model, 0.5):
        parts.append(paths.rejection)
        embeddings |= {embedder.name for embedder in detectors.embedders}
    if arguments.index:
        parts += _index(paths, settings["index"]["uri"])
        embeddings.add(files.read_json(paths.index)["embedding"])
    networks = [path for path in paths.weights.glob("musicnn/*.onnx") if any(path.stem in name for name in embeddings)]
    evaluated = files.read_json(paths.evaluated) if paths.evaluated.is_file() else {}
    is_evaluated = all(evaluated.get(name) == files.sha256(paths.card(name)) for name in names)
    settings["index"]["uri"] = params.PACKED_STORE
    readme = {
        "card": card,
        "scores": files.read_json(paths.scores / f"{card.model}.json") if is_evaluated else None,
        "rejects": detectors is not None,
        "has_index": arguments.index,
        "licence": metadata.distribution("musicnn").read_text("LICENSE.md") if networks else None,
    }
    contents: dict[str, Path | str] = {
        path.relative_to(paths.root).as_posix(): path for path in (*parts, *networks) if path.is_file()
    }
    contents["params.yaml"] = yaml.safe_dump(settings)
    contents["README.md"] = report.environment().get_template("package.md").render(readme)
    package.write(arguments.package, contents)
    n_bytes = arguments.package.stat().st_size
    print(f"pack: {arguments.package}: {len(names)} models, {len(card.genres)} genres, {n_bytes / 1e6:.1f} MB")
    if not is_evaluated:
        print("pack: its README has no accuracy: the last `python -m stages.evaluate` did not score these models")
    return 0


def _index(paths: Paths, uri: str) -> list[Path]:
    """Return the files of the indexes, which can be opened; raise SearchError if they are elsewhere or missing."""
    if uri != params.PACKED_STORE or os.environ.get("MILVUS_URI"):
        raise SearchError(f"only an index in {params.PACKED_STORE} (index.uri, MILVUS_URI) can be packed")
    with Project(engine="landmarks") as project:
        _ = project.engine, project.neighbours
    folders = (paths.landmarks, paths.root / uri)
    return [paths.index, paths.projection, *(path for folder in folders for path in folder.rglob("*"))]


if __name__ == "__main__":
    run_command(main)
