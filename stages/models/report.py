"""The report of an evaluation: one self-contained HTML file to look at."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from stages.models import evaluation
from stages.models.evaluation import SongPrediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

N_MISTAKES = 15
N_BINS = 10

TEMPLATE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.6rem } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc } h3 { margin-top: 1.5rem }
table { border-collapse: collapse; margin: .8rem 0 } th, td { padding: .25rem .8rem; text-align: right }
th { border-bottom: 2px solid #888 } td { border-bottom: 1px solid #ddd }
th:first-child, td:first-child { text-align: left }
td.text, th.text { text-align: left }
img { max-width: 100% } .note { color: #555 } pre { background: #f5f5f5; padding: .8rem; overflow-x: auto }
.row { display: flex; flex-wrap: wrap; gap: 1rem; align-items: flex-start } .row img { width: 48% }
</style></head><body>
<h1>{{ title }}</h1>
<p class="note">{{ subtitle }}</p>
<h2>Scores on the test songs</h2>
<table><tr><th>model</th>{% for name in columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for model in models %}<tr><td><a href="#{{ model.name }}">{{ model.name }}</a></td>
{% for value in model.cells %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</table>
<p class="note">The interval is the 95 % bootstrap over songs. Songs are answered by the vote of their chunks.
{{ faults }}</p>
{% if curves %}<h2>Learning curves</h2>
<p class="note">Mean over the members; validation songs come from the training side.</p>
<img alt="learning curves" src="data:image/png;base64,{{ curves }}">{% endif %}
{% for model in models %}
<h2 id="{{ model.name }}">{{ model.name }}</h2>
<div class="row"><img alt="confusion matrix" src="data:image/png;base64,{{ model.confusion }}">
<img alt="reliability diagram" src="data:image/png;base64,{{ model.reliability }}"></div>
<table><tr><th>genre</th><th>precision</th><th>recall</th><th>F1</th><th>test songs</th></tr>
{% for row in model.genres %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</table>
{% if model.mistakes %}<h3>Most confident mistakes</h3>
<table><tr><th>song</th><th class="text">is</th><th class="text">taken for</th><th>confidence</th></tr>
{% for row in model.mistakes %}<tr><td><a href="{{ row.href }}">{{ row.song }}</a></td>
<td class="text">{{ row.actual }}</td><td class="text">{{ row.predicted }}</td>
<td>{{ row.confidence }}</td></tr>{% endfor %}
</table>{% endif %}
{% endfor %}
<h2>Data set</h2>
<table><tr><th>genre</th><th>training songs</th><th>training chunks</th><th>test songs</th><th>test chunks</th></tr>
{% for row in dataset %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</table>
<h2>Parameters</h2><pre>{{ parameters }}</pre>
<h2>Versions</h2>
<table>{% for name, version in versions.items() %}<tr><td>{{ name }}</td><td>{{ version }}</td></tr>{% endfor %}</table>
</body></html>
"""

COLUMNS = {
    "song_accuracy": "songs",
    "interval": "95 % interval",
    "chunk_accuracy": "chunks",
    "macro_f1": "macro F1",
    "roc_auc": "ROC-AUC",
    "log_loss": "log loss",
    "ece": "ECE",
}


@dataclass(frozen=True, slots=True)
class ModelResult:
    """What the report shows of one model."""

    name: str
    scores: Mapping[str, float]
    predictions: Sequence[SongPrediction]


def render(
    results: Sequence[ModelResult],
    *,
    genres: Sequence[str],
    sources: Mapping[str, str],
    dataset_name: str,
    dataset: Sequence[Sequence[object]],
    curves: Mapping[str, Mapping[str, Sequence[float]]],
    parameters: str,
    versions: Mapping[str, str],
    faults: str,
) -> str:
    """Return the report as HTML; every name in it is escaped, and it loads nothing.

    Parameters
    ----------
    results : sequence of ModelResult
        One per model, the best first.
    genres : sequence of str
        In the order of the predictions.
    sources : mapping
        Link to the file of each song.
    dataset_name : str
    dataset : sequence of rows
        Genre, training songs and chunks, test songs and chunks.
    curves : mapping
        By model and curve (such as 'train loss'): one value per epoch.
    parameters : str
        params.yaml as it was.
    versions : mapping
        Of what made the models.
    faults : str
        What is known to be wrong with the data set.
    """
    import jinja2

    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(TEMPLATE).render(
        title=f"Genre models on {dataset_name}",
        subtitle=f"{len(results)} models, {len(results[0].predictions)} test songs, {len(genres)} genres",
        columns=list(COLUMNS.values()),
        models=[_model(result, genres, sources) for result in results],
        dataset=dataset,
        curves=_png(_draw_curves(curves)) if curves else "",
        parameters=parameters,
        versions=dict(versions),
        faults=faults,
    )


