"""Score the trained models on the test songs, through the same ONNX files that query uses.

python -m stages.evaluate
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from genre import files, params
from genre.audio import chunks, manifest
from genre.cache import Cache
from genre.cli import run_command
from genre.errors import ModelError
from genre.evaluation import dataset_card, plots, report
from genre.evaluation import metrics as evaluation
from genre.evaluation.metrics import SongPrediction
from genre.evaluation.report import ModelResult
from genre.features import arrays
from genre.features.arrays import VectorSet
from genre.models import baselines, cards, embeddings, networks
from genre.models.predict import available, load
from genre.paths import Paths

CHUNKS = Path("chunks")
VECTORS = Path("pickled_vectors")
TRAINING = Path("training")
EVALUATION = Path("evaluation")
SHOWN = ("dataset", "split", "extract", "train", "baselines", "ensemble", "query")  # what the models were made with


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: pickled_vectors/ and the models -> evaluation/."""
    parser = argparse.ArgumentParser(prog="python -m stages.evaluate", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    models = available()
    if not models:
        raise ModelError("there is no model to evaluate: run `dvc repro`")
    test = arrays.read(VECTORS, "test")
    digest = arrays.read_settings(VECTORS)["digest"]
    settings = params.load()
    cache = Cache(Paths().cache, settings.cache.max_bytes)
    predictors = {model: load(model, cache=cache) for model in models}
    for model, predictor in predictors.items():
        if predictor.card.settings["digest"] != digest or predictor.card.genres != test.genres:
            raise ModelError(f"the model {model} was made from other vectors than {VECTORS}/: run `dvc repro`")
    samples = _Samples(test)
    peers = [predictor for predictor in predictors.values() if isinstance(predictor, baselines.Loaded)]
    for embedding in {peer.fitted.embedding for peer in peers if peer.needs_samples}:  # on all cores, to be found later
        embeddings.of_files(embedding, samples.paths, cache=cache, workers=settings.parallel.workers)
    metrics = {}
    results = []
    for model, predictor in tqdm(predictors.items(), desc="evaluate", unit="model", disable=not sys.stderr.isatty()):
        probabilities = predictor.predict(test.inputs, samples if predictor.needs_samples else ())
        metrics[model] = evaluation.scores(probabilities, test.labels, test.songs)
        predictions = evaluation.by_song(probabilities, test.labels, test.songs)
        _write_model(EVALUATION / model, predictions, test, probabilities)
        results.append(ModelResult(model, metrics[model], predictions, predictor.card.unknown))
        print(_line(model, metrics[model]))
    files.write_json(EVALUATION / "metrics.json", metrics)
    files.write_text(EVALUATION / "report.html", _report(results, test, settings))
    cache.trim()
    return 0


def _report(results: Sequence[ModelResult], test: VectorSet, settings: params.Params) -> str:
    described = dataset_card.describe(
        settings.dataset.name,
        CHUNKS,
        genres=test.genres,
        chunk_seconds=settings.split.chunk_seconds,
    )
    versions = cards.read("merged").versions | cards.installed_versions(("onnxruntime", "scikit-learn"))
    return report.render(
        sorted(results, key=lambda result: -result.scores["song_accuracy"]),
        report.Made(
            described,
            params.as_yaml(settings, *SHOWN),
            versions | {"vectors (SHA-256)": dataset_card.digest(VECTORS)},
            test.genres,
        ),
        curves={model: found for model in networks.MODELS if (found := _curves(model))},
    )


def _curves(model: str) -> dict[str, dict[str, list[float]]]:
    """Return the learning curves that training left, by measure and side."""
    found: dict[str, dict[str, list[float]]] = {}
    for measure in ("loss", "accuracy"):
        for part, side in (("train", "training"), ("eval", "validation")):
            path = TRAINING / model / "plots" / "metrics" / part / f"{measure}.tsv"
            if path.is_file():
                with path.open(encoding="utf-8", newline="") as stream:
                    rows = csv.DictReader(stream, delimiter="\t")
                    found.setdefault(measure, {})[side] = [float(row[measure]) for row in rows]
    return found


class _Samples(Sequence[npt.NDArray[np.int16]]):
    """The samples of the test chunks, read when they are needed."""

    def __init__(self, test: VectorSet) -> None:
        rows = [row for row in manifest.read(CHUNKS) if row.split == "test"]
        if [row.song_id for row in rows] != test.songs:
            raise ModelError(f"{VECTORS}/ was not made from {CHUNKS}/{manifest.INDEX_NAME}: run `dvc repro vectorize`")
        self.paths = [CHUNKS / row.chunk for row in rows]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, position: Any) -> Any:
        return chunks.read(self.paths[position])[0]


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
    plots.write(folder / "confusion_matrix.png", plots.confusion(matrix, genres))


def _line(model: str, scored: dict[str, float]) -> str:
    return (
        f"evaluate: {model}: songs {scored['song_accuracy']:.1%}"
        f" ({scored['song_accuracy_low']:.1%} to {scored['song_accuracy_high']:.1%}, n = {scored['n_songs']:.0f}),"
        f" chunks {scored['chunk_accuracy']:.1%} (n = {scored['n_chunks']:.0f})"
    )


if __name__ == "__main__":
    run_command(main)
