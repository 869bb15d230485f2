"""Figures: confusion matrix, reliability, learning curves, intervals, timeline of an answer; the colours of genres."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genre.cli import clock, verdict
from genre.evaluation.metrics import CALIBRATION_BINS, calibration_bins
from genre.files import atomic_path

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from genre.models.query import Answer, ChunkAnswer

# Petroff, "Accessible color sequences for data visualization" (2021): distinguishable with every kind of colour
# vision, on light and on dark ground.
PETROFF10 = (
    *("#3f90da", "#ffa90e", "#bd1f01", "#94a4a2", "#832db6"),
    *("#a96b59", "#e76300", "#b9ac70", "#717581", "#92dadd"),
)
BLUE, ORANGE, GREY = "#2b6cb0", "#dd6b20", "#8a8a8a"

# of the timeline
SUFFIXES = (".png", ".svg")
DPI = 150
MIN_PROBABILITY = 0.03  # genres that stay below it, and of which there is no chunk, are drawn together as "others"
MAX_GENRES = 14  # genres in the legend, which is then as high as the figure
MAX_NAME = 70  # characters of a file name
OTHERS_COLOUR = "#e9e9e9"
HATCHES = ("", "///", "...", "xx", "++")  # the first for genres 1 to 10, the second for 11 to 20, and so on
TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 36_000, 86_400)
MAX_TICKS = 12
MAX_BOUNDARIES = 80  # with more chunks than this, the boundaries between them are not drawn


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
    lower.hist(songs["confidence"], CALIBRATION_BINS, range=(0.0, 1.0), rwidth=0.9, color=BLUE)
    lower.set(xlim=(0, 1.02), xlabel="confidence", ylabel="songs")
    for axes in (upper, lower):
        axes.grid(alpha=0.3)
    return figure


def curves(table: pd.DataFrame) -> Figure:
    """Return the figure of learning curves, one column of plots per model and one row per measure.

    `table` has the columns model, measure (such as loss), split (training or validation), epoch and value.
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


def data_url(figure: Figure | bytes) -> str:
    """Return a figure, or its PNG, as a data URL for the src attribute of an image."""
    data = figure if isinstance(figure, bytes) else png(figure)
    return "data:image/png;base64," + base64.b64encode(data).decode()


def write_timeline(answer: Answer, path: Path) -> None:
    """Draw an answer as a timeline and write it as PNG or SVG; equal answers give equal bytes.

    Above: the genre of each chunk. Below: the probabilities of the genres, stacked. The colour of a genre is that of
    its position in the model; from the eleventh genre on, colours repeat with a hatch. `path` has one of `SUFFIXES`.
    """
    import matplotlib as mpl

    suffix = path.suffix.lower()[1:]
    metadata = {"Title": _title(answer), **({"Date": None, "Creator": None} if suffix == "svg" else {"Software": None})}
    # A fixed salt: by default the ids in an SVG file are random.
    with mpl.rc_context({"svg.hashsalt": "timeline"}), atomic_path(path) as temporary:
        timeline(answer).savefig(temporary, format=suffix, dpi=DPI, metadata=metadata)


def timeline(answer: Answer) -> Figure:
    """Return the timeline of an answer as a matplotlib figure."""
    chunks = answer["chunks"]
    starts_s, end_s = [chunk["start"] for chunk in chunks], chunks[-1]["end"]
    palette = colours(list(chunks[0]["probabilities"]))
    hatches = {genre: HATCHES[n // len(PETROFF10) % len(HATCHES)] for n, genre in enumerate(palette)}
    figure = _figure(10.0, 4.6)
    figure.suptitle(_title(answer), parse_math=False, fontsize=12)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1, 4.5])
    upper.bar(
        starts_s,
        height=1,
        width=[chunk["end"] - chunk["start"] for chunk in chunks],
        align="edge",
        color=[palette[chunk["genre"]] for chunk in chunks],
        hatch=[hatches[chunk["genre"]] for chunk in chunks],
        edgecolor="white",
        linewidth=1.0 if len(chunks) <= MAX_BOUNDARIES else 0.0,
    )
    upper.set(ylim=(0, 1), yticks=[], ylabel="genre")
    upper.tick_params(bottom=False, labelbottom=False)
    upper.spines[:].set_visible(False)
    areas = _areas(chunks)
    lower.stackplot(
        [*starts_s, end_s],
        np.pad([*areas.values()], ((0, 0), (0, 1)), "edge"),
        labels=[_drawable(f"{genre or 'others'}  {100 * p.mean():.0f} %") for genre, p in areas.items()],
        colors=[palette.get(genre, OTHERS_COLOUR) for genre in areas],
        hatch=[hatches.get(genre, "") for genre in areas],
        step="post",
        edgecolor="white",
        linewidth=0.0,
    )
    lower.set(xlim=(starts_s[0], end_s), ylim=(0, 1), ylabel="probability")
    lower.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    lower.spines[["top", "right"]].set_visible(False)
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.4, "frameon": False}
    fonts: dict[str, Any] = {"fontsize": 9, "title_fontsize": 9, "labelspacing": 0.35, "alignment": "left"}
    for text in lower.legend(title="mean probability", reverse=True, **place, **fonts).get_texts():
        text.set_parse_math(False)
    _format_time_axis(lower, starts_s[0], end_s)
    return figure


def _figure(width_in: float, height_in: float) -> Figure:
    from matplotlib.figure import Figure as NewFigure

    return NewFigure(figsize=(width_in, height_in), dpi=110, layout="constrained")


def _areas(chunks: Sequence[ChunkAnswer]) -> dict[str, npt.NDArray[np.float64]]:
    """Return the probabilities of each genre to draw [shape=(chunks,)]; the others, if any, are named ""."""
    probabilities = {
        genre: np.array([c["probabilities"][genre] for c in chunks]) for genre in chunks[0]["probabilities"]
    }
    of_chunks = {chunk["genre"] for chunk in chunks}
    drawn = [genre for genre, p in probabilities.items() if genre in of_chunks or p.max() >= MIN_PROBABILITY]
    drawn = sorted(drawn, key=lambda genre: (genre not in of_chunks, -probabilities[genre].mean()))[:MAX_GENRES]
    areas = {genre: probabilities[genre] for genre in drawn}
    others = np.maximum(0.0, 1 - np.sum([*areas.values()], axis=0))
    return areas if len(drawn) == len(probabilities) else areas | {"": others}


def _format_time_axis(axes: Axes, start_s: float, end_s: float) -> None:
    """Put ticks at round times, labelled in minutes and seconds."""
    step_s = next((step for step in TICK_STEPS_S if (end_s - start_s) / step <= MAX_TICKS), TICK_STEPS_S[-1])
    axes.set_xticks(np.arange(-(-start_s // step_s), end_s // step_s + 1) * step_s)
    axes.xaxis.set_major_formatter(lambda value, _: clock(value))
    axes.set_xlabel("time (h:min:s)" if end_s >= 3600 else "time (min:s)")


def _title(answer: Answer) -> str:
    name = answer["file"] if "://" in answer["file"] else Path(answer["file"]).name or answer["file"]
    if len(name) > MAX_NAME:
        name = f"{name[: MAX_NAME // 2]}…{name[-MAX_NAME // 2 :]}"
    return f"{_drawable(name)}\n{_drawable(verdict(answer))}"


def _drawable(text: str) -> str:
    """Return the text with control characters and characters missing from the font replaced."""
    from matplotlib.font_manager import findfont, get_font

    characters = get_font(findfont("DejaVu Sans")).get_charmap()
    return "".join(c if ord(c) in characters and c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
