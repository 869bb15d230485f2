"""Timeline of a query answer: the genre of each chunk and the genre probabilities over time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genre.cli import clock, verdict
from genre.errors import GenreError
from genre.evaluation.plots import PETROFF10, colours
from genre.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from genre.models.query import Answer, ChunkAnswer

SUFFIXES = (".png", ".svg")
SIZE_IN = (10.0, 4.6)
DPI = 150
MIN_PROBABILITY = 0.03  # genres that stay below it, and of which there is no chunk, are drawn together as "others"
MAX_GENRES = 14  # genres in the legend, which is then as high as the figure
MAX_NAME = 70  # characters of a file name
OTHERS_COLOUR = "#e9e9e9"
HATCHES = ("", "///", "...", "xx", "++")  # the first for genres 1 to 10, the second for 11 to 20, and so on
TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 36_000, 86_400)
MAX_TICKS = 12
MAX_BOUNDARIES = 80  # with more chunks than this, the boundaries between them are not drawn


def check_path(path: Path) -> None:
    """Raise GenreError if the suffix is not .png or .svg, or the file cannot be written."""
    if path.suffix.lower() not in SUFFIXES:
        raise GenreError(f"{path}: the name of a plot must end in {' or '.join(SUFFIXES)}")
    if not path.parent.is_dir():
        raise GenreError(f"{path}: the folder {path.parent}/ does not exist")
    if path.is_dir() or not os.access(path.parent, os.W_OK):
        raise GenreError(f"{path}: " + ("is a folder" if path.is_dir() else f"{path.parent}/ is read-only"))


def plot(answer: Answer, path: Path) -> None:
    """Draw an answer as a timeline and write it as PNG or SVG; equal answers give equal bytes.

    Above: the genre of each chunk. Below: the probabilities of the genres, stacked. The colour of a genre is that of
    its position in the model; from the eleventh genre on, colours repeat with a hatch. See `check_path` for errors.
    """
    check_path(path)
    import matplotlib as mpl

    suffix = path.suffix.lower()[1:]
    metadata = {"Title": _title(answer), **({"Date": None, "Creator": None} if suffix == "svg" else {"Software": None})}
    # A fixed salt: by default the ids in an SVG file are random.
    with mpl.rc_context({"svg.hashsalt": "timeline"}), atomic_path(path) as temporary:
        draw(answer).savefig(temporary, format=suffix, dpi=DPI, metadata=metadata)


def draw(answer: Answer) -> Figure:
    """Return the timeline of an answer as a matplotlib figure."""
    from matplotlib.figure import Figure as NewFigure

    chunks = answer["chunks"]
    starts_s, end_s = [chunk["start"] for chunk in chunks], chunks[-1]["end"]
    palette = colours(list(chunks[0]["probabilities"]))
    hatches = {genre: HATCHES[n // len(PETROFF10) % len(HATCHES)] for n, genre in enumerate(palette)}
    figure = NewFigure(figsize=SIZE_IN, layout="constrained")
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
