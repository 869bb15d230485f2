"""The reports show what was measured, and no name in them can be more than a name."""

from __future__ import annotations

import re

import numpy as np

from genre.evaluation import metrics
from genre.evaluation.dataset_card import DataSet
from genre.evaluation.report import Made, ModelResult, render, render_comparison

EVIL = "<script>alert(1)</script>\" onload='x'"
GENRES = ["a", EVIL]
LABELS, SONGS = np.array([0, 1, 1]), ["a/fine", "b/right", f"b/{EVIL}"]
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.99, 0.01]], dtype=np.float32)
SCORES = metrics.scores(PROBABILITIES, LABELS, SONGS)
PREDICTIONS = metrics.by_song(PROBABILITIES, LABELS, SONGS)


def _made(faults: list[str]) -> Made:
    counts: list[tuple[str | int, ...]] = [("a", 1, 2, 3, 4), (EVIL, 1, 2, 3, 40)]
    links = {song: f"../dataset/{number}" for number, song in enumerate(SONGS)}
    described = DataSet(EVIL, ["genre", "training songs", EVIL, "test songs", "test chunks"], counts, faults, links)
    return Made(described, parameters=EVIL, versions={EVIL: EVIL}, genres=GENRES)


def _evaluation() -> str:
    sides = {"training": [1.0, 0.5], "validation": [1.1, 0.9]}
    curves = {"merged": {"loss": sides, "accuracy": sides}}
    return render([ModelResult(EVIL, SCORES, PREDICTIONS)], _made([]), curves=curves)


def _comparison() -> str:
    scores = SCORES | {"p_against_best": 0.04, "macro_average_precision": 0.9}
    scores |= {"train_seconds": 161.7, "predict_seconds_per_song": 0.0427, "size_mb": 0.349}
    results = [ModelResult(name, scores, PREDICTIONS * 3) for name in ("merged", EVIL)]
    return render_comparison(results, _made([EVIL]), explained="5 folds.", n_repeats=3, ensemble=["merged", EVIL])


def _text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_the_most_confident_mistake_is_linked() -> None:
    html = _evaluation()
    assert '<a href="../dataset/2">' in html
    assert "99%" in html
    assert "../dataset/1" not in html


def test_a_mistake_made_in_every_repeat_is_one_line_that_says_so() -> None:
    html = _comparison().split("<h2")[2]
    assert html.count('<a href="../dataset/2">') == 1
    assert "times of 3" in html
    assert " a 99% 3 " in _text(html)


def test_the_comparison_says_what_the_figures_rest_on() -> None:
    text = _text(_comparison())
    for stated in ("5 folds.", "0.040", "162", "0.0427", "3 songs", "average of merged", "Known faults"):
        assert stated in text


def test_the_evaluation_says_what_it_costs_to_name_few_songs_of_other_genres() -> None:
    rates = {"genres": 4, "songs": 50, "rates": [{"far": 0.05, "threshold": 0.9431, "lost": 0.125}]}
    html = render([ModelResult("merged", SCORES, PREDICTIONS, rates)], _made([]), curves={})
    assert "5% 94.3% 12.5%" in _text(html)


def test_the_data_set_is_counted_in_all() -> None:
    assert "all 2 4 6 44" in _text(_evaluation())


def test_names_are_escaped_and_nothing_is_loaded() -> None:
    for html in (_evaluation(), _comparison()):
        assert "<script" not in html
        assert "&lt;script&gt;" in html
        assert not re.search(r'(src|href)="(?!data:image/png|#|\.\./)', html)
