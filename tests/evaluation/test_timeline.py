"""The timeline shows the chunks, probabilities and title of an answer, and is reproducible."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib import image
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb

from genre.evaluation import timeline
from genre.evaluation.plots import colours
from genre.evaluation.timeline import plot

GENRES = "blues classical country disco hiphop jazz metal pop reggae rock".split()
MANY_GENRES = [*GENRES, *"ambient techno house folk soul funk punk latin gospel opera trance grunge ska dub".split()]

pytestmark = pytest.mark.filterwarnings("error")  # such as a character missing from the font


def _answer(genre_of_chunks: list[str], genres: list[str] = GENRES, **changes: Any) -> Any:
    """Return an answer with a 30-second chunk for each genre; the other genres share the remaining probability."""
    share = 0.55
    rest = (1 - share) / (len(genres) - 1)
    chunks = [
        {
            "start": 30.0 * i,
            "end": 30.0 * (i + 1),
            "genre": genre,
            "probabilities": {other: share if other == genre else rest for other in genres},
        }
        for i, genre in enumerate(genre_of_chunks)
    ]
    votes = {genre: genre_of_chunks.count(genre) for genre in genres if genre in genre_of_chunks}
    best = max(votes, key=lambda genre: votes[genre])
    answer = {"file": "albums/A Song.mp3", "genre": best, "confidence": 0.55, "votes": votes, "chunks": chunks}
    return answer | changes


def _random(n_chunks: int, genres: list[str]) -> Any:
    rng = np.random.default_rng(n_chunks)
    answer = _answer([genres[i] for i in rng.integers(0, len(genres), n_chunks)], genres)
    for chunk in answer["chunks"]:
        chunk["probabilities"] = dict(zip(genres, rng.dirichlet(np.full(len(genres), 0.3)).tolist(), strict=True))
    return answer


def _draw(answer: Any) -> Any:
    """Return the figure after layout."""
    figure = timeline.draw(answer)
    canvas: Any = FigureCanvasAgg(figure)
    canvas.draw()
    return figure


def _texts(figure: Any) -> list[str]:
    upper, lower = figure.axes
    titles = [figure.get_suptitle(), *(text.get_text() for text in upper.texts)]
    return titles + [text.get_text() for text in (*lower.get_legend().get_texts(), *lower.get_xticklabels())]


def test_each_chunk_has_the_colour_of_its_genre_at_its_time(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    plot(_answer(["jazz", "jazz", "rock", "blues"]), path)
    picture = image.imread(path)[..., :3]
    assert picture.shape == (690, 1500, 3)
    palette = {genre: np.array(to_rgb(colour)) for genre, colour in colours(GENRES).items()}
    band = picture[95]  # a row of pixels through the upper bar, above its labels
    bar_genres = [genre for pixel in band for genre in palette if np.abs(pixel - palette[genre]).max() < 0.01]
    assert list(dict.fromkeys(bar_genres)) == ["jazz", "rock", "blues"]
    assert bar_genres.count("jazz") == pytest.approx(2 * bar_genres.count("rock"), abs=12)


def test_the_title_names_the_song_and_its_genre() -> None:
    texts = _texts(_draw(_answer(["jazz", "jazz", "rock"])))
    assert texts[0] == "A Song.mp3\njazz (2 of 3 chunks, 55 %)"
    assert {"jazz", "rock", "0:00", "0:30", "1:00"} <= set(texts)
    assert "jazz  38 %" in texts  # mean over the chunks
    unknown = _texts(_draw(_answer(["jazz", "jazz", "rock"], genre="unknown")))
    assert unknown[0].endswith("\nunknown (2 of 3 chunks, 55 %)")


def test_the_time_axis_starts_at_the_first_chunk() -> None:
    answer = _answer(["jazz", "rock"])
    for chunk in answer["chunks"]:
        chunk["start"] += 3600.0
        chunk["end"] += 3600.0
    texts = _texts(_draw(answer))
    assert "1:00:30" in texts
    assert "0:00" not in texts


@pytest.mark.slow
@pytest.mark.parametrize(("n_chunks", "genres"), [(1, GENRES), (200, MANY_GENRES), (30, ["a" * 40, "b"])])
def test_no_label_overlaps_another_or_leaves_the_figure(n_chunks: int, genres: list[str]) -> None:
    figure = _draw(_random(n_chunks, genres))
    upper, lower = figure.axes
    legend = lower.get_legend().get_window_extent()
    assert legend.y0 >= 0 and legend.x1 <= figure.bbox.width + 1
    start, end = lower.get_xlim()
    visible = [label for label in lower.get_xticklabels() if start <= label.get_position()[0] <= end]
    ticks = [label.get_window_extent() for label in visible]
    assert ticks
    assert all(left.x1 < right.x0 for left, right in pairwise(ticks))
    labels = [label.get_window_extent() for label in upper.texts]
    assert all(left.x1 < right.x0 for left, right in pairwise(labels))
    assert all(upper.bbox.x0 <= label.x0 and label.x1 <= upper.bbox.x1 for label in labels)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".png", ".SVG"])
def test_the_same_answer_gives_the_same_bytes(tmp_path: Path, suffix: str) -> None:
    answer = _random(12, MANY_GENRES)
    paths = [tmp_path / f"{name}{suffix}" for name in "ab"]
    for path in paths:
        plot(answer, path)
    first, second = (path.read_bytes() for path in paths)
    assert first == second
    assert first.startswith(b"\x89PNG" if suffix == ".png" else b"<?xml")


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
    assert shown in _texts(_draw(answer))[0]
    path = tmp_path / "a.svg"
    plot(answer, path)
    tags = {element.tag.rpartition("}")[2] for element in ElementTree.parse(path).iter()}
    assert "path" in tags and "title" in tags
    assert not tags & {"script", "image", "foreignObject"}
