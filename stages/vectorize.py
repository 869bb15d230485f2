"""Collect the feature CSVs of all chunks into NumPy arrays with one-hot labels.

python -m stages.vectorize
"""

from __future__ import annotations

import argparse
import contextlib
import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from genre import params
from genre.audio import manifest
from genre.cli import run_command
from genre.features import arrays, csv
from genre.features.arrays import Split, VectorWriter
from genre.features.settings import Settings
from genre.features.transforms import TRANSFORMS
from genre.parallel import all_or_error, run
from genre.paths import Paths

SPLITS: tuple[Split, Split] = ("train", "test")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: features/ -> pickled_vectors/."""
    parser = argparse.ArgumentParser(prog="python -m stages.vectorize", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    paths, settings = Paths(), params.load()
    rows = manifest.read(paths.chunks)
    genres = sorted({row.genre for row in rows})
    _write_vectors(rows, paths, settings.parallel.workers)
    songs: dict[Split, list[str]] = {}
    for split in SPLITS:
        songs[split] = [row.song_id for row in rows if row.split == split]
        labels = [genres.index(row.genre) for row in rows if row.split == split]
        for transform in TRANSFORMS.values():
            arrays.write_labels(paths.vectors, transform, split, labels, len(genres))
    cut = settings.split
    arrays.write_names(paths.vectors, genres, songs, Settings(cut.sample_rate, cut.chunk_seconds, cut.min_seconds))
    print(f"vectorize: {len(songs['train'])} training and {len(songs['test'])} test chunks, {len(genres)} genres")
    return 0


def _write_vectors(rows: Sequence[manifest.Row], paths: Paths, workers: int | None) -> None:
    """Read the features of all chunks, several chunks at a time, and write them in the order of the rows."""
    n_chunks = Counter(row.split for row in rows)
    with contextlib.ExitStack() as stack:
        writers: dict[tuple[str, str], VectorWriter] = {
            (split, transform.feature): stack.enter_context(
                VectorWriter(paths.vectors, transform, split, n_chunks[split])
            )
            for split in SPLITS
            for transform in TRANSFORMS.values()
        }
        read = functools.partial(_read_features, paths.features)
        names = [row.chunk for row in rows]
        results = run(read, names, description="vectorize", unit="chunk", workers=workers)
        for row, features in zip(rows, all_or_error(results), strict=True):
            for feature, values in features.items():
                writers[row.split, feature].add(values, f"{feature} of {row.chunk}")


def _read_features(folder: Path, chunk: str) -> dict[str, npt.NDArray[np.float32]]:
    """Return the features [shape=(frames, columns)] of one chunk, by feature name."""
    name = PurePosixPath(chunk)
    return {
        t.feature: csv.read(folder / t.feature / name.parent / t.csv_name(name.stem), columns=t.columns)
        for t in TRANSFORMS.values()
    }


if __name__ == "__main__":
    run_command(main)
