"""The reports show scores, errors and their data set, and no name in them is read as HTML.

The provenance of scores counts the songs of a data set, lists the issues its files show, and links its songs.
"""

from __future__ import annotations

import functools
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from genre import params
from genre.audio import corrections, manifest
from genre.evaluation import comparison, metrics, report
from genre.features.arrays import VectorSet
from genre.paths import Paths
from tests.made import ROOT, write_params

pytestmark = pytest.mark.slow

HTML_NAME = "<script>alert(1)</script>\" onload='x'"
GENRES = ["a", HTML_NAME]
LABELS, SONGS = np.array([0, 1, 1]), ["a/fine", "b/right", f"b/{HTML_NAME}"]
PROBABILITIES = np.array([[0.9, 0.1], [0.2, 0.8], [0.99, 0.01]], dtype=np.float32)
PREDICTIONS = metrics.by_song(PROBABILITIES, LABELS, SONGS)
RESULT = metrics.Result(HTML_NAME, metrics.scores(PREDICTIONS), [PREDICTIONS])


def _counts(genre: str, test_chunks: int) -> dict[str, Any]:
    return {"genre": genre, "train_songs": 1, "train_chunks": 2, "test_songs": 3, "test_chunks": test_chunks}


def _provenance(issues: list[str]) -> report.Provenance:
    links = {song: f"../dataset/{number}" for number, song in enumerate(SONGS)}
    counts, versions = [_counts("a", 4), _counts(HTML_NAME, 40)], {HTML_NAME: HTML_NAME}
    return report.Provenance(HTML_NAME, GENRES, counts, HTML_NAME, issues, links, HTML_NAME, versions)


@functools.cache
def _evaluation() -> str:
    splits = [(split, epoch) for split in ("training", "validation") for epoch in (1, 2)]
    rows = [("merged", "loss", split, epoch, 1 / epoch) for split, epoch in splits]
    curves = pd.DataFrame(rows, columns=["model", "measure", "split", "epoch", "value"])
    values = {"curves": curves, "default": HTML_NAME, "stress": []}
    return report.html("evaluation.html", [RESULT, RESULT._replace(model="other")], _provenance([]), **values)


def _results() -> list[metrics.Result]:
    rows = np.arange(3)
    folds = [comparison.Fold(repeat, 0, rows, rows) for repeat in range(3)]
    costs = np.array([161.7, 0.0427, 349_000])
    outcomes = [comparison.Outcome(PROBABILITIES, costs, rows, PROBABILITIES) for _ in folds]
    results = comparison.rank(
        {"merged": outcomes, HTML_NAME: outcomes}, folds, VectorSet({}, LABELS, SONGS, GENRES, SONGS)
    )
    return [result._replace(scores=result.scores | {"p_against_best": 0.04}) for result in results]


@functools.cache
def _comparison() -> str:
    score = {"n_songs": 3, "accuracy": 0.9, "accuracy_low": 0.8, "accuracy_high": 1.0}
    losses = {"unchanged": 0.0, "mp3": 5.0, "opus": 7.5}
    stress = [{"model": "merged", "change": name, "loss_points": loss, **score} for name, loss in losses.items()]
    sizes = [{"model": "merged", "songs_per_genre": n, "by_song": False, **RESULT.scores} for n in (5, 10)]
    tables = {"stress": stress, "curve": sizes}
    values = {"options": params.load(ROOT / "params.yaml").compare, "group_by": None, "ensemble": ["merged", HTML_NAME]}
    return report.html("comparison.html", _results(), _provenance([HTML_NAME]), **values, **tables)


def _text(html: str) -> str:
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


def test_the_most_confident_error_is_linked_and_in_repeats_is_one_row_with_its_count() -> None:
    html = _evaluation()
    assert '<a href="../dataset/2">' in html and "99%" in html
    assert "../dataset/1" not in html
    compared = _comparison().split("<h2")[3]
    assert compared.count('<a href="../dataset/2">') == 1
    assert "repeats of 3" in compared and " a 99% 3 " in _text(compared)


def test_the_comparison_states_its_method_costs_and_issues() -> None:
    text = _text(_comparison())
    stated = ["5 folds by song, 3 repeats with other seeds.", "0.040", "162", "0.0427", "3 songs", "all 8 48"]
    for part in [*stated, "average of merged", "Few songs", "Known issues"]:
        assert part in text


def test_the_markdown_table_has_one_row_per_model() -> None:
    lines = report.markdown(_results()).splitlines()
    assert len(lines) == 4
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| merged | 3 | 66.7% (20.7 to 93.9 %) | ")
    assert lines[2].endswith("| 162 | 0.0427 | 0.349 | |")
    assert lines[3].endswith("| 0.040 |")


