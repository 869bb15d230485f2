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
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre import files, params, terminal
from genre.audio import manifest
from genre.cache import Cache
from genre.cli import argument_parser, integer, run_command
from genre.errors import ModelError
from genre.evaluation import comparison, plots, recording, report
from genre.evaluation.comparison import Fold, Outcome
from genre.evaluation.metrics import Result
from genre.features import arrays
from genre.models import baselines, cards, embeddings, keras_backend, networks
from genre.models.baselines import BASELINES, embedding_name
from genre.models.calibration import calibrate
from genre.models.cards import ENSEMBLE
from genre.models.training import fit
from genre.models.vote import middle_rows
from genre.paths import Paths

LSTM = "lstm2016_"  # prefix of the models with the architecture of 2016
SOURCES = ("audio", "features", "models")  # packages of genre/ that change an outcome

Arrays = Mapping[str, npt.NDArray[np.float32]]  # by name of feature or embedding [shape=(rows, ...)]
Tables = Mapping[str, Sequence[Mapping[str, str | float]]]  # rows, by name


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison and write comparison/."""
    options = vars(_parser().parse_args(argv))  # those that are given
    settings, paths = params.load(), Paths()
    settings = settings.model_copy(update={"compare": settings.compare.model_copy(update=options)})
    setup = Setup(settings, paths)
    names = [*networks.MODELS, *(LSTM + model for model in networks.MODELS), *BASELINES]
    if unknown := [model for model in setup.models if model not in names]:
        raise ModelError(f"compare.models: unknown model {unknown[0]}; choose from {', '.join([*names, ENSEMBLE])}")
    data, folds = setup.data, setup.folds(setup.data.groups)
    for name in setup.embeddings:
        setup.embed(name)  # once for all folds
    setup.changed(setup.middle, settings.parallel.workers)  # fills the cache
    counts, seed = settings.compare.songs_per_genre, settings.compare.seed
    every_fold = folds + comparison.with_few_songs(folds, counts, data, seed=seed)
    if settings.split.group_by and settings.compare.split == "folds":
        every_fold += [fold._replace(by_song=True) for fold in setup.folds(data.songs)]
    outcomes = _outcomes(every_fold, setup)
    if ENSEMBLE in settings.compare.models:
        averaged = {model: outcomes[model] for model in settings.ensemble.models}
        outcomes[ENSEMBLE] = comparison.ensemble(averaged, every_fold, data)
    middle = np.concatenate([setup.middle_of(fold) for fold in folds])
    stressed = []
    for model, of_model in outcomes.items():
        parts = [outcome.probabilities[len(fold.test) :] for fold, outcome in zip(folds, of_model, strict=False)]
        stressed += recording.stress_rows(model, np.concatenate(parts), data.labels[middle], len(set(middle)))
    values = recording.properties(setup.rows, paths)
    outcomes[recording.RECORDING] = []
    for fold in every_fold:
        probabilities = recording.predict(values, setup.rows, fold.train, fold.test)
        outcomes[recording.RECORDING].append(Outcome(probabilities, np.zeros(3), fold.test[:0], probabilities[:0]))
    curve = comparison.curve(outcomes, every_fold, data)
    outcomes = {model: of_model[: len(folds)] for model, of_model in outcomes.items()}
    results = comparison.rank(outcomes, folds, data)
    _write(results, {"curve": curve, "stress": stressed}, setup)
    setup.cache.trim()
    return 0


class Setup:
    """The models to compare, the chunks that they are compared on, their embeddings, and the cache."""

    def __init__(self, settings: params.Params, paths: Paths) -> None:
        self.settings, self.paths = settings, paths
        self.cache = Cache(paths.cache, settings.cache.max_bytes)
        self.rows = sorted(manifest.read(paths.chunks), key=lambda row: row.split != "train")  # as in the vectors
        self.data = arrays.read_all(paths.vectors, self.rows)
        self.chunk_files = np.array([paths.chunks / row.chunk for row in self.rows])
        self.middle = middle_rows(self.data.songs)
        averaged = settings.ensemble.models if ENSEMBLE in settings.compare.models else []
        self.models = [name for name in dict.fromkeys([*settings.compare.models, *averaged]) if name != ENSEMBLE]
        of_baselines = (embedding_name(name, settings.musicnn) for name in self.models if name in BASELINES)
        self.embeddings = sorted(set(of_baselines))

    def folds(self, groups: Sequence[str]) -> list[Fold]:
        """Return the folds of params.yaml, given the group of each chunk."""
        options = self.settings.compare
        if options.split == "folds":
            counts = {"n_folds": options.folds, "n_repeats": options.repeats}
            return comparison.folds(self.data.labels, groups, seed=options.seed, **counts)
        train, test = np.split(np.arange(len(groups)), [sum(row.split == "train" for row in self.rows)])
        return [Fold(repeat, 0, train, test) for repeat in range(options.repeats)]

    def middle_of(self, fold: Fold) -> npt.NDArray[np.int64]:
        """Return the row of the middle chunk of each test song."""
        return self.middle[np.isin(self.middle, fold.test)]

    def changed(self, rows: npt.NDArray[np.int64], workers: int | None) -> Arrays:
        """Return `recording.changed_inputs` of some chunks for all models."""
        embedders = [embeddings.load(name, self.paths) for name in self.embeddings]
        return recording.changed_inputs(self.chunk_files[rows].tolist(), embedders, self.cache, workers)

    def embed(self, name: str) -> tuple[embeddings.Vectors, embeddings.Vectors, float]:
        """Return embeddings of all chunks, those of each song's middle chunk at other levels, and seconds per chunk.

        Shapes: (n_chunks, n_values) and (n_levels * n_songs, n_values). They are cached.
        """
        embedder = embeddings.load(name, self.paths, cache=self.cache)
        digest = arrays.digest(self.paths.vectors)
        key = files.digest("compare embedding", embedder.describe(), digest, _sources())
        if (kept := self.cache.recall(key)) is None:
            chunk_files, middle = self.chunk_files.tolist(), self.chunk_files[self.middle].tolist()
            vectors = embedder.of_chunks(self.data.inputs, chunk_files, 1)
            copies = embedder.of_files(middle, gains_db=baselines.GAINS_DB, workers=1)
            uncached = embeddings.load(name, self.paths)
            start = time.perf_counter()
            uncached.of_chunks(self.data.at([0]).inputs, chunk_files[:1], 1)
            chunk_s = np.array(time.perf_counter() - start)
            kept = self.cache.keep(key, files.npz(vectors=vectors, copies=copies, chunk_s=chunk_s))
        loaded = files.read_npz(kept)
        return loaded["vectors"], loaded["copies"], float(loaded["chunk_s"])


def train_and_predict(job: tuple[str, Fold], *, settings: params.Params, paths: Paths) -> bytes:
    """Train a model on the training chunks of a fold and predict its test chunks; return the outcome as npz."""
    (model, fold), setup = job, Setup(settings, paths)
    stressed = fold.songs_per_genre is None and not fold.by_song
    changed = setup.changed(setup.middle_of(fold), 1) if stressed else {}
    train = _train_baseline if model in BASELINES else _train_network
    return files.npz(**train(model, fold, setup, changed)._asdict())


def _train_network(model: str, fold: Fold, setup: Setup, changed: Arrays) -> Outcome:
    keras_backend.prepare()
    features, data, settings = model.removeprefix(LSTM), setup.data, setup.settings
    changes = {"architecture": "lstm2016", "members": 1} if model.startswith(LSTM) else {}
    config = settings.train.model_copy(update={**changes, "seed": settings.compare.seed + fold.repeat})
    start = time.perf_counter()
    with terminal.quiet():
        trained = fit(data.at(fold.train), config, model=features)
        train_end = time.perf_counter()
        arrays_of = {name: data.inputs[name] for name in networks.MODELS[features]}
        test = {n: np.concatenate([a[fold.test], changed.get(n, a[:0])]) for n, a in arrays_of.items()}
        outputs = np.asarray(trained.model.predict(test, batch_size=32, verbose=0), np.float32)
    chunk_s = (time.perf_counter() - train_end) / len(outputs)
    costs = np.array([train_end - start, chunk_s, 4 * trained.model.count_params()])
    return Outcome(calibrate(outputs, trained.calibration), costs, *trained.validation)


def _train_baseline(model: str, fold: Fold, setup: Setup, changed: Arrays) -> Outcome:
    name, data, seed = embedding_name(model, setup.settings.musicnn), setup.data, setup.settings.compare.seed
    vectors, copies, chunk_s = setup.embed(name)
    copies = copies[np.tile(np.isin(setup.middle, fold.train), len(baselines.GAINS_DB))]
    start = time.perf_counter()
    trained = baselines.train(model, vectors[fold.train], data.at(fold.train), copies=copies, seed=seed + fold.repeat)
    train_end = time.perf_counter()
    outputs = baselines.predict(trained.onnx, np.concatenate([vectors[fold.test], changed.get(name, vectors[:0])]))
    chunk_s += (time.perf_counter() - train_end) / len(outputs)
    costs = np.array([train_end - start, chunk_s, len(trained.onnx)])
    return Outcome(calibrate(outputs, trained.calibration), costs, *trained.validation)


def _outcomes(folds: Sequence[Fold], setup: Setup) -> dict[str, list[Outcome]]:
    """Return the outcomes of each model on all folds; what is not in the cache is computed."""
    settings, paths = setup.settings, setup.paths
    versions = cards.installed_versions(report.PACKAGES)
    common = [settings.compare.seed, arrays.digest(paths.vectors), _sources(), versions]
    jobs = []
    for model in setup.models:
        of_model = embedding_name(model, settings.musicnn) if model in BASELINES else settings.train.model_dump()
        for fold in folds:
            rows = fold.train.tolist(), fold.test.tolist()
            key = files.digest("compare", model, fold.repeat, fold.by_song, *rows, [*common, of_model])
            jobs.append((key, (model, fold)))
    train = functools.partial(train_and_predict, settings=settings, paths=paths)
    results = setup.cache.run(train, jobs, description="compare", unit="fold", workers=settings.parallel.workers)
    outcomes = [Outcome(**files.read_npz(data)) for data in results]
    return {model: outcomes[i * len(folds) : (i + 1) * len(folds)] for i, model in enumerate(setup.models)}


def _sources() -> str:
    """Return one SHA-256 of the sources that outcomes depend on: all files of `SOURCES`, and those that train."""
    package = Path(files.__file__).parent
    paths = [path for name in SOURCES for path in sorted((package / name).rglob("*.*")) if path.suffix != ".pyc"]
    paths += [Path(comparison.__file__), Path(recording.__file__), Path(__file__)]
    return files.digest([files.sha256(path) for path in paths])


def _parser() -> argparse.ArgumentParser:
    parser, default = argument_parser(__doc__), argparse.SUPPRESS
    parser.add_argument("--models", nargs="+", default=default, metavar="MODEL", help="default: compare.models")
    for name, least in (("folds", 2), ("repeats", 1)):
        parser.add_argument(f"--{name}", type=integer(least, 1000), default=default, help=f"default: compare.{name}")
    return parser


def _write(results: Sequence[Result], more: Tables, setup: Setup) -> None:
    """Write the results as CSV, JSON, Markdown, PNG and HTML; print the Markdown table."""
    data, settings, paths, folder = setup.data, setup.settings, setup.paths, setup.paths.comparison
    summaries = {result.model: result.scores for result in results}
    scores = [{"model": model, **summary} for model, summary in summaries.items()]
    report.write_tables(folder, results, data.genres, results=scores, **more)
    described = {
        "dataset": settings.dataset.name,
        "vectors": arrays.digest(paths.vectors),
        "split": settings.compare.model_dump(exclude={"models"}),
        "songs": len(set(data.songs)),
        "chunks": len(data.songs),
        "genres": data.genres,
        "ensemble": list(settings.ensemble.models),
        "models": summaries,
    }
    files.write_json(folder / "results.json", described)
    files.write_bytes(folder / "song_accuracy.png", plots.png(plots.intervals(summaries)))
    ensemble = settings.ensemble.models if ENSEMBLE in summaries else []
    values = {"options": settings.compare, "group_by": settings.split.group_by, "ensemble": ensemble, **more}
    basis = report.provenance(settings, paths, data.genres)
    files.write_text(folder / "report.html", report.html("comparison.html", results, basis, **values))
    table = report.markdown(results)
    files.write_text(folder / "table.md", table)
    print(table, end="")


if __name__ == "__main__":
    run_command(main)
