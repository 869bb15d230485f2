"""A picture of one answer of `query`: which genre when, and how sure."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from genre.cli import clock, verdict
from genre.errors import GenreError
from genre.evaluation.palette import PETROFF10, colours, text_on
from genre.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SUFFIXES: Final = (".png", ".svg")
WIDTH_IN, HEIGHT_IN = 10.0, 4.6
DPI = 150
SHOWN_FROM = 0.03  # a genre that is never this probable, and of no chunk, is one of the others
MAX_SHOWN = 14  # genres with a line of their own in the legend, which is then as high as the picture
MAX_NAME = 70  # characters of a file name
OTHERS_COLOUR = "#e9e9e9"
HATCHES = ("", "///", "...", "xx", "++")  # of each round through the palette's ten colours
TICK_STEPS_S = (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 36_000, 86_400)
MAX_TICKS = 12
MAX_BOUNDARIES = 80  # chunks, up to which their limits are drawn
CHARACTER_IN = 0.085  # width of a letter of a label


def check_path(path: Path) -> None:
    """Refuse, before any work is done, a file name that no picture can be written to.

    Raises
    ------
    GenreError
        If its suffix is neither .png nor .svg.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise GenreError(f"{path}: a picture is written as {' or '.join(SUFFIXES)}, by the name's ending")


def plot(answer: dict[str, Any], path: Path) -> None:
    """Draw an answer as a timeline, PNG or SVG by the suffix; the same answer gives the same bytes.

    Above: the genre of each chunk. Below: the probabilities of the genres, stacked. A genre has the colour that it
    has in the model's order of genres; from the eleventh on the colours repeat, hatched.

    Parameters
    ----------
    answer : dict
        Of the query contract, with at least one chunk.
    path : Path
        Written atomically; missing folders are made.

    Raises
    ------
    GenreError
        If the suffix is neither .png nor .svg.
    """
    check_path(path)
    import matplotlib as mpl

    mpl.rcParams["svg.hashsalt"] = "timeline"  # else the ids in an SVG are random
    kind = path.suffix.lower()[1:]
    about = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
    figure = draw(answer)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format=kind, dpi=DPI, metadata={"Title": _title(answer), **about})


def draw(answer: dict[str, Any]) -> Figure:
    """Return the timeline as a matplotlib figure."""
    from matplotlib.figure import Figure as NewFigure

    chunks = answer["chunks"]
    genres = list(chunks[0]["probabilities"])
    probabilities = np.array([[chunk["probabilities"][genre] for genre in genres] for chunk in chunks])
    edges = np.array([chunk["start"] for chunk in chunks] + [chunks[-1]["end"]])
    shown = _shown(genres, probabilities, {chunk["genre"] for chunk in chunks})
    styles = _styles(genres)

    figure = NewFigure(figsize=(WIDTH_IN, HEIGHT_IN), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[1, 4.5])
    _draw_verdicts(upper, chunks, styles)
    _draw_probabilities(lower, edges, probabilities, genres, shown, styles)
    lower.set_xlim(edges[0], edges[-1])
    _draw_time(lower, float(edges[0]), float(edges[-1]))
    figure.suptitle(_title(answer), parse_math=False, fontsize=12)
    return figure


def _shown(genres: Sequence[str], probabilities: npt.NDArray[np.float64], of_chunks: set[str]) -> list[str]:
    """Return the genres that are drawn by themselves, the most probable first."""
    means, highest = probabilities.mean(axis=0), probabilities.max(axis=0)
    wanted = [i for i, genre in enumerate(genres) if highest[i] >= SHOWN_FROM or genre in of_chunks]
    wanted.sort(key=lambda i: (genres[i] not in of_chunks, -means[i]))
    return [genres[i] for i in sorted(wanted[:MAX_SHOWN], key=lambda i: -means[i])]


