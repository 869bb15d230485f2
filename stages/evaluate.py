"""Score the trained models on the test songs, through the same ONNX files that query uses.

python -m stages.evaluate
"""

from __future__ import annotations

import argparse
import csv
import os
import sys
import urllib.parse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from stages import files, params
from stages.audio import chunks, index
from stages.commands import run_command
from stages.errors import ModelError
from stages.features import vectors
from stages.features.vectors import VectorSet
from stages.models import architectures, card, evaluation, report
from stages.models.evaluation import SongPrediction
from stages.models.predict import available, load
from stages.models.report import ModelResult

CHUNKS = Path("chunks")
VECTORS = Path("pickled_vectors")
TRAINING = Path("training")
EVALUATION = Path("evaluation")

# What is known to be wrong with a data set: it stands beside every figure on it.
FAULTS = {
    "demo": "The songs are synthetic: these figures say nothing about real music.",
    "gtzan-mini": (
        "GTZAN has replicas, mislabelled clips and artists on both sides of a random split (Sturm 2013):"
        " these figures are optimistic."
    ),
}


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
    results = []
    samples = _Samples(test)
    for model in tqdm(models, desc="evaluate", unit="model", disable=not sys.stderr.isatty()):
        predictor = load(model)
        if predictor.card.settings["fingerprint"] != fingerprint or predictor.card.genres != test.genres:
            raise ModelError(f"the model {model} was made from other vectors than {VECTORS}/: run `dvc repro`")
        probabilities = predictor.predict(test.inputs, samples if predictor.needs_samples else ())
        metrics[model] = evaluation.scores(probabilities, test.labels, test.songs)
        predictions = evaluation.by_song(probabilities, test.labels, test.songs)
        _write_model(EVALUATION / model, predictions, test, probabilities)
        results.append(ModelResult(model, metrics[model], predictions))
        print(_line(model, metrics[model]))
    files.write_json(EVALUATION / "metrics.json", metrics)
    files.write_text(EVALUATION / "report.html", _report(results, test))
    return 0


def _report(results: Sequence[ModelResult], test: VectorSet) -> str:
    rows = index.read(CHUNKS)
    name = params.load().dataset.name
    counts: list[list[object]] = []
    for genre in test.genres:
        counts.append([genre])
        for side in ("train", "test"):
            of_side = [row for row in rows if (row.genre, row.split) == (genre, side)]
            counts[-1] += [len({row.song for row in of_side}), len(of_side)]
    return report.render(
        sorted(results, key=lambda result: -result.scores["song_accuracy"]),
        genres=test.genres,
        sources={row.song_id: "../" + urllib.parse.quote(os.fsencode(row.source)) for row in rows},
        dataset_name=name,
        dataset=counts,
        curves={model: lines for model in architectures.MODELS if (lines := _curves(model))},
        parameters=params.PARAMS_FILE.read_text(encoding="utf-8"),
        versions=card.read("merged").versions,
        faults=FAULTS.get(name, ""),
    )


def _curves(model: str) -> dict[str, list[float]]:
    """Return the learning curves that training left."""
    found = {}
    for part, label in (("train", "training"), ("eval", "validation")):
        path = TRAINING / model / "plots" / "metrics" / part / "loss.tsv"
        if path.is_file():
            with path.open(encoding="utf-8", newline="") as stream:
                found[label] = [float(row["loss"]) for row in csv.DictReader(stream, delimiter="\t")]
    return found


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
    with files.atomic_path(folder / "confusion_matrix.png") as temporary:
        report.draw_confusion(matrix, genres).savefig(temporary, format="png", metadata={"Software": None})


def _line(model: str, scored: dict[str, float]) -> str:
    return (
        f"evaluate: {model}: songs {scored['song_accuracy']:.1%}"
        f" ({scored['song_accuracy_low']:.1%} to {scored['song_accuracy_high']:.1%}, n = {scored['n_songs']:.0f}),"
        f" chunks {scored['chunk_accuracy']:.1%} (n = {scored['n_chunks']:.0f})"
    )


if __name__ == "__main__":
    run_command(main)
