"""Reports to look at: one self-contained HTML file of an evaluation, and one of a comparison."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from genre.evaluation import metrics, plots
from genre.evaluation.dataset_card import DataSet
from genre.evaluation.metrics import SongPrediction

N_MISTAKES = 15

PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{{ title }}</title>
<style>
body { font: 15px/1.5 system-ui, sans-serif; max-width: 74rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
h1 { font-size: 1.6rem; margin-bottom: 0 } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc }
h3 { margin: 1.5rem 0 0 } a { color: #2b6cb0 }
.wide { overflow-x: auto } table { border-collapse: collapse; margin: .8rem 0 }
th, td { padding: .25rem .6rem; text-align: right; white-space: nowrap }
th { border-bottom: 2px solid #888 } td { border-bottom: 1px solid #ddd } tfoot td { font-weight: 600 }
th:first-child, td:first-child { text-align: left }
td.text, th.text { text-align: left }
img { max-width: 100%; height: auto } .note { color: #555 } li { margin: .3rem 0 }
pre { background: #f5f5f5; padding: .8rem; overflow-x: auto } summary { cursor: pointer }
.row { display: flex; flex-wrap: wrap; gap: 0 3rem; align-items: flex-start } .row img { max-width: 45% }
nav { margin: .8rem 0 } nav a { margin-right: 1rem }
</style></head><body>
<h1>{{ title }}</h1>
<p class="note">{{ subtitle }}</p>
<nav>{% for name, anchor in contents %}<a href="#{{ anchor }}">{{ name }}</a>{% endfor %}</nav>
{% block scores %}{% endblock %}
{% for model in models %}
<h2 id="model-{{ loop.index }}">{{ model.name }}</h2>
<div class="row"><img alt="confusion matrix of {{ model.name }}" src="{{ model.confusion }}">
<img alt="reliability diagram of {{ model.name }}" src="{{ model.reliability }}"></div>
<div class="row">
<div><h3>By genre</h3>
<table><tr><th>genre</th><th>precision</th><th>recall</th><th>F1</th><th>{{ counted }}</th></tr>
{% for row in model.genres %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</table></div>
{% if model.mistakes %}<div class="wide"><h3>Most confident mistakes</h3>
<table><tr><th>song</th><th class="text">is</th><th class="text">taken for</th><th>confidence</th>
{% if n_repeats > 1 %}<th>times of {{ n_repeats }}</th>{% endif %}</tr>
{% for row in model.mistakes %}<tr><td><a href="{{ row.href }}">{{ row.song }}</a></td>
<td class="text">{{ row.actual }}</td><td class="text">{{ row.predicted }}</td><td>{{ row.confidence }}</td>
{% if n_repeats > 1 %}<td>{{ row.times }}</td>{% endif %}</tr>{% endfor %}
</table></div>{% endif %}
{% if model.rates %}<div><h3>Songs of other genres</h3>
<table><tr><th>may get a name</th><th>unknown below</th><th>right answers lost</th></tr>
{% for row in model.rates %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</table></div>
{% endif %}
</div>
{% endfor %}
<h2 id="dataset">Data set</h2>
<div class="wide"><table>
<tr>{% for name in dataset.header %}<th>{{ name }}</th>{% endfor %}</tr>
{% for row in dataset.counts %}<tr>{% for value in row %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}
<tfoot><tr>{% for value in totals %}<td>{{ value }}</td>{% endfor %}</tr></tfoot></table></div>
<h3>Known faults</h3>
{% if dataset.faults %}<ul>{% for fault in dataset.faults %}<li>{{ fault }}</li>{% endfor %}</ul>
{% else %}<p>None. Nobody has looked for wrong labels and artists on both sides of a division.</p>{% endif %}
<h2 id="parameters">Parameters</h2><pre>{{ parameters }}</pre>
<h2 id="versions">Versions</h2>
<table>{% for name, version in versions.items() %}<tr><td>{{ name }}</td><td class="text">{{ version }}</td></tr>
{% endfor %}</table>
</body></html>
"""

