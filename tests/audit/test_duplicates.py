"""The same recording is found whatever was done to it, once, and nothing else is."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks.degradations import change_speed, mix, pink_noise
from genre.audit import duplicates
from genre.search import landmarks
from tests.made import Signal, music
from tests.search.conftest import landmark_items, write_landmarks

SONG_S = 75.0
SPEED = 1.02


def _part(song: Signal, start_s: float, end_s: float) -> Signal:
    return song[round(start_s * landmarks.SAMPLE_RATE) : round(end_s * landmarks.SAMPLE_RATE)]


@pytest.fixture(scope="module")
def songs() -> list[Signal]:
    """Return three songs; the last repeats itself."""
    loop = music(3, 25.0)
    return [music(1, SONG_S), music(2, SONG_S), np.concatenate([loop, loop, loop])]


@pytest.mark.parametrize(
    ("copy", "offset_s", "speed"),
    [
        (lambda song: song / 4, 0.0, 1.0),
        (lambda song: mix(song, pink_noise(len(song), np.random.default_rng(0)), 10.0), 0.0, 1.0),
        (lambda song: change_speed(song, SPEED), 0.0, SPEED),
        (lambda song: _part(song, 40.0, 60.0), 40.0, 1.0),
        (lambda song: _part(song, 8.0, SONG_S), 8.0, 1.0),
        (lambda song: np.concatenate([music(9, 10.0), _part(song, 20.0, SONG_S)]), 10.0, 1.0),
    ],
    ids=["level", "noise", "faster", "excerpt", "start missing", "another start"],
)
def test_a_copy_is_found_once_with_its_offset(songs, copy, offset_s: float, speed: float, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    write_landmarks(tmp_path, landmark_items([*songs, copy(songs[0])]))
    (match,) = duplicates.matches(tmp_path, 1)
    assert {int(match.song, 16), int(match.other, 16)} == {0, 3}
    forwards = int(match.song, 16) == 3
    assert match.speed ** (1 if forwards else -1) == pytest.approx(speed, abs=0.006)
    assert match.n_agreeing > 50
    assert match.offset_s * (1 if forwards else -1) == pytest.approx(offset_s, abs=0.5)
