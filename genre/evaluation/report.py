"""Reports of an evaluation and of a comparison: self-contained HTML pages and a Markdown table, from templates/."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from genre import params
from genre.evaluation import dataset_card, metrics, plots
from genre.evaluation.dataset_card import DatasetCard
from genre.evaluation.metrics import Result, SongPrediction
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
    genres: Sequence[str]  # in the order of the class indices


def provenance(settings: Params, paths: Paths, genres: Sequence[str]) -> Provenance:
    """Return the provenance of a project's scores; see `dataset_card.describe` for errors."""
    chunk_s = settings.split.chunk_seconds
    dataset = dataset_card.describe(settings.dataset.name, paths.chunks, genres=genres, chunk_s=chunk_s)
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
    curve = {f"{row['model']}, {row['songs_per_genre']:.0f} songs": row for row in tables["curve"]}
    values["few_songs"] = plots.data_url(plots.intervals(curve)) if curve else ""
    return _html("comparison.html", results, provenance, **values)


def comparison_markdown(results: Sequence[Result]) -> str:
    """Return the scores of a comparison as a Markdown table, the best model first."""
    return _environment().get_template("comparison.md").render(results=results)


def _environment() -> jinja2.Environment:
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
    page = _environment().get_template(template)
    return page.render(
        **{"curves": "", **values},
        models=[_model(result, provenance) for result in results],
        n_songs=len(results[0].predictions[0]),
        n_repeats=len(results[0].predictions),
        provenance=provenance,
        dataset=provenance.dataset,
    )


def _model(result: Result, provenance: Provenance) -> dict[str, Any]:
    genres, predictions = provenance.genres, [p for repeat in result.predictions for p in repeat]
    matrix = metrics.confusion_matrix(predictions, len(genres))
    by_genre = metrics.per_genre(predictions, len(genres), len(result.predictions))
    return {
        "name": result.model,
        "scores": result.scores,
        "confusion": plots.data_url(plots.confusion(matrix, genres, result.model)),
        "reliability": plots.data_url(plots.reliability(predictions)),
        "genres": dict(zip(genres, by_genre, strict=True)),
        "errors": _errors(predictions, provenance),
    }


def _errors(predictions: Sequence[SongPrediction], provenance: Provenance) -> list[dict[str, Any]]:
    """Return the songs with a wrong genre, one row per song and predicted genre, the most confident first."""
    confidences: dict[tuple[str, int, int], list[float]] = {}
    for p in predictions:
        if p.actual != p.predicted:
            confidences.setdefault((p.song, p.actual, p.predicted), []).append(p.confidence)
    rows: list[dict[str, Any]] = [
        {
            "song": song,
            "href": provenance.dataset.links[song],
            "actual": provenance.genres[actual],
            "predicted": provenance.genres[predicted],
            "confidence": float(np.mean(values)),
            "times": len(values),
        }
        for (song, actual, predicted), values in confidences.items()
    ]
    return sorted(rows, key=lambda row: -row["confidence"])[:MAX_ERRORS]
