"""The landmark index is one file; damaged files and files of other settings are refused."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from genre.audio.manifest import Row
from genre.errors import SearchError
from genre.search import landmarks
from genre.search.landmark_index import LandmarkIndex, Landmarks, group_songs
from tests.made import music
from tests.search.conftest import landmark_index


@pytest.fixture(scope="module")
def index() -> LandmarkIndex:
    return landmark_index([music(seed, 6.0) for seed in range(4)])


@pytest.fixture
def path(index: LandmarkIndex, tmp_path: Path) -> Path:
    index.save(tmp_path / "landmarks.npz")
    return tmp_path / "landmarks.npz"


def test_a_saved_index_is_loaded_and_saved_with_the_same_bytes(path: Path, index: LandmarkIndex) -> None:
    loaded = LandmarkIndex.load(path)
    loaded.save(path.with_name("again.npz"))
    assert loaded.songs == index.songs
    assert path.with_name("again.npz").read_bytes() == path.read_bytes()


def test_a_changed_byte_is_noticed(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(SearchError, match="damaged"):
        LandmarkIndex.load(path)


def test_an_index_of_other_settings_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(landmarks.SETTINGS, "hop", 512)
    with pytest.raises(SearchError, match="other settings"):
        LandmarkIndex.load(path)


def test_landmarks_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Landmarks.of_samples(music(2, 12.0))
    monkeypatch.setattr(landmarks, "BLOCK_FRAMES", 50)
    np.testing.assert_equal(asdict(Landmarks.of_samples(music(2, 12.0))), asdict(whole))


def test_of_songs_with_the_same_bytes_only_the_first_is_indexed(caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        Row(f"train/rock/{song}-{i:03d}.wav", song, "rock", "train", 30.0 * i, 30.0, f"dataset/{song}.wav", sha256)
        for song, sha256 in (("copy", "0" * 64), ("a", "0" * 64), ("b", "1" * 64))
        for i in (1, 0)
    ]
    songs = [[(row.song, row.start_s) for row in song] for song in group_songs(rows)]
    assert songs == [[("a", 0.0), ("a", 30.0)], [("b", 0.0), ("b", 30.0)]]
    assert "copy.wav is a copy of dataset/a.wav" in caplog.text
