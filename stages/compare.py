"""Compare models on identical folds by song: accuracy with intervals, calibration, paired tests, time and size.

    python -m stages.compare
    python -m stages.compare --models merged stats_svm --repeats 1

Reads pickled_vectors/ and chunks/ of the data set, trains every model on every fold, writes comparison/. What is
finished is kept in .cache/compare/ and not done again: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import io
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre import files, params
from genre.audio import chunks, manifest
from genre.cli import run_command
from genre.errors import ModelError
from genre.evaluation import comparison, dataset_card, plots, report
from genre.evaluation.comparison import Fold, Outcome
from genre.evaluation.metrics import SongPrediction
from genre.evaluation.report import ModelResult
from genre.features import arrays as vectors
from genre.features.arrays import VectorSet
from genre.models import baselines, cards, embeddings, networks
from genre.models.ensemble import Validation
from genre.parallel import all_or_error, run

CHUNKS = Path("chunks")
VECTORS = Path("pickled_vectors")
COMPARISON = Path("comparison")
CACHE = Path(".cache") / "compare"
LSTM = "lstm2016_"  # before the name of a model: the same features in the networks of 2016
ENSEMBLE = "ensemble"
# What changes results when it changes, below genre/
SOURCES = (
    "features/mel.py",
    *(f"models/{name}.py" for name in ("networks", "training", "baselines", "classifiers", "embeddings", "musicnn")),
)
SHOWN = ("dataset", "split", "extract", "train", "compare", "ensemble")  # what the models are made with
METRICS = ("song_accuracy", "log_loss", "ece")  # few: each is a column of `dvc exp show` for every model
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "scikit-learn", "xgboost", "xgboost-cpu", "librosa")
COLUMNS = {key: name for key, name in report.COMPARISON_COLUMNS.items() if key not in ("interval", "p_against_best")}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the comparison and write comparison/."""
    settings = params.load()
    asked = settings.compare.model_copy(update=vars(_parser(settings.compare).parse_args(argv)))
    settings = settings.model_copy(update={"compare": asked})
    data = _data()
    ensemble = settings.ensemble.models if ENSEMBLE in asked.models else []
    names = list(dict.fromkeys([name for name in asked.models if name != ENSEMBLE] + ensemble))
    for name in names:
        _check_name(name)
    tested = _folds(data, asked)
    work = [_Work(name, fold, settings.compare.seed, settings.train) for name in names for fold in tested]
    _embed_all(names)
    outcomes: dict[str, list[Outcome]] = {name: [] for name in names}
    results = run(_run, work, description="compare", unit="fold", workers=settings.parallel.workers, known=_finished)
    for item, result in zip(work, all_or_error(results), strict=True):
        outcomes[item.model].append(result)
    if ensemble:
        members = {name: outcomes[name] for name in ensemble}
        outcomes[ENSEMBLE] = comparison.ensemble(members, tested, data.labels, data.songs)
    _write(data, tested, {name: outcomes[name] for name in [*names, ENSEMBLE] if name in outcomes}, settings)
    return 0


def _parser(defaults: params.CompareParams) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.compare", description="Compare models on identical folds by song."
    )
    parser.add_argument("--models", nargs="+", default=defaults.models, metavar="MODEL", help="default: compare.models")
    parser.add_argument("--folds", type=int, default=defaults.folds, help="default: compare.folds (%(default)s)")
    parser.add_argument("--repeats", type=int, default=defaults.repeats, help="default: compare.repeats (%(default)s)")
    return parser


def _check_name(name: str) -> None:
    known = [*networks.MODELS, *(LSTM + model for model in networks.MODELS), *baselines.BASELINES]
    if name not in known:
        raise ModelError(f"there is no model {name} to compare: choose from {', '.join([*known, ENSEMBLE])}")


@functools.cache
def _data() -> VectorSet:
    """Return all chunks of the data set: those of train, then those of test."""
    train, test = vectors.read(VECTORS, "train"), vectors.read(VECTORS, "test")
    return VectorSet(
        {feature: np.concatenate([train.inputs[feature], test.inputs[feature]]) for feature in train.inputs},
        np.concatenate([train.labels, test.labels]),
        train.songs + test.songs,
        train.genres,
    )


def _folds(data: VectorSet, asked: params.CompareParams) -> list[Fold]:
    if asked.split == "folds":
        made = comparison.folds(data.labels, data.songs, n_folds=asked.folds, n_repeats=asked.repeats, seed=asked.seed)
    else:
        n_train = len(vectors.read(VECTORS, "train").songs)
        rows = np.arange(len(data.songs))
        made = [Fold(repeat, 0, rows[:n_train], rows[n_train:]) for repeat in range(asked.repeats)]
    for fold in made:
        if both := {data.songs[row] for row in fold.train} & {data.songs[row] for row in fold.test}:
            raise ModelError(f"{min(both)} would be in training and in test: this must not happen")
    return made


