"""Score the trained models on the test songs, with the ONNX files that query uses.

python -m stages.evaluate
dvc repro evaluate      with the stages before it, if they changed
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from genre import files, params, terminal
from genre.audio import manifest
from genre.cache import Cache
from genre.cli import argument_parser, run_command
from genre.errors import ModelError
from genre.evaluation import metrics, plots, recording, report
from genre.features import arrays
from genre.models import embeddings, networks, predict
from genre.models.cards import ENSEMBLE
from genre.models.vote import middle_rows
from genre.paths import Paths

LINE = (
    "evaluate: {}: songs {song_accuracy:.1%} ({song_accuracy_low:.1%} to {song_accuracy_high:.1%}, n = {n_songs:.0f}),"
    " chunks {chunk_accuracy:.1%} (n = {n_chunks:.0f})"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: pickled_vectors/, chunks/ and the models -> evaluation/, scores/."""
    argument_parser(__doc__).parse_args(argv)
    settings, paths = params.load(), Paths()
    test = arrays.read(paths.vectors, "test")
    chunk_paths = manifest.chunk_files(paths.chunks, "test", test.songs)
    cache = Cache(paths.cache, settings.cache.max_bytes)
    models = [*networks.MODELS, *settings.baselines.models, ENSEMBLE]
    vectors = arrays.digest(paths.vectors)
    predictors = [_load(model, vectors, paths, cache) for model in models]
    names = dict.fromkeys(predictor.card.embedding["name"] for predictor in predictors if predictor.card.embedding)
    loaded = [embeddings.load(name, paths, cache=cache) for name in names]
    embedders, workers = [embedder for embedder in loaded if embedder.needs_audio], settings.parallel.workers
    batch = embeddings.Batch(test.inputs | {e.name: e.of_files(chunk_paths, workers=workers) for e in embedders})
    rows = manifest.read(paths.chunks)
    train, tested = (np.flatnonzero([row.split == split for row in rows]) for split in manifest.SPLITS)
    outputs = {recording.RECORDING: recording.predict(recording.properties(rows, paths), rows, train, tested)}
    for predictor in terminal.progress(predictors, desc="evaluate", unit="model"):
        outputs[predictor.card.model] = predictor.predict(batch)
    results = []
    for model, probabilities in outputs.items():
        predictions = metrics.by_song(probabilities, test.labels, test.songs)
        results.append(metrics.Result(model, metrics.scores(predictions), [predictions]))
        print(LINE.format(model, **results[-1].scores))
    middle, stressed = middle_rows(test.songs), []
    middle_paths = [chunk_paths[row] for row in middle]
    changed = embeddings.Batch(recording.changed_inputs(middle_paths, embedders, cache, workers))
    for predictor in predictors:
        answers = predictor.predict(changed)
        stressed += recording.stress_rows(predictor.card.model, answers, test.labels[middle], len(middle))
    _write(results, stressed, report.provenance(settings, paths, test.genres), paths)
    files.write_json(paths.evaluated, {name: files.sha256(paths.card(name)) for name in models})
    cache.trim()
    return 0


def _write(results: Sequence[metrics.Result], stressed: list[Any], basis: report.Provenance, paths: Paths) -> None:
    """Write evaluation/ and scores/."""
    folder, genres = paths.evaluation, basis.genres
    curves = report.learning_curves({model: paths.training(model) for model in networks.MODELS})
    report.write_tables(folder, results, genres, stress=stressed, curves=curves)
    files.write_json(folder / "metrics.json", {result.model: result.scores for result in results})
    figures = {"learning curves": plots.curves(curves)} if len(curves) else {}
    for result in results:
        files.write_json(paths.scores / f"{result.model}.json", dvc_metrics(result, paths))
        matrix = metrics.confusion_matrix(result.predictions, len(genres))
        figures[result.model] = plots.confusion(matrix, genres, result.model)
    images = {name: plots.png(figure) for name, figure in figures.items()}
    for name, image in images.items():
        files.write_bytes(folder / "plots" / f"{name}.png", image)
    default = predict.default_card(paths).model
    ranked = sorted(results, key=lambda result: -result.scores["song_accuracy"])
    values = {"stress": stressed, "curves": curves, "images": images, "default": default}
    html = report.html("evaluation.html", ranked, basis, **values)
    files.write_text(folder / "report.html", html)


def dvc_metrics(result: metrics.Result, paths: Paths) -> dict[str, float]:
    """Return the metrics of a model that DVC shows; networks also have the loss of their validation songs."""
    keys = {"accuracy": "song_accuracy", "low": "song_accuracy_low", "high": "song_accuracy_high", "n": "n_songs"}
    scores = {name: result.scores[keys.get(name, name)] for name in (*keys, "log_loss", "ece")}
    with contextlib.suppress(FileNotFoundError, KeyError):
        scores["validation_loss"] = files.read_json(paths.training(result.model) / "metrics.json")["eval"]["loss"]
    return scores


def _load(model: str, vectors: str, paths: Paths, cache: Cache) -> predict.Predictor:
    """Load a model; raise ModelError if it was trained with another split, whose training songs may be test songs."""
    predictor = predict.load(model, paths, cache=cache)
    if predictor.card.dataset.get("vectors") != vectors:
        raise ModelError(f"the model {model} was trained on other vectors than {paths.vectors}/: run `dvc repro`")
    return predictor


if __name__ == "__main__":
    run_command(main)
