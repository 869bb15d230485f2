"""Pictures of predictions: confusion, reliability, learning curves, intervals. Returns figures, writes nothing."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from genre import files
from genre.evaluation.metrics import CALIBRATION_BINS, SongPrediction

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, GREY = "#2b6cb0", "#8a8a8a"


def confusion(matrix: npt.NDArray[np.int64], genres: Sequence[str], title: str = "test songs, by vote") -> Figure:
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
    axes.set_title(title)
    for row, column in np.argwhere(matrix):
        shade = "white" if shares[row, column] > 0.5 else "black"
        axes.text(column, row, matrix[row, column], ha="center", va="center", color=shade)
    return figure


def reliability(predictions: Sequence[SongPrediction]) -> Figure:
    """Return accuracy over confidence in the bins of the calibration error; below, how many songs each bin has."""
    confidences = np.array([p.confidence for p in predictions])
    correct = np.array([p.actual == p.predicted for p in predictions])
    bins = np.minimum((confidences * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    figure = _figure(4.8, 4.8)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[4, 1])
    upper.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1)
    points = [(confidences[bins == b].mean(), correct[bins == b].mean()) for b in np.unique(bins)]
    upper.plot(*zip(*points, strict=True), "o-", color=BLUE)
    upper.set(ylim=(-0.03, 1.05), ylabel="share of songs right", title="reliability")
    centres = (np.arange(CALIBRATION_BINS) + 0.5) / CALIBRATION_BINS
    lower.bar(centres, np.bincount(bins, minlength=CALIBRATION_BINS), width=0.9 / CALIBRATION_BINS, color=BLUE)
    lower.set(xlim=(0, 1.02), xlabel="confidence", ylabel="songs")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    return figure


def curves(found: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]) -> Figure:
    """Return learning curves.

    Parameters
    ----------
    found : mapping
        By model, then by measure (such as 'loss'), then by side (such as 'training'): one value per epoch.
    """
    measures = list(dict.fromkeys(measure for of_model in found.values() for measure in of_model))
    figure = _figure(4.2 * len(found), 3.0 * len(measures))
    for row, measure in zip(figure.subplots(len(measures), len(found), squeeze=False), measures, strict=True):
        for axes, (model, of_model) in zip(row, found.items(), strict=True):
            for side, values in of_model.get(measure, {}).items():
                axes.plot(
                    range(1, len(values) + 1), values, label=side, color=BLUE if side == "training" else "#dd6b20"
                )
            axes.set(title=model if measure == measures[0] else "", xlabel="epoch", ylabel=measure)
            axes.legend()
            axes.grid(alpha=0.3)
    return figure


def intervals(scored: Mapping[str, Mapping[str, float]]) -> Figure:
    """Return the accuracy per song of each model with its interval, the first on top."""
    figure = _figure(7, 1.2 + 0.4 * len(scored))
    axes = figure.add_subplot()
    upwards = list(scored)[::-1]
    for position, name in enumerate(upwards):
        row = scored[name]
        value = row["song_accuracy"]
        axes.plot([row["song_accuracy_low"], row["song_accuracy_high"]], [position] * 2, color=BLUE, linewidth=2)
        axes.plot(value, position, "o", color=BLUE)
        axes.annotate(f"{value:.1%}", (value, position), xytext=(0, 6), textcoords="offset points", ha="center")
    axes.set_yticks(range(len(scored)), upwards, parse_math=False)
    axes.set_ylim(-0.6, len(scored) - 0.2)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    axes.set_xlabel("songs right, 95 % bootstrap interval over songs")
    axes.grid(axis="x", alpha=0.3)
    return figure


def png(figure: Figure) -> bytes:
    """Return the figure as PNG; the same figure gives the same bytes."""
    stream = io.BytesIO()
    figure.savefig(stream, format="png", metadata={"Software": None})
    return stream.getvalue()


def data_url(figure: Figure) -> str:
    """Return the figure as what an <img> takes for its source."""
    return "data:image/png;base64," + base64.b64encode(png(figure)).decode()


def write(path: Path, figure: Figure) -> None:
    """Write the figure as PNG."""
    files.write_bytes(path, png(figure))


def _figure(width: float, height: float) -> Figure:
    from matplotlib.figure import Figure as NewFigure

    return NewFigure(figsize=(width, height), dpi=110, layout="constrained")