@dataclass(frozen=True, slots=True)
class _Work:
    """One model on one fold."""

    model: str
    fold: Fold
    seed: int
    train: params.TrainParams

    @property
    def path(self) -> Path:
        """Where the outcome is kept: named by everything that it depends on."""
        key = files.digest(
            self.model,
            self.fold.repeat,
            self.fold.train.tolist(),
            self.fold.test.tolist(),
            self.seed,
            self.train.model_dump() if self.model not in baselines.BASELINES else None,
            _digest_of_data(),
            _digest_of_sources(),
        )
        return CACHE / f"{key}.npz"


def _run(work: _Work) -> Outcome:
    """Train one model on the training songs of one fold and predict the test songs; keep the outcome."""
    runner = _run_baseline if work.model in baselines.BASELINES else _run_keras
    outcome = runner(work, _data())
    stream = io.BytesIO()
    figures = [outcome.train_seconds, outcome.predict_seconds, outcome.size_bytes]
    arrays = {"probabilities": outcome.probabilities, "figures": np.array(figures)}
    if outcome.validation is not None:
        arrays |= {"validation_rows": outcome.validation.rows, "validation": outcome.validation.probabilities}
    np.savez(stream, **arrays)  # type: ignore[arg-type]
    files.write_bytes(work.path, stream.getvalue())
    return outcome


def _finished(work: _Work) -> Outcome | None:
    try:
        with np.load(work.path, allow_pickle=False) as found:
            train_seconds, predict_seconds, size_bytes = found["figures"].tolist()
            validation = Validation(found["validation_rows"], found["validation"]) if "validation" in found else None
            return Outcome(found["probabilities"], train_seconds, predict_seconds, int(size_bytes), validation)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError):  # damaged: it is done again
        return None


def _run_keras(work: _Work, data: VectorSet) -> Outcome:
    from genre.models import keras_backend

    keras_backend.prepare()
    import keras

    from genre.models.training import fit

    keras.backend.clear_session()
    lstm = work.model.startswith(LSTM)
    model = work.model.removeprefix(LSTM)
    options: dict[str, Any] = params.flat(work.train) | ({"architecture": "lstm2016", "members": 1} if lstm else {})
    options["seed"] = work.seed + work.fold.repeat
    train, test = work.fold.train, work.fold.test
    began = time.perf_counter()
    with keras_backend.quiet():
        trained = fit(
            {feature: array[train] for feature, array in data.inputs.items()},
            data.labels[train],
            [data.songs[row] for row in train],
            model=model,
            n_genres=len(data.genres),
            **options,
        )
        trained_after = time.perf_counter()
        inputs = {feature: data.inputs[feature][test] for feature in networks.MODELS[model]}
        probabilities = np.asarray(trained.model.predict(inputs, batch_size=32, verbose=0), np.float32)
    done = time.perf_counter()
    size = 4 * int(trained.model.count_params())
    return Outcome(probabilities, trained_after - began, done - trained_after, size, trained.validation)


def _run_baseline(work: _Work, data: VectorSet) -> Outcome:
    name = baselines.get(work.model).embedding
    embedded, seconds_per_chunk = _embedded(name)
    train, test = work.fold.train, work.fold.test
    began = time.perf_counter()
    fitted = baselines.fit(
        work.model,
        embedded[train],
        data.labels[train],
        [data.songs[row] for row in train],
        n_genres=len(data.genres),
        seed=work.seed + work.fold.repeat,
    )
    trained_after = time.perf_counter()
    probabilities = fitted.predict(embedded[test])
    seconds = time.perf_counter() - trained_after + seconds_per_chunk * len(test)
    size = len(fitted.classifier.to_bytes())
    return Outcome(probabilities, trained_after - began, seconds, size, fitted.validation)


def _embed_all(names: Sequence[str]) -> None:
    """Make the embeddings that the baselines need, each once for all folds."""
    for name in dict.fromkeys(baselines.get(n).embedding for n in names if n in baselines.BASELINES):
        _embedded(name)


@functools.cache
def _embedded(name: str) -> tuple[npt.NDArray[np.float32], float]:
    """Return the vectors of all chunks, and the seconds that one takes, from .cache/ or made now."""
    path = CACHE / f"{files.digest(embeddings.describe(name), _digest_of_data(), _digest_of_sources())}.npz"
    if path.is_file():
        with np.load(path, allow_pickle=False) as found:
            return found["vectors"], float(found["seconds"])
    print(f"compare: embedding {name}", file=sys.stderr)
    began = time.perf_counter()
    made = embeddings.embed(name, features=embeddings.each_chunk(_data().inputs), audio=_audio())
    seconds = (time.perf_counter() - began) / len(made)
    stream = io.BytesIO()
    np.savez(stream, vectors=made, seconds=np.array(seconds))
    files.write_bytes(path, stream.getvalue())
    return made, seconds


def _audio() -> Iterator[tuple[npt.NDArray[np.int16], int]]:
    """Yield samples and sample rate of all chunks, in the order of the vectors."""
    for row in sorted(manifest.read(CHUNKS), key=lambda row: row.split != "train"):
        yield chunks.read(CHUNKS / row.chunk)


