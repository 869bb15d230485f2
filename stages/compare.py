"""Compare models on identical folds by song: accuracy with intervals, calibration, paired tests, time and size.

    python -m stages.compare
    python -m stages.compare --models merged stats_svm --repeats 1

Reads pickled_vectors/ and chunks/, trains every model on every fold, writes comparison/. Finished folds are kept in
the cache, so an interrupted run resumes.
"""

from __future__ import annotations

import argparse
import functools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre import files, params
from genre.audio import chunks, manifest
from genre.audio.manifest import Row
from genre.cache import Cache
from genre.cli import integer, run_command
from genre.errors import ModelError
from genre.evaluation import comparison, plots, provenance, recording, report, stress
from genre.evaluation.comparison import Fold, Outcome
from genre.evaluation.metrics import Result
from genre.evaluation.recording import RECORDING
from genre.features import arrays
from genre.features.arrays import VectorSet
from genre.models import baselines, embeddings, networks
from genre.models.baselines import BASELINES, embedding_name
from genre.models.calibration import Validation, calibrate
from genre.models.cards import ENSEMBLE
from genre.models.embeddings import Vectors
from genre.models.vote import middle_rows
from genre.parallel import all_or_error, run
from genre.paths import Paths

LSTM = "lstm2016_"  # prefix of the models with the architecture of 2016
SOURCES = ("audio", "features", "models")  # packages of genre/ that change an outcome

Arrays = Mapping[str, npt.NDArray[np.float32]]  # by name of feature or embedding [shape=(rows, ...)]
Tables = Mapping[str, Sequence[Mapping[str, str | float]]]  # rows, by name


