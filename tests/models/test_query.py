"""The genre of a song does not depend on the number of threads, and is that of the part to analyse."""

from __future__ import annotations

from pathlib import Path

import pytest

from genre.audio import chunks, ffmpeg
from genre.errors import AudioError
from genre.models import predict
from genre.models.query import answer
from genre.paths import Paths
from tests.made import ffmpeg_run, make_song, save_svm

SECONDS = 20.0


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("answer")
    save_svm(folder)
    return folder


@pytest.fixture(scope="module")
def song(root: Path) -> Path:
    return make_song(root / "song.flac", seconds=SECONDS)


def test_any_number_of_threads_gives_the_same_answer(root: Path, song: Path) -> None:
    predictor = predict.load("stats_svm", Paths(root))
    expected = answer(song, predictor, workers=1)
    assert [chunk["start"] for chunk in expected["chunks"]] == [0, 3, 6, 9, 12, 15, 18]
    assert expected["duration"] == SECONDS
    for workers in (2, 5):
        assert answer(song, predictor, workers=workers) == expected


def test_the_middle_is_that_part_of_the_song(root: Path, song: Path) -> None:
    predictor = predict.load("stats_svm", Paths(root))
    middle = answer(song, predictor, middle=6.0)
    assert [(chunk["start"], chunk["end"]) for chunk in middle["chunks"]] == [(7, 10), (10, 13)]
    assert middle == answer(song, predictor, start=7.0, duration=6.0)
    assert answer(song, predictor, middle=100.0) == answer(song, predictor)
    (root / "notes.txt").write_text("  Duration: 00:00:01.00, x")
    for name, message in (("absent.mp3", "is not there"), ("notes.txt", r"notes\.txt: cannot be decoded")):
        with pytest.raises(AudioError, match=message):
            answer(root / name, predictor, middle=6.0)


def test_silent_chunks_have_no_vote_and_a_silent_file_has_no_genre(root: Path, song: Path) -> None:
    predictor = predict.load("stats_svm", Paths(root))
    ffmpeg_run("-i", song, song.with_name("plain.wav"))
    samples, sample_rate = chunks.read(song.with_name("plain.wav"))
    samples = samples.copy()
    samples[3 * sample_rate : 9 * sample_rate] = 7
    chunks.write(song.with_name("pause.wav"), samples, sample_rate=sample_rate)
    result = answer(song.with_name("pause.wav"), predictor)
    assert [chunk["start"] for chunk in result["chunks"]] == [0, 9, 12, 15, 18]
    assert sum(result["votes"].values()) == len(result["vector"]) == 5
    assert "2 of 7 chunks are silent and left out" in result["warnings"]
    with pytest.raises(AudioError, match=r"pause\.wav: is silent"):
        answer(song.with_name("pause.wav"), predictor, start=3.0, duration=6.0)


def test_the_middle_of_a_cut_file_is_that_of_what_is_there(root: Path, song: Path) -> None:
    cut = song.with_name("cut.flac")
    cut.write_bytes(song.read_bytes()[: song.stat().st_size * 6 // 10])
    result = answer(cut, predict.load("stats_svm", Paths(root)), middle=6.0)
    seconds = ffmpeg.decoded_seconds(cut)
    assert [chunk["start"] for chunk in result["chunks"]] == pytest.approx([seconds / 2 - 3, seconds / 2], abs=0.001)
    assert any(f"of the {SECONDS:.1f} s that its header states" in warning for warning in result["warnings"])