EVALUATION = """{% extends "page" %}
{% block scores %}
<h2 id="scores">Scores on the test songs</h2>
<div class="wide"><table><tr><th>model</th>{% for name in columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for model in models %}<tr><td><a href="#model-{{ loop.index }}">{{ model.name }}</a></td>
{% for value in model.cells %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</table></div>
<p class="note">The interval is the 95 % bootstrap over songs. Songs are answered by the vote of their chunks.
{% if dataset.faults %}The data set has <a href="#dataset">known faults</a>.{% endif %}
Where a model has a table of songs of other genres, it says at what confidence it would have to answer "unknown" to name
only such a share of them (<code>query.unknown_far</code>), estimated on validation songs whose own genre is struck
out, and what share of the validation songs answered rightly that would cost.</p>
<p class="note">A test set of few songs says little about which model is better: <code>dvc repro compare/dvc.yaml</code>
trains all of them on identical folds and writes <a href="../comparison/report.html">comparison/report.html</a>.</p>
{% if curves %}<h2 id="curves">Learning curves</h2>
<p class="note">Mean over the members; validation songs come from the training side. In training, songs are mixed,
cut and shifted, so that training is harder than validation.</p>
<img alt="learning curves" src="{{ curves }}">{% endif %}
{% endblock %}
"""

COMPARISON = """{% extends "page" %}
{% block scores %}
<h2 id="scores">Scores</h2>
<img alt="accuracy of each model" src="{{ intervals }}">
<div class="wide"><table><tr><th>model</th>{% for name in columns %}<th>{{ name }}</th>{% endfor %}</tr>
{% for model in models %}<tr><td><a href="#model-{{ loop.index }}">{{ model.name }}</a></td>
{% for value in model.cells %}<td>{{ value }}</td>{% endfor %}</tr>{% endfor %}</table></div>
<p class="note">The interval is the 95 % bootstrap over songs; p is of a paired bootstrap over songs
against {{ models[0].name }}, two-sided, not corrected for the number of models. Nothing is chosen on a test fold:
validation songs, temperatures and statistics come from the training side of a fold. Training time and size are of one
fold{% if ensemble %}; ensemble is the calibrated average of {{ ensemble | join(", ") }}{% endif %}.
{% if dataset.faults %}The data set has <a href="#dataset">known faults</a>.{% endif %}</p>
<h3>Songs right by genre</h3>
<div class="wide"><table><tr><th>genre</th>{% for model in models %}<th>{{ model.name }}</th>{% endfor %}</tr>
{% for genre in models[0].genres %}{% set row = loop.index0 %}<tr><td>{{ genre[0] }}</td>
{% for model in models %}<td>{{ model.genres[row][2] }}</td>{% endfor %}</tr>{% endfor %}</table></div>
<p class="note">The models of <code>dvc repro</code> on the test songs:
<a href="../evaluation/report.html">evaluation/report.html</a>.</p>
{% endblock %}
"""

EVALUATION_COLUMNS = {
    "song_accuracy": "songs",
    "interval": "95 % interval",
    "chunk_accuracy": "chunks",
    "macro_f1": "macro F1",
    "roc_auc": "ROC-AUC",
    "log_loss": "log loss",
    "ece": "ECE",
}
COMPARISON_COLUMNS = {
    "song_accuracy": "songs",
    "interval": "95 % interval",
    "p_against_best": "p",
    "chunk_accuracy": "chunks",
    "macro_average_precision": "mAP",
    "roc_auc": "ROC-AUC",
    "log_loss": "log loss",
    "ece": "ECE",
    "train_seconds": "training s",
    "predict_seconds_per_song": "s per song",
    "size_mb": "MB",
}
PERCENT = ("song_accuracy", "chunk_accuracy")
MEASURED = ("train_seconds", "predict_seconds_per_song", "size_mb")  # of any magnitude


@dataclass(frozen=True, slots=True)
class ModelResult:
    """What a report shows of one model."""

    name: str
    scores: Mapping[str, float]
    predictions: Sequence[SongPrediction]  # in a comparison, those of all repeats
    unknown: Mapping[str, Any] | None = None  # as unknown.fit


@dataclass(frozen=True, slots=True)
class Made:
    """What the figures were made from."""

    dataset: DataSet
    parameters: str  # as YAML
    versions: Mapping[str, str]  # of what made the models, and of the vectors
    genres: Sequence[str]  # in the order of the predictions


def render(
    results: Sequence[ModelResult],
    made: Made,
    *,
    curves: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]],
) -> str:
    """Return the report of an evaluation as HTML; every name in it is escaped, and it loads nothing.

    Parameters
    ----------
    results : sequence of ModelResult
        One per model, the best first.
    made : Made
    curves : mapping
        As `drawings.curves` takes them; may be empty.
    """
    return _render(
        "evaluation",
        results,
        made,
        EVALUATION_COLUMNS,
        title=f"Genre models on {made.dataset.name}",
        subtitle=f"{len(results)} models, {len(results[0].predictions)} test songs, {len(made.genres)} genres",
        sections=[("scores", "scores"), *([("learning curves", "curves")] if curves else [])],
        counted="test songs",
        n_repeats=1,
        curves=plots.data_url(plots.curves(curves)) if curves else "",
    )


