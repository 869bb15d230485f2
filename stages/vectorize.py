"""Collect the feature CSVs of all chunks into NumPy arrays with one-hot labels.

python -m stages.vectorize
dvc repro vectorize      with the stages before it, if they changed
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from genre import params
from genre.audio import manifest
from genre.cli import argument_parser, run_command
from genre.features import arrays, csv, transforms
from genre.parallel import run
from genre.paths import Paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: features/ -> pickled_vectors/."""
    argument_parser(__doc__).parse_args(argv)
    paths, settings = Paths(), params.load()
    rows = manifest.read(paths.chunks)
    read = functools.partial(_read_features, paths.features)
    names = [row.chunk for row in rows]
    results = run(read, names, description="vectorize", unit="chunk", workers=settings.parallel.workers)
    cut = transforms.Settings(settings.split.sample_rate, settings.split.chunk_seconds, settings.split.min_seconds)
    arrays.write(paths.vectors, rows, results, cut)
    n_chunks = Counter(row.split for row in rows)
    n_genres = len({row.genre for row in rows})
    print(f"vectorize: {n_chunks['train']} training and {n_chunks['test']} test chunks, {n_genres} genres")
    return 0


def _read_features(folder: Path, chunk: str) -> dict[str, npt.NDArray[np.float32]]:
    """Return the features [shape=(frames, columns)] of one chunk, by feature name."""
    name = PurePosixPath(chunk)
    return {
        t.feature: csv.read(folder / t.feature / name.parent / t.csv_name(name.stem), t.columns)
        for t in transforms.TRANSFORMS.values()
    }


if __name__ == "__main__":
    run_command(main)
