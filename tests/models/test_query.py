"""The genre of a song does not depend on the number of threads, and is that of the part to analyse."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from genre.audio import ffmpeg
from genre.audio.ffmpeg import executable
from genre.errors import AudioError
from genre.models import predict
from genre.models.query import answer
from genre.parallel import map_threads
from genre.paths import Paths
from tests.made import MakeSong, save_svm

SECONDS = 20.0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answer")
    save_svm(folder)
    return folder


@pytest.fixture(scope="module")
def song(root: Path, make_song: MakeSong) -> Path:
    return make_song(root / "song.flac", seconds=SECONDS)


def recoded(song: Path, name: str, *options: str) -> Path:
    target = song.with_name(name)
    subprocess.run([executable(), "-v", "error", "-y", "-i", song, *options, target], check=True)
    return target


def test_any_number_of_threads_gives_the_same_answer(root: Path, song: Path) -> None:
    predictor = predict.load("stats_svm", Paths(root))
    expected = answer(song, predictor, workers=1)
    assert [chunk["start"] for chunk in expected["chunks"]] == [0, 3, 6, 9, 12, 15, 18]
    assert expected["duration"] == SECONDS
    for workers in (2, 5):
        assert answer(song, predictor, workers=workers) == expected


def test_the_middle_is_in_the_middle(root: Path, song: Path) -> None:
    predictor = predict.load("stats_svm", Paths(root))
    found = answer(song, predictor, middle=6.0)
    assert [(chunk["start"], chunk["end"]) for chunk in found["chunks"]] == [(7, 10), (10, 13)]
    assert found == answer(song, predictor, start=7.0, duration=6.0)
    assert answer(song, predictor, middle=100.0) == answer(song, predictor)
    with pytest.raises(AudioError, match="is not there"):
        answer(song.with_name("absent.mp3"), predictor, middle=6.0)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("header.mp3", ["-q:a", "4"]),
        ("no header.mp3", ["-q:a", "4", "-write_xing", "0"]),
        ("raw.aac", []),
        ("title.ogg", ["-metadata", "title=\n  Duration: 00:10:00.00, x"]),
    ],
)
def test_the_duration_is_the_true_one_whatever_the_header_says(song: Path, name: str, options: list[str]) -> None:
    assert ffmpeg.seconds_of(recoded(song, name, *options)) == pytest.approx(SECONDS, abs=0.12)  # codecs pad


def test_what_is_no_audio_has_no_duration(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("  Duration: 00:00:01.00, x")
    assert ffmpeg.seconds_of(tmp_path / "notes.txt") is None


def test_results_come_in_order_and_few_items_wait() -> None:
    taken = 0
    first_may_end = threading.Event()

    def items() -> Iterator[int]:
        nonlocal taken
        for number in range(50):
            taken = number + 1
            if taken == 3:
                first_may_end.set()
            yield number

    def square(number: int) -> int:
        if number == 0:
            assert first_may_end.wait(10)  # another was begun meanwhile
        return number**2

    results = map_threads(square, items(), 2)
    assert next(results) == 0
    assert taken <= 4
    assert list(results) == [number**2 for number in range(1, 50)]


def test_an_error_in_a_thread_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        list(map_threads(lambda number: 1 / number, [1, 0, 1], 2))


def test_a_song_of_many_hours_takes_no_more_memory() -> None:
    held: list[int] = []
    living = 0

    class Item:
        def __init__(self) -> None:
            nonlocal living
            living += 1
            self.samples = np.zeros(10)

        def __del__(self) -> None:
            nonlocal living
            living -= 1

    for size in map_threads(lambda item: item.samples.size, (Item() for _ in range(200)), 2):
        held.append(living)
        assert size == 10
    assert max(held) <= 6
