"""Results of an evaluation and of a comparison, with what they depend on: CSV, self-contained HTML pages, Markdown."""

from __future__ import annotations

import itertools
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import yaml

from genre import files, params
from genre.audio import corrections, manifest
from genre.evaluation import metrics, plots
from genre.features import arrays
from genre.models import cards
from genre.paths import Paths

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

SPLITS = {"train": "training", "eval": "validation"}  # names in the logs of training
MAX_ERRORS = 15  # rows in the table of errors
SECTIONS = {"dataset", "split", "extract", "train", "musicnn", "baselines", "ensemble", "compare"}  # of the parameters
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "onnxruntime", "scikit-learn", "xgboost", "xgboost-cpu")
LENGTH_TOLERANCE_S = 0.5 / 8_000  # half a sample at the lowest sample rate

# Issues that cannot be seen in the files, by the beginning of the data set's name.
KNOWN_ISSUES = {
    "demo": "The songs are synthetic: the scores do not carry over to real music.",
    "gtzan": "GTZAN has duplicates, wrong labels and few artists (Sturm 2013): scores without groups are optimistic.",
}


class Provenance(NamedTuple):
    """The data set, parameters and package versions that the scores depend on."""

    dataset: str
    genres: list[str]  # in the order of the class indices
    counts: Sequence[Mapping[str, Any]]  # for each genre, its songs and chunks in training and test
    artist_filter: str  # yes or no, with the groups
    issues: Sequence[str]  # one sentence each
    links: Mapping[str, str]  # by song: URL of the source file, relative to a folder beside chunks/
    parameters: str  # YAML
    versions: Mapping[str, str]


def provenance(settings: params.Params, paths: Paths, genres: list[str]) -> Provenance:
    """Return the provenance of a project's scores, by its corrections, chunks/index.csv and chunks/failures.csv.

    Raises DatasetError if the corrections or the index are damaged, or the index is missing.
    """
    name, chunk_s, group_by = settings.dataset.name, settings.split.chunk_seconds, settings.split.group_by
    rows = manifest.read(paths.chunks)
    issues = [issue for start, issue in KNOWN_ISSUES.items() if name.startswith(start)]
    if n_copies := len({row.song_id for row in rows}) - len({row.source_sha256 for row in rows}):
        issues.append(f"Songs whose file is that of another song: {n_copies} (`python -m stages.audit` lists them).")
    if corrected := [correction.genre for correction in corrections.read(paths.corrections(name))]:
        n_dropped = corrected.count(corrections.DROP)
        issues.append(f"Songs with a corrected genre: {len(corrected) - n_dropped}; dropped: {n_dropped}.")
    if n_failures := len(manifest.failures(paths.chunks)):
        issues.append(f"Files left out because decoding failed: {n_failures} (chunks/failures.csv).")
    if n_short := sum(row.seconds < chunk_s - LENGTH_TOLERANCE_S for row in rows):
        issues.append(f"Chunks shorter than {chunk_s:g} s, filled by repetition: {n_short}.")
    links = {row.song_id: "../" + urllib.parse.quote(os.fsencode(row.source)) for row in rows}
    grouping = f"yes, {len({row.group for row in rows})} groups of {len(links)} songs by {group_by}"
    return Provenance(
        dataset=name,
        genres=genres,
        counts=[_count(genre, rows) for genre in genres],
        artist_filter=grouping if group_by else "no (split.group_by is null)",
        issues=issues,
        links=links,
        parameters=yaml.safe_dump(settings.model_dump(include=SECTIONS), sort_keys=False, allow_unicode=True),
        versions=cards.installed_versions(PACKAGES) | {"vectors (SHA-256)": arrays.digest(paths.vectors)},
    )


def write_tables(
    folder: Path, results: Sequence[metrics.Result], genres: list[str], /, **tables: pd.DataFrame | Sequence[Any]
) -> None:
    """Write predictions.csv, per_genre.csv and confusion_matrix.csv of all models, and other tables by name.

    predictions.csv has a row per model, repeat and song with the columns of `metrics.by_song`; rows of the confusion
    matrix are true genres, columns predicted ones.
    """
    import pandas as pd

    names, n = dict(enumerate(genres)), len(genres)
    repeats = {(result.model, i): table for result in results for i, table in enumerate(result.predictions)}
    songs = pd.concat(repeats, names=["model", "repeat"]).replace({"actual": names, "predicted": names})
    by_genre = {r.model: pd.DataFrame(metrics.per_genre(r.predictions, n), genres) for r in results}
    matrices = {r.model: pd.DataFrame(metrics.confusion_matrix(r.predictions, n), genres, genres) for r in results}
    own = {
        "predictions": songs.rename(columns=names),
        "per_genre": pd.concat(by_genre, names=["model", "genre"]),
        "confusion_matrix": pd.concat(matrices, names=["model", "genre"]),
    }
    for name, table in (own | {name: pd.DataFrame(rows) for name, rows in tables.items()}).items():
        text = table.to_csv(float_format="%.6g", lineterminator="\n", index=name in own)
        files.write_text(folder / f"{name}.csv", text)


