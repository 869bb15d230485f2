"""Reports of an evaluation and of a comparison: self-contained HTML pages and a Markdown table, from templates/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from genre import params
from genre.evaluation import dataset_card, metrics, plots
from genre.evaluation.dataset_card import DatasetCard
from genre.evaluation.metrics import Result
from genre.models import cards
from genre.params import Params
from genre.paths import Paths

if TYPE_CHECKING:
    import jinja2
    import pandas as pd

SECTIONS = ("dataset", "split", "extract", "train", "musicnn", "baselines", "ensemble", "compare")  # of the parameters
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "onnxruntime", "scikit-learn", "xgboost", "xgboost-cpu")
MAX_ERRORS = 15  # rows in the table of errors


@dataclass(frozen=True, slots=True)
class Provenance:
    """The data set, parameters and package versions that the scores depend on."""

    dataset: DatasetCard
    parameters: str  # YAML
    versions: Mapping[str, str]
    genres: list[str]  # in the order of the class indices


def provenance(settings: Params, paths: Paths, genres: list[str]) -> Provenance:
    """Return the provenance of a project's scores; see `dataset_card.describe` for errors."""
    dataset = dataset_card.describe(settings, paths, genres)
    versions = cards.installed_versions(PACKAGES) | {"vectors (SHA-256)": dataset_card.digest(paths.vectors)}
    return Provenance(dataset, params.as_yaml(settings, *SECTIONS), versions, genres)


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
    page = environment().get_template(template)
    return page.render(
        **{"curves": "", **values},
        models=[_model(result, provenance) for result in results],
        n_songs=len(results[0].predictions[0]),
        n_repeats=len(results[0].predictions),
        provenance=provenance,
        dataset=provenance.dataset,
    )


def _model(result: Result, provenance: Provenance) -> dict[str, Any]:
    import pandas as pd

    genres = provenance.genres
    matrix = metrics.confusion_matrix(result.predictions, len(genres))
    return {
        "name": result.model,
        "scores": result.scores,
        "confusion": plots.data_url(plots.confusion(matrix, genres, result.model)),
        "reliability": plots.data_url(plots.reliability(pd.concat(result.predictions))),
        "genres": dict(zip(genres, metrics.per_genre(result.predictions, len(genres)), strict=True)),
        "errors": _errors(pd.concat(result.predictions), provenance),
    }


def _errors(predictions: pd.DataFrame, provenance: Provenance) -> list[dict[str, Any]]:
    """Return the songs with a wrong genre, one row per song and predicted genre, the most confident first."""
    wrong = predictions[predictions["actual"] != predictions["predicted"]]
    groups = wrong.groupby(["song", "actual", "predicted"], sort=False)["confidence"].agg(["mean", "size"])
    ranked = groups.sort_values("mean", ascending=False, kind="stable").head(MAX_ERRORS)
    return [
        {
            "song": song,
            "href": provenance.dataset.links[song],
            "actual": provenance.genres[actual],
            "predicted": provenance.genres[predicted],
            "confidence": confidence,
            "times": times,
        }
        for (song, actual, predicted), confidence, times in ranked.itertuples()
    ]
