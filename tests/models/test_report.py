"""The report shows what was measured, and no name in it can be more than a name."""

from __future__ import annotations

import numpy as np

from stages.models import evaluation
from stages.models.report import ModelResult, render

EVIL = "<script>alert(1)</script>\" onload='x'"


def _render() -> str:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.99, 0.01]], dtype=np.float32)
    labels, songs = np.array([0, 1, 1]), ["a/fine", "b/right", f"b/{EVIL}"]
    predictions = evaluation.by_song(probabilities, labels, songs)
    return render(
        [ModelResult("merged", evaluation.scores(probabilities, labels, songs), predictions)],
        genres=["a", EVIL],
        sources={song: f"../dataset/{number}" for number, song in enumerate(songs)},
        dataset_name=EVIL,
        dataset=[["a", 1, 2, 3, 4], [EVIL, 1, 2, 3, 4]],
        curves={"merged": {"training": [1.0, 0.5], "validation": [1.1, 0.9]}},
        parameters=EVIL,
        versions={EVIL: EVIL},
        faults="",
    )


def test_the_most_confident_mistake_is_linked() -> None:
    html = _render()
    assert '<a href="../dataset/2">' in html
    assert "99%" in html
    assert "../dataset/1" not in html


def test_names_are_escaped() -> None:
    html = _render()
    assert "<script" not in html
    assert "&lt;script&gt;" in html
