"""Read the features of all chunks back and write them as NumPy arrays with one-hot labels.

python -m stages.vectorize
"""

from __future__ import annotations

import argparse
import contextlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from stages import params
from stages.audio import index
from stages.commands import run_command
from stages.errors import GenreError
from stages.features import csv, vectors
from stages.features.transforms import TRANSFORMS
from stages.features.vectors import Side, VectorWriter
from stages.parallel import run

CHUNKS = Path("chunks")
FEATURES = Path("features")
VECTORS = Path("pickled_vectors")
SIDES: tuple[Side, Side] = ("train", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: features/ -> pickled_vectors/."""
    parser = argparse.ArgumentParser(prog="python -m stages.vectorize", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    settings = params.load()
    rows = index.read(CHUNKS)
    genres = sorted({row.genre for row in rows})
    _write_vectors(rows, settings.parallel.workers)
    songs: dict[Side, list[str]] = {}
    for side in SIDES:
        songs[side] = [row.song_id for row in rows if row.split == side]
        labels = [genres.index(row.genre) for row in rows if row.split == side]
        for transform in TRANSFORMS.values():
            vectors.write_labels(VECTORS, transform, side, labels, len(genres))
    split = settings.split
    vectors.write_names(
        VECTORS, genres, songs, vectors.Settings(split.sample_rate, split.chunk_seconds, split.min_seconds)
    )
    print(f"vectorize: {len(songs['train'])} training and {len(songs['test'])} test chunks, {len(genres)} genres")
    return 0


def _write_vectors(rows: Sequence[index.Row], workers: int | None) -> None:
    """Read the features of all chunks, several at a time, and write them in the order of the rows."""
    n_chunks = Counter(row.split for row in rows)
    with contextlib.ExitStack() as stack:
        writers: dict[tuple[str, str], VectorWriter] = {
            (side, transform.feature): stack.enter_context(VectorWriter(VECTORS, transform, side, n_chunks[side]))
            for side in SIDES
            for transform in TRANSFORMS.values()
        }
        results = run(_read_features, rows, description="vectorize", unit="chunk", workers=workers)
        for row, result in zip(rows, results, strict=True):
            if isinstance(result, GenreError):
                raise result
            for feature, values in result.items():
                writers[row.split, feature].add(values, f"{feature} of {row.chunk}")


def _read_features(row: index.Row) -> dict[str, npt.NDArray[np.float32]]:
    return {
        t.feature: csv.read(
            FEATURES / t.feature / Path(row.chunk).parent / t.csv_name(Path(row.chunk).stem), columns=t.columns
        )
        for t in TRANSFORMS.values()
    }


if __name__ == "__main__":
    run_command(main)
