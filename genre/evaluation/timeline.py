"""Timeline of a query answer: the genre of each chunk and the genre probabilities over time."""

from __future__ import annotations

import os
from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genre.cli import clock, verdict
from genre.errors import GenreError
from genre.evaluation.plots import PETROFF10, colours, text_on
from genre.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from genre.models.query import Answer, ChunkAnswer

Values = npt.NDArray[np.float64]
Styles = dict[str, dict[str, Any]]  # keyword arguments of matplotlib by genre

SUFFIXES = (".png", ".svg")
WIDTH_IN, HEIGHT_IN = 10.0, 4.6
DPI = 150
MIN_PROBABILITY = 0.03  # genres that stay below it, and of which there is no chunk, are drawn together as "others"
MAX_GENRES = 14  # genres in the legend, which is then as high as the figure
MAX_NAME = 70  # characters of a file name
OTHERS_COLOUR = "#e9e9e9"
HATCHES = ("", "///", "...", "xx", "++")  # the first for genres 1 to 10, the second for 11 to 20, and so on
TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 36_000, 86_400)
MAX_TICKS = 12
MAX_BOUNDARIES = 80  # with more chunks than this, the boundaries between them are not drawn
CHARACTER_IN = 0.085  # width of a letter of a label


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
    genres = list(chunks[0]["probabilities"])
    probabilities = np.array([[chunk["probabilities"][genre] for genre in genres] for chunk in chunks])
    edges_s = np.array([chunk["start"] for chunk in chunks] + [chunks[-1]["end"]])
    styles = area_styles(genres)
    figure = NewFigure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1, 4.5])
    _draw_chunk_genres(upper, chunks, styles)
    rows = _drawn_genres(probabilities, {genres.index(chunk["genre"]) for chunk in chunks})
    _draw_probabilities(lower, edges_s, {genres[row]: probabilities[:, row] for row in rows}, styles)
    _format_time_axis(lower, float(edges_s[0]), float(edges_s[-1]))
    figure.suptitle(_title(answer), parse_math=False, fontsize=12)
    return figure


def area_styles(genres: Sequence[str]) -> Styles:
    """Return the fill style of each genre as matplotlib keyword arguments; no two genres share colour and hatch."""
    hatches = [HATCHES[position // len(PETROFF10) % len(HATCHES)] for position in range(len(genres))]
    return {
        genre: {"facecolor": colour, "hatch": hatch, "edgecolor": "white", "linewidth": 0.0}
        for (genre, colour), hatch in zip(colours(genres).items(), hatches, strict=True)
    }


def _drawn_genres(probabilities: Values, of_chunks: set[int]) -> list[int]:
    """Return the positions of the genres that get an area of their own, by decreasing mean probability."""
    means, maxima = probabilities.mean(axis=0), probabilities.max(axis=0)
    rows = [i for i in range(len(means)) if maxima[i] >= MIN_PROBABILITY or i in of_chunks]
    rows.sort(key=lambda i: (i not in of_chunks, -means[i]))
    return sorted(rows[:MAX_GENRES], key=lambda i: -means[i])


def _draw_chunk_genres(axes: Axes, chunks: Sequence[ChunkAnswer], styles: Styles) -> None:
    """Draw one bar per chunk in the colour of its genre; consecutive chunks of one genre share a label."""
    seconds_per_inch = (chunks[-1]["end"] - chunks[0]["start"]) / (WIDTH_IN - 3.0)
    for genre, group in groupby(chunks, key=lambda chunk: chunk["genre"]):
        run = list(group)
        start, end = run[0]["start"], run[-1]["end"]
        axes.broken_barh([(start, end - start)], (0, 1), **styles[genre])
        if len(genre) * CHARACTER_IN * seconds_per_inch < end - start:
            colour = styles[genre]["facecolor"]
            box = {"facecolor": colour, "linewidth": 0, "pad": 1.5}  # keeps the hatch out of the letters
            style: dict[str, Any] = {"ha": "center", "va": "center", "color": text_on(colour), "bbox": box}
            axes.text((start + end) / 2, 0.5, _drawable(genre), parse_math=False, **style)
    if len(chunks) <= MAX_BOUNDARIES:
        axes.vlines([chunk["start"] for chunk in chunks[1:]], 0, 1, color="white", linewidth=1)
    axes.set(ylim=(0, 1), yticks=[], ylabel="genre")
    axes.tick_params(bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


def _draw_probabilities(axes: Axes, edges_s: Values, heights: dict[str, Values], styles: Styles) -> None:
    """Draw the probabilities as stacked steps with a legend, the most probable genre at the bottom, others on top."""
    floor = np.zeros(len(edges_s))
    for genre, values in heights.items():
        top = floor + np.append(values, values[-1])
        label = _drawable(f"{genre}  {100 * values.mean():.0f} %")
        axes.fill_between(edges_s, floor, top, step="post", label=label, **styles[genre])
        floor = top
    if len(heights) < len(styles):
        label = f"others  {100 * max(0.0, 1 - floor[:-1].mean()):.0f} %"
        axes.fill_between(edges_s, floor, 1.0, step="post", label=label, facecolor=OTHERS_COLOUR, linewidth=0.0)
    axes.set(xlim=(edges_s[0], edges_s[-1]), ylim=(0, 1), ylabel="probability")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.spines[["top", "right"]].set_visible(False)
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0), "borderaxespad": 0.4, "frameon": False}
    fonts: dict[str, Any] = {"fontsize": 9, "title_fontsize": 9, "labelspacing": 0.35, "alignment": "left"}
    for text in axes.legend(title="mean probability", reverse=True, **place, **fonts).get_texts():
        text.set_parse_math(False)


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
