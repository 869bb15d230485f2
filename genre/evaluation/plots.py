"""Figures of predictions: confusion matrix, reliability, learning curves, intervals; and the colours of genres."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genre.evaluation.metrics import CALIBRATION_BINS, calibration_bins

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

# Petroff, "Accessible color sequences for data visualization" (2021): distinguishable with every kind of colour
# vision, on light and on dark ground.
PETROFF10 = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#8a8a8a"


def colours(genres: Sequence[str]) -> dict[str, str]:
    """Return the colour of each genre as #rrggbb, by its position among the model's outputs; ten colours repeat."""
    return {genre: PETROFF10[position % len(PETROFF10)] for position, genre in enumerate(genres)}


def confusion(matrix: npt.NDArray[np.int64], genres: Sequence[str], model: str) -> Figure:
    """Return the figure of a confusion matrix [shape=(n_genres, n_genres)], rows true, columns predicted genre.

    A cell is coloured by its fraction of the songs of the true genre. scikit-learn's ConfusionMatrixDisplay colours by
    counts, needs pyplot, and reads a dollar sign in the name of a genre as a formula.
    """
    size = 2.5 + 0.5 * len(genres)
    figure = _figure(size, size * 0.9)
    axes = figure.add_subplot()
    fractions = matrix / np.maximum(matrix.sum(axis=1, keepdims=True), 1)
    axes.imshow(fractions, cmap="Blues", vmin=0.0, vmax=1.0)
    axes.set_xticks(range(len(genres)), genres, rotation=45, ha="right", rotation_mode="anchor", parse_math=False)
    axes.set_yticks(range(len(genres)), genres, parse_math=False)
    axes.set(xlabel="predicted genre", ylabel="true genre")
    axes.set_title(f"{model}\n{matrix.sum()} songs, by vote of their chunks", fontsize=10, parse_math=False)
    for row, column in np.argwhere(matrix):
        colour = "white" if fractions[row, column] > 0.5 else "black"
        axes.text(column, row, matrix[row, column], ha="center", va="center", color=colour)
    return figure


def reliability(predictions: pd.DataFrame) -> Figure:
    """Return the figure of accuracy against confidence in ten bins, above a histogram of the confidences.

    `predictions` are as in `metrics.by_song`.
    """
    songs = predictions[["confidence"]].assign(correct=predictions["actual"] == predictions["predicted"])
    points = songs.groupby(calibration_bins(songs["confidence"].to_numpy())).mean()
    figure = _figure(4.8, 4.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    upper.plot(points["confidence"], points["correct"], "o-", color=BLUE)
    upper.set(ylim=(-0.03, 1.05), ylabel="fraction of songs correct", title=f"reliability (n = {len(songs)})")
    lower.hist(songs["confidence"], CALIBRATION_BINS, (0.0, 1.0), rwidth=0.9, color=BLUE)
    lower.set(xlim=(0, 1.02), xlabel="confidence", ylabel="songs")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    return figure


def curves(table: pd.DataFrame) -> Figure:
    """Return the figure of learning curves, one column of plots per model and one row per measure.

    Parameters
    ----------
    table : pd.DataFrame
        With the columns model, measure (such as loss), split (training or validation), epoch and value.
    """
    models, measures = table["model"].unique(), table["measure"].unique()
    figure = _figure(3.3 * len(models), 3.0 * len(measures))
    grid = figure.subplots(len(measures), len(models), squeeze=False)
    for (row, column), axes in np.ndenumerate(grid):
        of_axes = table[(table["model"] == models[column]) & (table["measure"] == measures[row])]
        for split, curve in of_axes.groupby("split", sort=False):
            axes.plot(curve["epoch"], curve["value"], label=split, color=BLUE if split == "training" else ORANGE)
        axes.set(title="" if row else models[column], xlabel="epoch", ylabel=measures[row])
        axes.legend()
        axes.grid(alpha=0.3)
    return figure


def intervals(scores: Mapping[str, Mapping[str, float]]) -> Figure:
    """Return the figure of the song accuracy of each model with its interval, the first model at the top."""
    figure = _figure(7, 1.2 + 0.4 * len(scores))
    axes = figure.add_subplot()
    upwards = list(scores)[::-1]
    for position, name in enumerate(upwards):
        value, low, high = (scores[name][f"song_accuracy{end}"] for end in ("", "_low", "_high"))
        axes.plot([low, value, high], [position] * 3, "o-", color=BLUE, markevery=[1])
        axes.annotate(f"{value:.1%}", (value, position), xytext=(0, 6), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(scores)), upwards, parse_math=False)
    axes.set_ylim(-0.6, len(scores) - 0.2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel(f"song accuracy with 95 % interval (n = {scores[upwards[0]]['n_songs']:.0f} songs)")
    axes.grid(axis="x", alpha=0.3)
    return figure


def few_songs(curve: Sequence[Mapping[str, Any]]) -> Figure:
    """Return the figure of `intervals` of the rows of `comparison.curve`, one for each model and number of songs."""
    return intervals({f"{r['model']}, {r['songs_per_genre']:.0f} songs": r for r in curve if not r["by_song"]})


def png(figure: Figure) -> bytes:
    """Return the figure as PNG; equal figures give equal bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def data_url(figure: Figure) -> str:
    """Return the figure as a data URL for the src attribute of an image."""
    return "data:image/png;base64," + base64.b64encode(png(figure)).decode()


def _figure(width_in: float, height_in: float) -> Figure:
    from matplotlib.figure import Figure as NewFigure

    return NewFigure(figsize=(width_in, height_in), dpi=110, layout="constrained")
