"""Corrections of genres by a table, whoever wrote it."""

from __future__ import annotations

from pathlib import Path

import pytest

from genre.audio import corrections, dataset
from genre.errors import DatasetError
from tests.made import touch

FOLDER = Path("dataset/tiny")


@pytest.fixture
def songs(project: Path) -> list[dataset.Song]:
    names = "jazz/a.mp3", "jazz/b.mp3", "jazz/disc 1/c.mp3", "pop/a.mp3", "pop/b.mp3", "rock/a.mp3", "rock/z.mp3"
    touch(FOLDER, "rock/y.mp3", "rock/y.flac")
    touch(FOLDER, *names)
    return dataset.scan(FOLDER)


def _applied(songs: list[dataset.Song], text: str, encoding: str = "utf-8") -> dict[str, tuple[str, str]]:
    """Return genre and name of each song after the corrections of a file."""
    Path("tiny.csv").write_bytes(text.encode(encoding))
    corrected = corrections.apply(songs, Path("tiny.csv"), FOLDER)
    return {song.path.relative_to(FOLDER).as_posix(): (song.genre, song.name) for song in corrected}


def test_corrections_are_added_replaced_and_undone(project: Path) -> None:
    path = project / "corrections" / "tiny.csv"
    assert corrections.read(path) == [] and corrections.undo(path) is None
    for song, genre, reason in (("jazz/a, b.mp3", "rock", 'a "live" one, I think'), ("jazz/c", "drop", "noise")):
        corrections.add(path, song, genre, reason)
    corrections.add(path, "jazz/a, b.mp3", "pop")
    assert [(c.song, c.genre, c.reason) for c in corrections.read(path)] == [
        ("jazz/c", "drop", "noise"),
        ("jazz/a, b.mp3", "pop", ""),
    ]
    undone = corrections.undo(path)
    assert undone is not None and (undone.genre, len(undone.date)) == ("pop", len("2026-01-31"))
    assert [c.song for c in corrections.read(path)] == ["jazz/c"]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_songs_get_their_genres_and_new_names_where_theirs_are_taken(
    songs: list[dataset.Song], encoding: str, caplog: pytest.LogCaptureFixture
) -> None:
    rows = ["reason,genre,song", ",rock,jazz\\a", ", rock ,pop/a.mp3", "", "a b,drop,pop/b", "x,funk,jazz/disc 1/c"]
    applied = _applied(songs, "\r\n".join(rows), encoding)
    assert applied["jazz/b.mp3"] == ("jazz", "b") and applied["rock/z.mp3"] == ("rock", "z")
    assert applied["jazz/disc 1/c.mp3"] == ("funk", "c") and "pop/b.mp3" not in applied
    assert len({applied[f"{genre}/a.mp3"] for genre in ("jazz", "pop", "rock")}) == 3
    assert {applied[f"{genre}/a.mp3"][0] for genre in ("jazz", "pop", "rock")} == {"rock"}
    assert caplog.messages == ["tiny.csv, line 6: the genre funk has no folder: it is a new one"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("jazz/a,rock\njazz/none,rock", "tiny.csv, line 3: jazz/none is not in dataset/tiny/"),
        ("rock/y.mp3,pop\nrock/y,pop", "tiny.csv, line 3: rock/y is not in dataset/tiny/: write .*extension"),
        ("jazz/a,rock\njazz/a.mp3,drop", "tiny.csv, line 3: jazz/a.mp3 has two corrections"),
        ("jazz/a,=rock", "tiny.csv, line 2: the genre name '=rock' would be a formula"),
        ("jazz/a,", "tiny.csv, line 2: has no song or no genre"),
        ("jazz/a,drop\njazz/b,drop\njazz/disc 1/c,drop\npop/a,drop\npop/b,drop", "songs of 1 genre"),
    ],
)
def test_a_wrong_row_is_named_with_file_and_line(songs: list[dataset.Song], rows: str, message: str) -> None:
    with pytest.raises(DatasetError, match=message):
        _applied(songs, f"song,genre\n{rows}\n")