def learning_curves(folders: Mapping[str, Path]) -> pd.DataFrame:
    """Return the learning curves of several models: model, measure, split, epoch (from 1), value.

    `folders` are those that the training of each model logged to.
    """
    import pandas as pd

    curves = []
    for model, folder in folders.items():
        for measure, (logged, split) in itertools.product(("loss", "accuracy"), SPLITS.items()):
            path = folder / "plots" / "metrics" / logged / f"{measure}.tsv"
            if path.is_file():
                log = pd.read_csv(path, sep="\t")
                columns = {"model": model, "measure": measure, "split": split, "epoch": log["step"] + 1}
                curves.append(pd.DataFrame({**columns, "value": log[measure]}))
    return pd.concat(curves) if curves else pd.DataFrame(columns=["model", "measure", "split", "epoch", "value"])


def html(template: str, results: Sequence[metrics.Result], provenance: Provenance, **values: object) -> str:
    """Return a report from templates/, with figures, the best model first. All names are escaped, nothing is loaded.

    The values of both templates are stress, the rows of `recording.stress_rows`; those of evaluation.html: curves (see
    `learning_curves`); images, the PNG of figures by name, which are drawn if missing; default, the model that query
    uses unless another is named; those of comparison.html: options, the section compare of the parameters; group_by;
    ensemble, the models that it averages; curve, the rows of `comparison.curve`. Tables may be empty.
    """
    models = [_model(result, provenance.genres) for result in results]
    scores = {result.model: result.scores for result in results}
    counts = {"n_songs": len(results[0].predictions[0]), "n_repeats": len(results[0].predictions)}
    page = environment().get_template(template)
    return page.render(
        {"curves": (), "images": {}, **counts, **values}, models=models, scores=scores, provenance=provenance
    )


def markdown(results: Sequence[metrics.Result]) -> str:
    """Return the scores of a comparison as a Markdown table, the best model first."""
    return environment().get_template("comparison.md").render(results=results)


def environment() -> jinja2.Environment:
    """Return the templates; names in HTML are escaped."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("genre.evaluation"),
        autoescape=jinja2.select_autoescape(["html"]),
        undefined=jinja2.StrictUndefined,
    )
    environment.globals["plots"] = plots
    environment.filters["percent"] = lambda value, digits=1: f"{value:.{digits}%}"
    environment.filters["p_value"] = lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}"
    return environment


def _model(result: metrics.Result, genres: list[str]) -> dict[str, Any]:
    import pandas as pd

    predictions = pd.concat(result.predictions)
    return {
        "name": result.model,
        "scores": result.scores,
        "predictions": predictions,
        "matrix": metrics.confusion_matrix(result.predictions, len(genres)),
        "genres": dict(zip(genres, metrics.per_genre(result.predictions, len(genres)), strict=True)),
        "errors": _errors(predictions),
    }


def _errors(predictions: pd.DataFrame) -> list[Any]:
    """Return song, true and predicted class, mean confidence and number of the errors, the most confident first."""
    wrong = predictions[predictions["actual"] != predictions["predicted"]]
    groups = wrong.groupby(["song", "actual", "predicted"], sort=False)["confidence"]
    ranked = groups.agg(["mean", "size"]).sort_values("mean", ascending=False, kind="stable")
    return list(ranked.head(MAX_ERRORS).reset_index().itertuples(index=False, name=None))


def _count(genre: str, rows: Sequence[manifest.Row]) -> dict[str, Any]:
    counts: dict[str, Any] = {"genre": genre}
    for split in manifest.SPLITS:
        of_split = [row for row in rows if row.genre == genre and row.split == split]
        counts |= {f"{split}_songs": len({row.song for row in of_split}), f"{split}_chunks": len(of_split)}
    return counts