def _styles(genres: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return how the area of each genre is filled."""
    return {
        genre: {
            "facecolor": colour,
            "hatch": HATCHES[position // len(PETROFF10) % len(HATCHES)],
            "edgecolor": "white",
            "linewidth": 0.0,
        }
        for position, (genre, colour) in enumerate(colours(genres).items())
    }


def _draw_verdicts(axes: Axes, chunks: Sequence[dict[str, Any]], styles: dict[str, dict[str, Any]]) -> None:
    """Draw one bar per chunk in the colour of its genre; chunks of one genre in a row share a label."""
    seconds_per_inch = (chunks[-1]["end"] - chunks[0]["start"]) / (WIDTH_IN - 3.0)
    for genre, run in groupby(chunks, key=lambda chunk: chunk["genre"]):
        pieces = list(run)
        start, end = pieces[0]["start"], pieces[-1]["end"]
        axes.broken_barh([(start, end - start)], (0, 1), **styles[genre])
        if len(genre) * CHARACTER_IN * seconds_per_inch < end - start:
            colour = styles[genre]["facecolor"]
            axes.text(
                (start + end) / 2,
                0.5,
                _drawable(genre),
                parse_math=False,
                ha="center",
                va="center",
                color=text_on(colour),
                bbox={"facecolor": colour, "linewidth": 0, "pad": 1.5},  # keeps a hatch out of the letters
            )
    if len(chunks) <= MAX_BOUNDARIES:
        axes.vlines([chunk["start"] for chunk in chunks[1:]], 0, 1, color="white", linewidth=1)
    axes.set(ylim=(0, 1), yticks=[], ylabel="genre")
    axes.tick_params(bottom=False, labelbottom=False)
    axes.spines[:].set_visible(False)


def _draw_probabilities(
    axes: Axes,
    edges: npt.NDArray[np.float64],
    probabilities: npt.NDArray[np.float64],
    genres: Sequence[str],
    shown: Sequence[str],
    styles: dict[str, dict[str, Any]],
) -> None:
    """Draw the probabilities stacked, as steps, the most probable genre at the bottom, with a legend."""
    floor = np.zeros(len(edges))
    for genre in shown:
        heights = probabilities[:, list(genres).index(genre)]
        top = floor + np.append(heights, heights[-1])
        label = _drawable(f"{genre}  {100 * heights.mean():.0f} %")
        axes.fill_between(edges, floor, top, step="post", label=label, **styles[genre])
        floor = top
    if len(shown) < len(genres):
        rest = f"others  {100 * max(0.0, 1 - floor[:-1].mean()):.0f} %"
        axes.fill_between(edges, floor, 1.0, step="post", label=rest, facecolor=OTHERS_COLOUR, linewidth=0.0)
    axes.set(ylim=(0, 1), ylabel="probability")
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:.0f} %")
    axes.spines[["top", "right"]].set_visible(False)
    legend = axes.legend(
        loc="upper left",
        bbox_to_anchor=(1.0, 1.0),
        frameon=False,
        borderaxespad=0.4,
        reverse=True,
        title="mean probability",
        alignment="left",
        fontsize=9,
        title_fontsize=9,
        labelspacing=0.35,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)


def _draw_time(axes: Axes, start: float, end: float) -> None:
    """Give the axis ticks at round times, as minutes and seconds."""
    from matplotlib.ticker import MultipleLocator

    step = next((step for step in TICK_STEPS_S if (end - start) / step <= MAX_TICKS), TICK_STEPS_S[-1])
    axes.xaxis.set_major_locator(MultipleLocator(step))
    axes.xaxis.set_major_formatter(lambda value, _: clock(value))
    axes.set_xlabel("time (h:min:s)" if end >= 3600 else "time (min:s)")


def _title(answer: dict[str, Any]) -> str:
    name = answer["file"] if "://" in answer["file"] else Path(answer["file"]).name or answer["file"]
    if len(name) > MAX_NAME:
        name = f"{name[: MAX_NAME // 2]}…{name[-MAX_NAME // 2 :]}"
    return f"{_drawable(name)}\n{_drawable(verdict(answer))}"


def _drawable(text: str) -> str:
    """Return the text with what the font cannot draw (and any control character) replaced."""
    from matplotlib.font_manager import findfont, get_font

    known = get_font(findfont("DejaVu Sans")).get_charmap()
    return "".join(c if ord(c) in known and c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)
