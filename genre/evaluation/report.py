"""Results of an evaluation and of a comparison: CSV tables, self-contained HTML pages and a Markdown table."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre import files
from genre.evaluation import metrics, plots
from genre.evaluation.metrics import Result
from genre.evaluation.provenance import Provenance

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

SPLITS = {"train": "training", "eval": "validation"}  # names in the logs of training
MAX_ERRORS = 15  # rows in the table of errors


def write_tables(
    folder: Path, results: Sequence[Result], genres: list[str], /, **tables: pd.DataFrame | Sequence[Any]
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

    Parameters
    ----------
    folders : mapping of str to Path
        For each model, the folder that its training logged to.
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


def evaluation_html(
    results: Sequence[Result], provenance: Provenance, curves: pd.DataFrame, default: str, stress: Sequence[Any] = ()
) -> str:
    """Return the report of an evaluation, the best model first; `curves` (see `plots.curves`) may be empty.

    `default` is the name of the model that query uses unless another is named, `stress` the rows of `stress.rows`.
    All names are escaped and nothing is loaded from elsewhere.
    """
    figure = plots.data_url(plots.curves(curves)) if len(curves) else ""
    return _html("evaluation.html", results, provenance, curves=figure, default=default, stress=stress)


def comparison_html(
    results: Sequence[Result], provenance: Provenance, *, method: str, ensemble: Sequence[str] = (), **tables: Any
) -> str:
    """Return the report of a comparison, the best model first.

    `method` is a sentence on how the songs were split, and `ensemble` the models that the ensemble averages. `tables`
    are those of `comparison.curve` and of `stress.rows`, by the names curve and stress; each may be empty.
    """
    intervals = plots.data_url(plots.intervals({result.model: result.scores for result in results}))
    values = {"intervals": intervals, "method": method, "ensemble": ensemble, **tables}
    sizes = [row for row in tables["curve"] if not row["by_song"]]
    curve = {f"{row['model']}, {row['songs_per_genre']:.0f} songs": row for row in sizes}
    values["few_songs"] = plots.data_url(plots.intervals(curve)) if curve else ""
    return _html("comparison.html", results, provenance, **values)


def comparison_markdown(results: Sequence[Result]) -> str:
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
    environment.filters["percent"] = lambda value, digits=1: f"{value:.{digits}%}"
    environment.filters["p_value"] = lambda value: "< 0.001" if value < 0.001 else f"{value:.3f}"
    return environment


def _html(template: str, results: Sequence[Result], provenance: Provenance, **values: object) -> str:
    models = [_model(result, provenance) for result in results]
    counts = {"n_songs": len(results[0].predictions[0]), "n_repeats": len(results[0].predictions)}
    page = environment().get_template(template)
    return page.render(**{"curves": "", **counts, **values}, models=models, provenance=provenance)


def _model(result: Result, provenance: Provenance) -> dict[str, Any]:
    import pandas as pd

    genres, predictions = provenance.genres, pd.concat(result.predictions)
    matrix = metrics.confusion_matrix(result.predictions, len(genres))
    return {
        "name": result.model,
        "scores": result.scores,
        "confusion": plots.data_url(plots.confusion(matrix, genres, result.model)),
        "reliability": plots.data_url(plots.reliability(predictions)),
        "genres": dict(zip(genres, metrics.per_genre(result.predictions, len(genres)), strict=True)),
        "errors": _errors(predictions),
    }


def _errors(predictions: pd.DataFrame) -> list[Any]:
    """Return song, true and predicted class, mean confidence and number of the errors, the most confident first."""
    wrong = predictions[predictions["actual"] != predictions["predicted"]]
    groups = wrong.groupby(["song", "actual", "predicted"], sort=False)["confidence"]
    ranked = groups.agg(["mean", "size"]).sort_values("mean", ascending=False, kind="stable")
    return list(ranked.head(MAX_ERRORS).reset_index().itertuples(index=False, name=None))
