"""Train a baseline, a classifier that the Conv1D networks are compared with, on the training songs.

python -m stages.baselines musicnn_svm
python -m stages.baselines stats_svm
"""

from __future__ import annotations

from collections.abc import Sequence

from genre import params
from genre.audio import manifest
from genre.cache import Cache
from genre.cli import argument_parser, run_command
from genre.features import arrays
from genre.models import baselines, calibration, cards, embeddings
from genre.models.vote import middle_rows
from genre.paths import Paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: pickled_vectors/ and chunks/ -> model_architecture/, model_weights/, training/<baseline>/."""
    parser = argument_parser(__doc__)
    parser.add_argument("baseline", choices=baselines.BASELINES)
    name = parser.parse_args(argv).baseline
    settings, paths = params.load(), Paths()
    training = arrays.read(paths.vectors, "train")
    cache = Cache(paths.cache, settings.cache.max_bytes)
    embedder = embeddings.load(baselines.embedding_name(name, settings.musicnn), paths, cache=cache)
    songs, seed = training.songs, settings.baselines.seed
    chunk_files = manifest.chunk_files(paths.chunks, "train", songs)
    workers, middle = settings.parallel.workers, [chunk_files[row] for row in middle_rows(songs)]
    vectors = embedder.of_chunks(training.inputs, chunk_files, workers)
    copies = embedder.of_files(middle, gains_db=baselines.GAINS_DB, workers=workers)
    trained = baselines.train(name, vectors, training, copies=copies, seed=seed)
    calibration.write_validation(paths.validation(name), trained.validation, training.genres)
    classifier = baselines.BASELINES[name].classifier
    card = cards.ModelCard(
        model=name,
        kind=classifier,
        genres=training.genres,
        embedding=embedder.describe(),
        settings=arrays.read_settings(paths.vectors),
        calibration=trained.calibration,
        dataset=cards.describe_dataset(settings.dataset.name, songs, paths),
        training={"seed": seed},
        versions=cards.installed_versions(("numpy", *baselines.CLASSIFIERS[classifier].packages)),
    )
    cards.write(card, paths, trained.onnx)
    cache.trim()
    print(f"baselines: {name}: {len(songs)} chunks of {len(set(songs))} songs, {embedder.name}")
    return 0


if __name__ == "__main__":
    run_command(main)