def test_every_score_has_its_interval_and_number_of_songs() -> None:
    evaluation, compared = _text(_evaluation()), _text(_comparison())
    for text in (evaluation, compared):
        assert "3 66.7% 20.7 to 93.9 %" in text
        assert "over 3 songs" in text
        assert not re.search(r"100(\.0)? to 100", text)
    assert " a 1 100.0% 20.6 to 100.0 % " in compared  # recall by genre
    assert "all 2 4 6 44" in evaluation  # the songs and chunks of all genres


def test_what_the_scores_hide_is_a_red_sentence() -> None:
    results = [RESULT._replace(model=model) for model in ("merged", "recording")]
    html = report.html("evaluation.html", results, _provenance([]), default="merged", stress=[])
    (warning,) = re.findall('<p class="warning">(.*?)</p>', html, re.DOTALL)
    assert "alone are right for 66.7% of 3 songs" in _text(warning) and "interval of merged" in _text(warning)
    assert "warning" not in re.sub("<style>.*</style>", "", _evaluation(), flags=re.DOTALL)
    (of_stress,) = re.findall('<p class="warning">(.*?)</p>', _comparison(), re.DOTALL)
    assert "Of 3 songs" in of_stress and "opus 7.5. Expect errors" in _text(of_stress) and "mp3" not in of_stress


def test_the_model_that_query_answers_with_is_marked() -> None:
    rows = re.findall(r"<tr><td><a href=\"#model-\d\">.*?</td>", _evaluation())
    assert [row.endswith("</a> *</td>") for row in rows] == [True, False]
    assert "answer with &lt;script" in _evaluation()


def test_names_are_escaped_nothing_is_loaded_and_links_lead_to_the_page_or_a_song() -> None:
    for html in (_evaluation(), _comparison()):
        assert "<script" not in html and "&lt;script&gt;" in html
        assert not re.search(r'(src|href)="(?!data:image/png|#|\.\./)', html)
        links = set(re.findall(r'href="([^"]+)"', html))
        assert links and all(link.startswith("../dataset/") or f'id="{link[1:]}"' in html for link in links)


def _describe(folder: Path, name: str, *, failures: str = "", group_by: str | None = None) -> report.Provenance:
    rows = [
        manifest.Row("train/a/x-000.wav", "x", "a", "train", 0.0, 3.0, "dataset/tiny/a/x #1.mp3", "1" * 64),
        manifest.Row("train/a/x-001.wav", "x", "a", "train", 3.0, 3.0, "dataset/tiny/a/x #1.mp3", "1" * 64),
        manifest.Row("train/b/y-000.wav", "y", "b", "train", 0.0, 2.0, "dataset/tiny/b/y.mp3", "2" * 64),
        manifest.Row("test/b/z-000.wav", "z", "b", "test", 0.0, 3.0, "dataset/tiny/b/z.mp3", "2" * 64),
    ]
    manifest.write(folder / "chunks", rows)
    (folder / "chunks" / "failures.csv").write_text("source,reason\n" + failures)
    write_params(folder, dataset__name=name, split__group_by=group_by)
    return report.provenance(params.load(folder / "params.yaml"), Paths(folder), ["a", "b"])


def test_songs_are_counted_by_split_and_linked_and_the_issues_of_their_files_are_listed(tmp_path: Path) -> None:
    card = _describe(tmp_path, "gtzan-mini", failures="dataset/tiny/a/bad.mp3,no audio\n")
    assert card.counts == [
        {"genre": "a", "train_songs": 1, "train_chunks": 2, "test_songs": 0, "test_chunks": 0},
        {"genre": "b", "train_songs": 1, "train_chunks": 1, "test_songs": 1, "test_chunks": 1},
    ]
    known, copies, failed, short = card.issues
    assert "Sturm" in known and "another song: 1 (" in copies
    assert "decoding failed: 1 (" in failed and short == "Chunks shorter than 3 s, filled by repetition: 1."
    assert card.links["a/x"] == "../dataset/tiny/a/x%20%231.mp3"


def test_the_artist_filter_and_the_corrections_are_shown(tmp_path: Path) -> None:
    for song, genre in (("a/x #1", "b"), ("a/z", "drop"), ("b/y", "a")):
        corrections.add(Paths(tmp_path).corrections("tiny"), song, genre)
    card = _describe(tmp_path, "tiny", group_by="artist")
    assert card.artist_filter == "yes, 3 groups of 3 songs by artist"
    assert "Songs with a corrected genre: 2; dropped: 1." in card.issues
    assert _describe(tmp_path, "tiny").artist_filter.startswith("no")
