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

from genre import params
from genre.audio import manifest
from genre.cli import run_command
from genre.errors import GenreError
from genre.features import arrays, csv
from genre.features.arrays import Side, VectorWriter
from genre.features.settings import Settings
from genre.features.transforms import TRANSFORMS
from genre.parallel import run

CHUNKS = Path("chunks")
FEATURES = Path("features")
VECTORS = Path("pickled_vectors")
SIDES: tuple[Side, Side] = ("train", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: features/ -> pickled_vectors/."""
    parser = argparse.ArgumentParser(prog="python -m stages.vectorize", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    settings = params.load()
    rows = manifest.read(CHUNKS)
    genres = sorted({row.genre for row in rows})
    _write_vectors(rows, settings.parallel.workers)
    songs: dict[Side, list[str]] = {}
    for side in SIDES:
        songs[side] = [row.song_id for row in rows if row.split == side]
        labels = [genres.index(row.genre) for row in rows if row.split == side]
        for transform in TRANSFORMS.values():
            arrays.write_labels(VECTORS, transform, side, labels, len(genres))
    split = settings.split
    arrays.write_names(VECTORS, genres, songs, Settings(split.sample_rate, split.chunk_seconds, split.min_seconds))
    print(f"vectorize: {len(songs['train'])} training and {len(songs['test'])} test chunks, {len(genres)} genres")
    return 0


def _write_vectors(rows: Sequence[manifest.Row], workers: int | None) -> None:
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


def _read_features(row: manifest.Row) -> dict[str, npt.NDArray[np.float32]]:
    return {
        t.feature: csv.read(
            FEATURES / t.feature / Path(row.chunk).parent / t.csv_name(Path(row.chunk).stem), columns=t.columns
        )
        for t in TRANSFORMS.values()
    }


if __name__ == "__main__":
    run_command(main)
