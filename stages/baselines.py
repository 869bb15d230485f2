"""Train the peers that the Conv1D models are compared with on the training songs, for `query` to answer with.

python -m stages.baselines
"""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from genre import files, params
from genre.audio import manifest
from genre.cache import Cache
from genre.cli import run_command
from genre.errors import VectorError
from genre.features import arrays
from genre.features.arrays import VectorSet
from genre.models import baselines, embeddings, ensemble, musicnn
from genre.paths import Paths

CHUNKS = Path("chunks")
VECTORS = Path("pickled_vectors")
TRAINING = Path("training") / "baselines"


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: pickled_vectors/ and chunks/ -> model_architecture/baselines/, model_weights/baselines/."""
    parser = argparse.ArgumentParser(prog="python -m stages.baselines", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    settings = params.load()
    names = settings.baselines.models
    for name in names:
        baselines.get(name)  # before any work is done
    training = arrays.read(VECTORS, "train")
    described = arrays.read_settings(VECTORS)
    dataset = {"name": settings.dataset.name, "songs": len(set(training.songs)), "chunks": len(training.songs)}
    cache = Cache(Paths().cache, settings.cache.max_bytes)
    embedded: dict[str, npt.NDArray[np.float32]] = {}
    for name in tqdm(names, desc="baselines", unit="model", disable=None):
        embedding = settings.musicnn.embedding if name.startswith("musicnn") else baselines.get(name).embedding
        if embedding not in embedded:
            embedded[embedding] = _embed(embedding, training, cache, settings.parallel.workers)
        fitted = baselines.fit(
            name,
            embedded[embedding],
            training.labels,
            training.songs,
            n_genres=len(training.genres),
            seed=settings.baselines.seed,
            embedding=embedding,
        )
        unknown = None
        if fitted.validation is not None:
            unknown = ensemble.fit_unknown([fitted.validation], training.labels, training.songs)
            path = TRAINING / name / "validation.csv"
            ensemble.write_validation(path, fitted.validation, training.genres)
        baselines.save(fitted, genres=training.genres, settings=described, dataset=dataset, unknown=unknown)
        print(f"baselines: {name}: {dataset['chunks']} chunks of {dataset['songs']} songs, {embedding}")
    cache.trim()
    _remove_others(names, _ship(embedded))
    return 0


def _embed(embedding: str, training: VectorSet, cache: Cache, workers: int | None) -> npt.NDArray[np.float32]:
    """Return the vectors of the training chunks, in the order of the training set."""
    if embeddings.get(embedding).of_features is not None:
        return embeddings.embed(embedding, features=embeddings.each_chunk(training.inputs))
    rows = [row for row in manifest.read(CHUNKS) if row.split == "train"]
    if [row.song_id for row in rows] != training.songs:
        raise VectorError(f"{VECTORS}/ was not made from {CHUNKS}/{manifest.INDEX_NAME}: run `dvc repro vectorize`")
    return embeddings.of_files(embedding, [CHUNKS / row.chunk for row in rows], cache=cache, workers=workers)


def _ship(used: Iterable[str]) -> set[Path]:
    """Put the networks of embeddings beside the models that need them; return their files."""
    shipped = set()
    for checkpoint in musicnn.CHECKPOINTS:
        if any(embedding.startswith(checkpoint) for embedding in used):
            source = musicnn.converted(checkpoint)
            shipped.add(musicnn.SHIPPED / source.name)
            files.write_bytes(musicnn.SHIPPED / source.name, source.read_bytes())
    return shipped


def _remove_others(names: Sequence[str], shipped: set[Path]) -> None:
    """Remove the baselines of an earlier run that are not asked for any more."""
    files.remove_others(baselines.ARCHITECTURE_FOLDER, {baselines.card_path(name) for name in names})
    files.remove_others(TRAINING, {TRAINING / name / "validation.csv" for name in names})
    files.remove_others(baselines.WEIGHTS_FOLDER, shipped | {baselines.classifier_path(name) for name in names})


if __name__ == "__main__":
    run_command(main)
