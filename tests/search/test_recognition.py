"""Recognition rates, false acceptance and offset errors of an engine."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from benchmarks import recognition
from benchmarks.degradations import CONDITIONS, SAMPLE_RATE
from genre.audio import chunks
from genre.errors import SearchError
from genre.search.engine import Candidate, IndexedSong
from tests.made import music, pcm


@pytest.fixture(scope="module")
def songs(tmp_path_factory: pytest.TempPathFactory) -> list[recognition.Recording]:
    folder = tmp_path_factory.mktemp("songs")
    for seed in range(3):
        chunks.write(folder / f"{seed}.wav", pcm(music(seed + 1, 8.0, SAMPLE_RATE)), sample_rate=SAMPLE_RATE)
    return [recognition.Recording(f"{seed:064x}", folder / f"{seed}.wav", 8 * SAMPLE_RATE) for seed in range(3)]


def _measured(songs: list[recognition.Recording], engine: Any, **changes: Any) -> pd.DataFrame:
    options: dict[str, Any] = {"conditions": CONDITIONS[:1], "seconds": [4.0], "n_snippets": 4, "seed": 1} | changes
    return recognition.measure(songs, engine, **options)


class _AlwaysFirst:
    """An engine that names the first song that is not left out, with a score of 0.7."""

    def load(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> None:
        return None

    def recognise(self, snippet: None, *, without: Collection[str] = ()) -> list[Candidate]:
        names = (f"{i:064x}" for i in range(3))
        return [Candidate(IndexedSong(sha256, "x", "rock"), 0.0, 1.0, 0.7) for sha256 in names if sha256 not in without]


@pytest.mark.slow
def test_wrong_songs_and_false_acceptances_are_counted_from_min_score(songs: list[recognition.Recording]) -> None:
    outcomes = _measured(songs, _AlwaysFirst(), n_snippets=100)
    row = recognition.summary(outcomes, min_score=0.5).iloc[0]
    assert row["top1"] == pytest.approx(33, abs=1)
    assert row["wrong"] == pytest.approx(67, abs=1)
    assert row["false_acceptance"] == 100
    row = recognition.summary(outcomes, min_score=0.8).iloc[0]
    assert (row["top1"], row["wrong"], row["false_acceptance"]) == (0, 0, 0)


def test_the_same_seed_gives_the_same_snippets(songs: list[recognition.Recording]) -> None:
    first, second = (_measured(songs, _AlwaysFirst(), conditions=CONDITIONS[3:6]).drop(columns="ms") for _ in range(2))
    pd.testing.assert_frame_equal(first, second)


def test_snippets_longer_than_the_songs_are_refused(songs: list[recognition.Recording]) -> None:
    with pytest.raises(SearchError, match="two songs of 9 s or more"):
        _measured(songs, _AlwaysFirst(), seconds=[9.0])