def render_comparison(
    results: Sequence[ModelResult],
    made: Made,
    *,
    explained: str,
    n_repeats: int,
    ensemble: Sequence[str],
) -> str:
    """Return the report of a comparison as HTML; every name in it is escaped, and it loads nothing.

    Parameters
    ----------
    results : sequence of ModelResult
        One per model, the best first.
    made : Made
    explained : str
        How the songs were divided, as a sentence.
    n_repeats : int
        How often each song was tested.
    ensemble : sequence of str
        The models that the ensemble averages; empty without one.
    """
    n_songs = len({p.song for p in results[0].predictions})
    return _render(
        "comparison",
        results,
        made,
        COMPARISON_COLUMNS,
        title=f"Comparison of genre models on {made.dataset.name}",
        subtitle=f"{len(results)} models, {n_songs} songs, {len(made.genres)} genres. {explained}",
        sections=[("scores", "scores")],
        counted="songs" if n_repeats == 1 else f"songs x {n_repeats}",
        n_repeats=n_repeats,
        ensemble=list(ensemble),
        intervals=plots.data_url(plots.intervals({result.name: result.scores for result in results})),
    )


def _render(
    template: str,
    results: Sequence[ModelResult],
    made: Made,
    columns: Mapping[str, str],
    *,
    sections: Sequence[tuple[str, str]],
    **values: Any,
) -> str:
    import jinja2

    loader = jinja2.DictLoader({"page": PAGE, "evaluation": EVALUATION, "comparison": COMPARISON})
    environment = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined)
    of_models = [(result.name, f"model-{number}") for number, result in enumerate(results, 1)]
    rest = [("data set", "dataset"), ("parameters", "parameters"), ("versions", "versions")]
    return environment.get_template(template).render(
        columns=list(columns.values()),
        contents=[*sections, *of_models, *rest],
        models=[_model(result, made, columns) for result in results],
        dataset=made.dataset,
        totals=["all", *np.sum([row[1:] for row in made.dataset.counts], axis=0).tolist()],
        parameters=made.parameters,
        versions=dict(made.versions),
        **values,
    )


def _model(result: ModelResult, made: Made, columns: Mapping[str, str]) -> dict[str, Any]:
    genres = made.genres
    matrix = metrics.confusion(result.predictions, len(genres))
    return {
        "name": result.name,
        "cells": [_cell(key, result.scores) for key in columns],
        "confusion": plots.data_url(plots.confusion(matrix, genres)),
        "reliability": plots.data_url(plots.reliability(result.predictions)),
        "genres": [
            (genre, f"{precision:.2f}", f"{recall:.2f}", f"{f1:.2f}", n_songs)
            for genre, (precision, recall, f1, n_songs) in zip(
                genres, metrics.per_genre(result.predictions, len(genres)), strict=True
            )
        ],
        "mistakes": _mistakes(result.predictions, made),
        "rates": [
            (f"{rate['far']:.0%}", f"{rate['threshold']:.1%}", f"{rate['lost']:.1%}")
            for rate in (result.unknown["rates"] if result.unknown else [])
        ],
    }


def _cell(key: str, scores: Mapping[str, float]) -> str:
    if key == "interval":
        return f"{scores['song_accuracy_low']:.0%} to {scores['song_accuracy_high']:.0%}"
    if key in PERCENT:
        return f"{scores[key]:.1%}"
    return f"{scores[key]:.3g}" if key in MEASURED else f"{scores[key]:.3f}"


def _mistakes(predictions: Sequence[SongPrediction], made: Made) -> list[dict[str, Any]]:
    """Return the songs that were mistaken for the same genre, by mean confidence, and how often they were."""
    found: dict[tuple[str, int, int], list[float]] = {}
    for p in predictions:
        if p.actual != p.predicted:
            found.setdefault((p.song, p.actual, p.predicted), []).append(p.confidence)
    ranked = sorted(found.items(), key=lambda item: -float(np.mean(item[1])))
    return [
        {
            "song": song,
            "href": made.dataset.links[song],
            "actual": made.genres[actual],
            "predicted": made.genres[predicted],
            "confidence": f"{np.mean(confidences):.0%}",
            "times": len(confidences),
        }
        for (song, actual, predicted), confidences in ranked[:N_MISTAKES]
    ]
