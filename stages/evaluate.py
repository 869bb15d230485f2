"""Score the trained models on the test songs, through the same ONNX files that query uses.

python -m stages.evaluate
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from stages import files
from stages.audio import chunks, index
from stages.commands import run_command
from stages.errors import ModelError
from stages.features import vectors
from stages.features.vectors import VectorSet
from stages.models import evaluation
from stages.models.evaluation import SongPrediction
from stages.models.predict import available, load

CHUNKS = Path("chunks")
VECTORS = Path("pickled_vectors")
EVALUATION = Path("evaluation")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: pickled_vectors/ and the models -> evaluation/."""
    parser = argparse.ArgumentParser(prog="python -m stages.evaluate", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    models = available()
    if not models:
        raise ModelError("there is no model to evaluate: run `dvc repro`")
    test = vectors.read(VECTORS, "test")
    fingerprint = vectors.read_settings(VECTORS)["fingerprint"]
    metrics = {}
    samples = _Samples(test)
    for model in tqdm(models, desc="evaluate", unit="model", disable=not sys.stderr.isatty()):
        predictor = load(model)
        if predictor.card.settings["fingerprint"] != fingerprint or predictor.card.genres != test.genres:
            raise ModelError(f"the model {model} was made from other vectors than {VECTORS}/: run `dvc repro`")
        probabilities = predictor.predict(test.inputs, samples if predictor.needs_samples else ())
        metrics[model] = evaluation.scores(probabilities, test.labels, test.songs)
        predictions = evaluation.by_song(probabilities, test.labels, test.songs)
        _write_model(EVALUATION / model, predictions, test, probabilities)
        print(_line(model, metrics[model]))
    files.write_json(EVALUATION / "metrics.json", metrics)
    return 0


class _Samples(Sequence[npt.NDArray[np.int16]]):
    """The samples of the test chunks, read when they are needed."""

    def __init__(self, test: VectorSet) -> None:
        self._rows = [row for row in index.read(CHUNKS) if row.split == "test"]
        if [row.song_id for row in self._rows] != test.songs:
            raise ModelError(f"{VECTORS}/ was not made from {CHUNKS}/{index.INDEX_NAME}: run `dvc repro vectorize`")

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, position: Any) -> Any:
        return chunks.read(CHUNKS / self._rows[position].chunk)[0]


def _write_model(
    folder: Path, predictions: Sequence[SongPrediction], test: VectorSet, probabilities: npt.NDArray[np.float32]
) -> None:
    genres = test.genres
    files.write_table(
        folder / "predictions.csv",
        ["song", "actual", "predicted", "confidence", "chunks", *genres],
        (
            [p.song, genres[p.actual], genres[p.predicted], f"{p.confidence:.6f}", p.n_chunks]
            + [f"{value:.6f}" for value in p.probabilities]
            for p in predictions
        ),
    )
    files.write_table(
        folder / "chunks.csv",
        ["song", "actual", "predicted", *genres],
        (
            [song, genres[label], genres[int(row.argmax())], *(f"{value:.6f}" for value in row)]
            for song, label, row in zip(test.songs, test.labels, probabilities, strict=True)
        ),
    )
    files.write_table(
        folder / "per_genre.csv",
        ["genre", "precision", "recall", "f1", "songs"],
        (
            [genre, f"{precision:.4f}", f"{recall:.4f}", f"{f1:.4f}", n]
            for genre, (precision, recall, f1, n) in zip(
                genres, evaluation.per_genre(predictions, len(genres)), strict=True
            )
        ),
    )
    matrix = evaluation.confusion(predictions, len(genres))
    files.write_table(
        folder / "confusion_matrix.csv",
        ["actual", *genres],
        ([genre, *row.tolist()] for genre, row in zip(genres, matrix, strict=True)),
    )
    _draw_confusion(folder / "confusion_matrix.png", matrix, genres)


def _draw_confusion(path: Path, matrix: npt.NDArray[np.int64], genres: Sequence[str]) -> None:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    size = 2.5 + 0.5 * len(genres)
    figure = Figure(figsize=(size, size * 0.9), dpi=120, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(len(genres)), genres, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(len(genres)), genres, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title("test songs, by vote")
    for row, column in np.argwhere(matrix):
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, matrix[row, column], ha="center", va="center", color=shade)
    with files.atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _line(model: str, scored: dict[str, float]) -> str:
    return (
        f"evaluate: {model}: songs {scored['song_accuracy']:.1%}"
        f" ({scored['song_accuracy_low']:.1%} to {scored['song_accuracy_high']:.1%}, n = {scored['n_songs']:.0f}),"
        f" chunks {scored['chunk_accuracy']:.1%} (n = {scored['n_chunks']:.0f})"
    )


if __name__ == "__main__":
    run_command(main)
