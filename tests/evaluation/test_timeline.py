"""The timeline shows the chunks, probabilities and title of an answer, and is reproducible."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from matplotlib.colors import to_rgb

from genre.evaluation import plots

GENRES = "blues classical country disco hiphop jazz metal pop reggae rock".split()
MANY_GENRES = [*GENRES, *"ambient techno house folk soul funk punk latin gospel opera trance grunge ska dub".split()]

pytestmark = pytest.mark.filterwarnings("error")  # such as a character missing from the font


def _answer(genre_of_chunks: list[str], genres: list[str] = GENRES, start: float = 0.0, **changes: Any) -> Any:
    """Return an answer with a 30-second chunk for each genre; the other genres share the remaining probability."""
    chunks = [
        {
            "start": start + 30.0 * i,
            "end": start + 30.0 * (i + 1),
            "genre": genre,
            "probabilities": {g: 0.55 if g == genre else 0.45 / (len(genres) - 1) for g in genres},
        }
        for i, genre in enumerate(genre_of_chunks)
    ]
    votes = {genre: genre_of_chunks.count(genre) for genre in genres if genre in genre_of_chunks}
    best = max(votes, key=lambda genre: votes[genre])
    answer = {"file": "albums/A Song.mp3", "genre": best, "confidence": 0.55, "votes": votes, "chunks": chunks}
    return answer | changes


def _draw(answer: Any) -> Any:
    """Return the figure after layout."""
    figure = plots.timeline(answer)
    figure.draw_without_rendering()
    return figure


def _texts(figure: Any) -> list[str]:
    lower = figure.axes[1]
    return [text.get_text() for text in (*lower.get_legend().get_texts(), *lower.get_xticklabels())]


def test_each_chunk_has_the_colour_of_its_genre_at_its_time(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    plots.write_timeline(_answer(["jazz", "jazz", "rock", "blues"]), path)
    picture = image.imread(path)[..., :3]
    assert picture.shape == (690, 1500, 3)
    palette = {genre: np.array(to_rgb(colour)) for genre, colour in plots.colours(GENRES).items()}
    bar_genres = [genre for pixel in picture[95] for genre in palette if np.abs(pixel - palette[genre]).max() < 0.01]
    assert list(dict.fromkeys(bar_genres)) == ["jazz", "rock", "blues"]
    assert bar_genres.count("jazz") == pytest.approx(2 * bar_genres.count("rock"), abs=12)


def test_the_title_the_legend_and_the_time_axis_are_those_of_the_answer() -> None:
    figure = _draw(_answer(["jazz", "jazz", "rock"]))
    assert figure.get_suptitle() == "A Song.mp3\njazz (2 of 3 chunks, 55 %)"
    assert {"jazz  38 %", "0:00", "0:30", "1:00"} <= set(_texts(figure))  # the mean over the chunks
    later = _draw(_answer(["jazz", "rock"], start=3600.0, genre="unknown"))
    assert later.get_suptitle().endswith("\nunknown (1 of 2 chunks, 55 %)")
    assert "1:00:30" in _texts(later) and "0:00" not in _texts(later)


@pytest.mark.slow
@pytest.mark.parametrize(("n_chunks", "genres"), [(1, GENRES), (200, MANY_GENRES), (30, ["a" * 40, "b"])])
def test_any_song_has_readable_labels_and_the_same_bytes_each_time(
    tmp_path: Path, n_chunks: int, genres: list[str]
) -> None:
    rng = np.random.default_rng(n_chunks)
    answer = _answer([genres[i] for i in rng.integers(0, len(genres), n_chunks)], genres)
    for chunk in answer["chunks"]:
        chunk["probabilities"] = dict(zip(genres, rng.dirichlet(np.full(len(genres), 0.3)).tolist(), strict=True))
    figure = _draw(answer)
    lower = figure.axes[1]
    legend = lower.get_legend().get_window_extent()
    assert legend.y0 >= 0 and legend.x1 <= figure.bbox.width + 1
    ticks = [label.get_window_extent() for label in lower.get_xticklabels()]
    assert ticks and all(left.x1 < right.x0 for left, right in pairwise(ticks))
    for suffix, start in ((".png", b"\x89PNG"), (".SVG", b"<?xml")):
        paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
        for path in paths:
            plots.write_timeline(answer, path)
        first, second = (path.read_bytes() for path in paths)
        assert first == second and first.startswith(start)


@pytest.mark.parametrize(
    ("file", "shown"),
    [
        ("</title><script>alert(1)</script>.mp3", "script>.mp3"),
        ("$x_$ costs 5$.mp3", "$x_$ costs 5$.mp3"),
        ("音楽\n♥\x07\udcff.mp3", "\ufffd\ufffd\ufffd♥\ufffd\ufffd.mp3"),
        ("a" * 300 + ".mp3", "a…a"),
    ],
)
def test_any_file_name_is_shown_as_text(tmp_path: Path, file: str, shown: str) -> None:
    answer = _answer(["jazz"], file=file)
    assert shown in _draw(answer).get_suptitle()
    path = tmp_path / "a.svg"
    plots.write_timeline(answer, path)
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter()}
    assert "path" in tags and "title" in tags
    assert not tags & {"script", "image", "foreignObject"}