@functools.cache
def _digest_of_data() -> str:
    return dataset_card.digest(VECTORS)


@functools.cache
def _digest_of_sources() -> str:
    folder = Path(__file__).parent.parent / "genre"
    return hashlib.sha256("".join(files.sha256(folder / name) for name in SOURCES).encode()).hexdigest()


def _write(
    data: VectorSet, tested: Sequence[Fold], outcomes: Mapping[str, Sequence[Outcome]], settings: params.Params
) -> None:
    """Write the figures as CSV, JSON, a Markdown table, a picture and a report; print the table."""
    scored: dict[str, dict[str, float]] = {}
    rates: dict[str, dict[str, float]] = {}
    for name, found in outcomes.items():
        scored[name], rates[name] = comparison.summarise(found, tested, data.labels, data.songs)
    ranked = sorted(scored, key=lambda name: -scored[name]["song_accuracy"])
    for name in ranked:
        scored[name]["p_against_best"] = comparison.paired_p_value(rates[name], rates[ranked[0]])
    keys = list(scored[ranked[0]])
    files.write_table(
        COMPARISON / "results.csv",
        ["model", *keys],
        ([name, *(f"{scored[name][key]:.6g}" for key in keys)] for name in ranked),
    )
    described = {
        "dataset": settings.dataset.name,
        "vectors": _digest_of_data(),
        "split": settings.compare.model_dump(exclude={"models"}),
        "songs": len(set(data.songs)),
        "chunks": len(data.songs),
        "genres": data.genres,
        "ensemble": list(settings.ensemble.models),
        "models": {name: scored[name] for name in ranked},
    }
    files.write_json(COMPARISON / "results.json", described)
    metrics = {name: {key: scored[name][key] for key in METRICS} for name in ranked}
    files.write_json(COMPARISON / "metrics.json", metrics)
    table = _table(scored, ranked)
    files.write_text(COMPARISON / "table.md", table)
    plots.write(COMPARISON / "song_accuracy.png", plots.intervals({name: scored[name] for name in ranked}))
    said = {name: comparison.predictions(outcomes[name], tested, data.labels, data.songs) for name in ranked}
    _write_predictions(said, data.genres)
    results = [ModelResult(name, scored[name], [p for repeat in said[name] for p in repeat]) for name in ranked]
    files.write_text(COMPARISON / "report.html", _report(results, data, settings))
    print(table, end="")


def _write_predictions(said: Mapping[str, Sequence[Sequence[SongPrediction]]], genres: Sequence[str]) -> None:
    """Write what each model said of each song in each repeat."""
    for name, repeats in said.items():
        files.write_table(
            COMPARISON / "predictions" / f"{name}.csv",
            ["repeat", "song", "actual", "predicted", "confidence", "chunks", *genres],
            (
                [repeat, p.song, genres[p.actual], genres[p.predicted], f"{p.confidence:.6f}", p.n_chunks]
                + [f"{value:.6f}" for value in p.probabilities]
                for repeat, predictions in enumerate(repeats)
                for p in predictions
            ),
        )
    files.remove_others(COMPARISON / "predictions", {COMPARISON / "predictions" / f"{name}.csv" for name in said})


def _report(results: Sequence[ModelResult], data: VectorSet, settings: params.Params) -> str:
    of_folds, n_repeats = settings.compare.split == "folds", settings.compare.repeats
    explained = f"{settings.compare.folds} folds by song" if of_folds else "Training songs against test songs"
    if n_repeats > 1:
        explained += f", {n_repeats} times with other {'folds and seeds' if of_folds else 'seeds'}"
    with_ensemble = any(result.name == ENSEMBLE for result in results)
    return report.render_comparison(
        results,
        report.Made(
            dataset_card.describe(
                settings.dataset.name,
                CHUNKS,
                genres=data.genres,
                chunk_seconds=settings.split.chunk_seconds,
                divided=not of_folds,
            ),
            params.as_yaml(settings, *SHOWN),
            cards.installed_versions(PACKAGES) | {"vectors (SHA-256)": _digest_of_data()},
            data.genres,
        ),
        explained=explained + ".",
        n_repeats=n_repeats,
        ensemble=settings.ensemble.models if with_ensemble else [],
    )


def _table(scored: Mapping[str, Mapping[str, float]], ranked: Sequence[str]) -> str:
    lines = [f"| model | {' | '.join(COLUMNS.values())} | p |", "|" + "---|" * (len(COLUMNS) + 2)]
    for name in ranked:
        row = scored[name]
        cells = []
        for key in COLUMNS:
            if key == "song_accuracy":
                cells.append(f"{row[key]:.1%} ({row['song_accuracy_low']:.1%}-{row['song_accuracy_high']:.1%})")
            elif key == "chunk_accuracy":
                cells.append(f"{row[key]:.1%}")
            else:
                cells.append(f"{row[key]:.3g}")
        p = "" if name == ranked[0] else f"{row['p_against_best']:.3f}"
        lines.append(f"| {name} | {' | '.join(cells)} | {p} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    run_command(main)