@dataclass(frozen=True, slots=True)
class Job:
    """One model on one fold."""

    model: str
    fold: Fold
    key: str  # digest of everything that the outcome depends on


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison and write comparison/."""
    settings, paths = params.load(), Paths()
    options = vars(_parser(settings.compare).parse_args(argv))
    settings = settings.model_copy(update={"compare": settings.compare.model_copy(update=options)})
    data = arrays.read_all(paths.vectors)
    folds = _folds(data, settings.compare, paths)
    cache = Cache(paths.cache, settings.cache.max_bytes)
    averaged = settings.ensemble.models if ENSEMBLE in settings.compare.models else []
    models = list(dict.fromkeys([*(name for name in settings.compare.models if name != ENSEMBLE), *averaged]))
    names = [*networks.MODELS, *(LSTM + model for model in networks.MODELS), *BASELINES]
    if unknown := [model for model in models if model not in names]:
        raise ModelError(f"compare.models: unknown model {unknown[0]}; choose from {', '.join([*names, ENSEMBLE])}")
    for model in set(models) & set(BASELINES):
        embed(embedding_name(model, settings.musicnn), data, paths, cache)  # once for all folds
    _changed(middle_rows(data.songs), settings, paths, cache, settings.parallel.workers)  # fills the cache
    counts, seed = settings.compare.songs_per_genre, settings.compare.seed
    few = comparison.with_few_songs(folds, counts, data.labels, data.songs, seed=seed)
    if settings.split.group_by and settings.compare.split == "folds":
        by_song = _folds(replace(data, groups=data.songs), settings.compare, paths)
        few += [replace(fold, by_song=True) for fold in by_song]
    outcomes = _outcomes(models, [*folds, *few], settings, paths, cache)
    if averaged:
        of_averaged = {model: outcomes[model] for model in averaged}
        outcomes[ENSEMBLE] = comparison.ensemble(of_averaged, [*folds, *few], data.labels, data.songs)
    middle = np.concatenate([_middle(fold, data) for fold in folds])
    stressed = []
    for model, of_model in outcomes.items():
        parts = [outcome.probabilities[len(fold.test) :] for fold, outcome in zip(folds, of_model, strict=False)]
        stressed += stress.rows(model, np.concatenate(parts), data.labels[middle], len(set(middle)))
    values = recording.properties(_rows(paths), paths)
    outcomes[RECORDING] = [_of_recording(values, fold, data) for fold in [*folds, *few]]
    curve = comparison.curve(outcomes, [*folds, *few], data.labels, data.songs) if few else []
    outcomes = {model: of_model[: len(folds)] for model, of_model in outcomes.items()}
    results = comparison.rank(outcomes, folds, data.labels, data.songs)
    _write(results, {"curve": curve, "stress": stressed}, data, settings, paths)
    cache.trim()
    return 0


def train_and_predict(job: Job, *, settings: params.Params, paths: Paths, cache: Cache) -> bytes:
    """Train one model on the training chunks of a fold, predict its test chunks, and keep the outcome in the cache."""
    data = arrays.read_all(paths.vectors)
    stressed = job.fold.songs_per_genre is None and not job.fold.by_song
    changed = _changed(_middle(job.fold, data), settings, paths, cache, 1) if stressed else {}
    train = _train_baseline if job.model in BASELINES else _train_network
    return cache.keep(job.key, train(job.model, job.fold, data, changed, settings, paths, cache).to_bytes())


def embed(name: str, data: VectorSet, paths: Paths, cache: Cache) -> tuple[Vectors, Vectors, float]:
    """Return the embeddings of all chunks, those of each song's middle chunk at other levels, and seconds per chunk.

    Shapes: (n_chunks, n_values) and (n_levels, n_songs, n_values). They are cached.
    """
    embedder = embeddings.load(name, paths, cache=cache)
    key = files.digest("compare embedding", embedder.describe(), provenance.digest(paths.vectors), _sources())
    if (kept := cache.recall(key)) is None:
        chunk_files = [paths.chunks / row.chunk for row in _rows(paths)]
        of_files = functools.partial(embedder.of_files, workers=1)
        vectors = of_files(chunk_files) if embedder.needs_audio else embedder.of_features(data.inputs)
        middle = [chunk_files[row] for row in middle_rows(data.songs)]
        copies = np.stack([of_files(middle, gain_db=gain_db) for gain_db in baselines.GAINS_DB])
        uncached, samples, start = embeddings.load(name, paths), chunks.read(chunk_files[0]), time.perf_counter()
        if uncached.needs_audio:
            uncached.of_audio(*samples)
        else:
            uncached.of_features(data.at([0]).inputs)
        kept = cache.keep(key, files.npz(vectors=vectors, copies=copies, chunk_s=np.array(time.perf_counter() - start)))
    loaded = files.read_npz(kept)
    return loaded["vectors"], loaded["copies"], float(loaded["chunk_s"])


def _rows(paths: Paths) -> list[Row]:
    """Return the rows of chunks/index.csv in the order of `read_all`."""
    return sorted(manifest.read(paths.chunks), key=lambda row: row.split != "train")


def _changed(
    rows: npt.NDArray[np.int64], settings: params.Params, paths: Paths, cache: Cache, workers: int | None
) -> Arrays:
    """Return `stress.inputs` of some chunks for all models."""
    models = {*settings.compare.models, *(settings.ensemble.models if ENSEMBLE in settings.compare.models else [])}
    names = {embedding_name(model, settings.musicnn) for model in models & set(BASELINES)}
    embedders = [embeddings.load(name, paths) for name in sorted(names)]
    index = _rows(paths)
    chunk_files = [paths.chunks / index[row].chunk for row in rows]
    return stress.inputs(chunk_files, embedders, cache, workers)


def _middle(fold: Fold, data: VectorSet) -> npt.NDArray[np.int64]:
    """Return the row of the middle chunk of each test song."""
    middle = middle_rows(data.songs)
    return middle[np.isin(middle, fold.test)]


def _of_recording(values: npt.NDArray[np.float64], fold: Fold, data: VectorSet) -> Outcome:
    probabilities = recording.predict(values, data.labels, data.songs, fold.train, fold.test)
    return Outcome(probabilities, Validation(fold.test[:0], probabilities[:0]), np.zeros(3))


def _train_network(
    model: str, fold: Fold, data: VectorSet, changed: Arrays, settings: params.Params, _paths: Paths, _cache: Cache
) -> Outcome:
    from genre.models import keras_backend

    keras_backend.prepare()
    from genre.models.training import fit

    features = model.removeprefix(LSTM)
    changes = {"architecture": "lstm2016", "members": 1} if model.startswith(LSTM) else {}
    config = settings.train.model_copy(update={**changes, "seed": settings.compare.seed + fold.repeat})
    start = time.perf_counter()
    with keras_backend.quiet():
        trained = fit(data.at(fold.train), config, model=features)
        train_end = time.perf_counter()
        arrays_of = {name: data.inputs[name] for name in networks.MODELS[features]}
        test = {n: np.concatenate([a[fold.test], changed.get(n, a[:0])]) for n, a in arrays_of.items()}
        outputs = np.asarray(trained.model.predict(test, batch_size=32, verbose=0), np.float32)
    chunk_s = (time.perf_counter() - train_end) / len(outputs)
    costs = np.array([train_end - start, chunk_s, 4 * trained.model.count_params()])
    return Outcome(calibrate(outputs, trained.calibration), trained.validation, costs)


def _train_baseline(
    model: str, fold: Fold, data: VectorSet, changed: Arrays, settings: params.Params, paths: Paths, cache: Cache
) -> Outcome:
    name = embedding_name(model, settings.musicnn)
    vectors, copies, chunk_s = embed(name, data, paths, cache)
    training = data.at(fold.train)
    start = time.perf_counter()
    trained = baselines.train(
        model,
        vectors[fold.train],
        training.labels,
        training.songs,
        n_genres=len(data.genres),
        groups=training.groups,
        copies=copies[:, np.isin(middle_rows(data.songs), fold.train)],
        seed=settings.compare.seed + fold.repeat,
    )
    train_end = time.perf_counter()
    outputs = baselines.predict(trained.onnx, np.concatenate([vectors[fold.test], changed.get(name, vectors[:0])]))
    chunk_s += (time.perf_counter() - train_end) / len(outputs)
    costs = np.array([train_end - start, chunk_s, len(trained.onnx)])
    return Outcome(calibrate(outputs, trained.calibration), trained.validation, costs)


def _outcomes(
    models: Sequence[str], folds: Sequence[Fold], settings: params.Params, paths: Paths, cache: Cache
) -> dict[str, list[Outcome]]:
    """Return the outcomes of each model on all folds; what is not in the cache is computed."""
    common = [settings.compare.seed, provenance.digest(paths.vectors), _sources()]
    jobs = [
        Job(model, fold, files.digest("compare", model, fold.repeat, fold.train.tolist(), fold.test.tolist(), config))
        for model in models
        for config in [[*common, _config(model, settings)]]
        for fold in folds
    ]
    kept = {job.key: cache.recall(job.key) for job in jobs}
    missing = [job for job in jobs if kept[job.key] is None]
    function = functools.partial(train_and_predict, settings=settings, paths=paths, cache=cache)
    results = run(function, missing, description="compare", unit="fold", workers=settings.parallel.workers)
    kept |= {job.key: data for job, data in zip(missing, all_or_error(results), strict=True)}
    outcomes: dict[str, list[Outcome]] = {model: [] for model in models}
    for job in jobs:
        outcomes[job.model].append(Outcome.from_bytes(kept[job.key] or b""))
    return outcomes


def _config(model: str, settings: params.Params) -> object:
    return embedding_name(model, settings.musicnn) if model in BASELINES else settings.train.model_dump()


def _sources() -> str:
    """Return one SHA-256 of the sources that outcomes depend on: all modules of `SOURCES`, and those that train."""
    package = Path(files.__file__).parent
    paths = [path for name in SOURCES for path in sorted((package / name).rglob("*.py"))]
    paths += [Path(comparison.__file__), Path(stress.__file__), Path(__file__)]
    return files.digest([files.sha256(path) for path in paths])


def _folds(data: VectorSet, options: params.CompareParams, paths: Paths) -> list[Fold]:
    if options.split == "folds":
        counts = {"n_folds": options.folds, "n_repeats": options.repeats}
        return comparison.folds(data.labels, data.groups, seed=options.seed, **counts)
    n_train = len(arrays.read(paths.vectors, "train").songs)
    if shared := set(data.groups[:n_train]) & set(data.groups[n_train:]):
        raise ModelError(f"{paths.vectors}/: {min(shared)} is in training and in test: run `dvc repro --force split`")
    rows = np.arange(len(data.songs))
    return [Fold(repeat, 0, rows[:n_train], rows[n_train:]) for repeat in range(options.repeats)]


def _parser(defaults: params.CompareParams) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.compare", description="Compare models on identical folds by song."
    )
    parser.add_argument("--models", nargs="+", default=defaults.models, metavar="MODEL", help="default: compare.models")
    parser.add_argument(
        "--folds", type=integer(2, 1000), default=defaults.folds, help="default: compare.folds (%(default)s)"
    )
    parser.add_argument(
        "--repeats", type=integer(1, 1000), default=defaults.repeats, help="default: compare.repeats (%(default)s)"
    )
    return parser


def _write(results: Sequence[Result], more: Tables, data: VectorSet, settings: params.Params, paths: Paths) -> None:
    """Write the results as CSV, JSON, Markdown, PNG and HTML; print the Markdown table."""
    folder = paths.comparison
    summaries = {result.model: result.scores for result in results}
    scores = [{"model": model, **summary} for model, summary in summaries.items()]
    report.write_tables(folder, results, data.genres, results=scores, **more)
    described = {
        "dataset": settings.dataset.name,
        "vectors": provenance.digest(paths.vectors),
        "split": settings.compare.model_dump(exclude={"models"}),
        "songs": len(set(data.songs)),
        "chunks": len(data.songs),
        "genres": data.genres,
        "ensemble": list(settings.ensemble.models),
        "models": summaries,
    }
    files.write_json(folder / "results.json", described)
    files.write_bytes(folder / "song_accuracy.png", plots.png(plots.intervals(summaries)))
    folds = f"{settings.compare.folds} folds by {'group' if settings.split.group_by else 'song'}"
    method = folds if settings.compare.split == "folds" else "Training songs against test songs"
    if settings.compare.repeats > 1:
        method += f", {settings.compare.repeats} repeats with other seeds"
    ensemble = settings.ensemble.models if ENSEMBLE in summaries else []
    basis = provenance.describe(settings, paths, data.genres)
    html = report.comparison_html(results, basis, method=f"{method}.", ensemble=ensemble, **more)
    files.write_text(folder / "report.html", html)
    table = report.comparison_markdown(results)
    files.write_text(folder / "table.md", table)
    print(table, end="")


if __name__ == "__main__":
    run_command(main)