def draw_confusion(matrix: npt.NDArray[np.int64], genres: Sequence[str]) -> Figure:
    """Return a picture of a confusion matrix over songs [shape=(genres, genres)], rows actual, columns predicted."""
    size = 2.5 + 0.5 * len(genres)
    figure = _figure(size, size * 0.9)
    axes = figure.add_subplot()
    shares = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(shares, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(len(genres)), genres, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(len(genres)), genres, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("actual")
    axes.set_title("test songs, by vote")
    for row, column in np.argwhere(matrix):
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, matrix[row, column], ha="center", va="center", color=shade)
    return figure


def _model(result: ModelResult, genres: Sequence[str], sources: Mapping[str, str]) -> dict[str, Any]:
    scores = result.scores
    interval = f"{scores['song_accuracy_low']:.0%} to {scores['song_accuracy_high']:.0%}"
    cells = {key: f"{scores[key]:.3f}" for key in COLUMNS if key in scores}
    cells |= {key: f"{scores[key]:.1%}" for key in ("song_accuracy", "chunk_accuracy")} | {"interval": interval}
    wrong = sorted((p for p in result.predictions if p.actual != p.predicted), key=lambda p: -p.confidence)
    return {
        "name": result.name,
        "cells": [cells[key] for key in COLUMNS],
        "confusion": _png(draw_confusion(evaluation.confusion(result.predictions, len(genres)), genres)),
        "reliability": _png(_draw_reliability(result.predictions)),
        "genres": [
            (genre, f"{precision:.2f}", f"{recall:.2f}", f"{f1:.2f}", n_songs)
            for genre, (precision, recall, f1, n_songs) in zip(
                genres, evaluation.per_genre(result.predictions, len(genres)), strict=True
            )
        ],
        "mistakes": [
            {
                "song": p.song,
                "href": sources[p.song],
                "actual": genres[p.actual],
                "predicted": genres[p.predicted],
                "confidence": f"{p.confidence:.0%}",
            }
            for p in wrong[:N_MISTAKES]
        ],
    }


def _draw_reliability(predictions: Sequence[SongPrediction]) -> Figure:
    """Accuracy over confidence, in ten bins; the size of a dot is the number of songs."""
    confidences = np.array([p.confidence for p in predictions])
    correct = np.array([p.actual == p.predicted for p in predictions])
    bins = np.minimum((confidences * N_BINS).astype(int), N_BINS - 1)
    figure = _figure(4.5, 4.2)
    axes = figure.add_subplot()
    axes.plot([0, 1], [0, 1], color="grey", linestyle="--", linewidth=1)
    for b in np.unique(bins):
        inside = bins == b
        axes.scatter(confidences[inside].mean(), correct[inside].mean(), s=20 + 12 * inside.sum(), color="tab:blue")
    axes.set(
        xlim=(0, 1.02), ylim=(-0.02, 1.05), xlabel="confidence", ylabel="share of songs right", title="reliability"
    )
    return figure


def _draw_curves(curves: Mapping[str, Mapping[str, Sequence[float]]]) -> Figure:
    figure = _figure(4.2 * len(curves), 3.6)
    for axes, (model, lines) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for name, values in lines.items():
            axes.plot(range(1, len(values) + 1), values, label=name)
        axes.set(title=model, xlabel="epoch", ylabel="loss")
        axes.legend()
    return figure


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure as NewFigure

    return NewFigure(figsize=(width, height), dpi=110, layout="constrained")


def _png(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return base64.b64encode(stream.getvalue()).decode()
