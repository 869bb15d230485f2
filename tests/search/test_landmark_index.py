"""The landmark index is one file; damaged files and files of other settings are refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from genre.audio.manifest import Row
from genre.errors import SearchError
from genre.search import landmarks
from genre.search.engine import IndexedSong
from genre.search.landmark_index import LandmarkIndex, Landmarks, group_songs
from tests.search.conftest import music


@pytest.fixture(scope="module")
def index() -> LandmarkIndex:
    names = [IndexedSong(f"{seed:064x}", f"song{seed}", "synthetic") for seed in range(4)]
    return LandmarkIndex.build([(name, Landmarks.of_samples(music(i, 6.0))) for i, name in enumerate(names)])


@pytest.fixture
def path(index: LandmarkIndex, tmp_path: Path) -> Path:
    index.save(tmp_path / "landmarks.npz")
    return tmp_path / "landmarks.npz"


def test_a_saved_index_is_loaded_and_saved_with_the_same_bytes(path: Path, index: LandmarkIndex) -> None:
    loaded = LandmarkIndex.load(path)
    loaded.save(path.with_name("again.npz"))
    assert loaded.songs == index.songs
    assert path.with_name("again.npz").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + bytes(50)])
def test_a_damaged_file_is_refused(content: bytes, path: Path) -> None:
    path.write_bytes(content or path.read_bytes()[:-2000])
    with pytest.raises(SearchError, match="damaged"):
        LandmarkIndex.load(path)


@pytest.mark.parametrize(
    "change",
    [
        {"positions": np.zeros(3, "<u4")},
        {"peak_positions": np.full(3, 2**31, "<u4"), "peak_bins": np.ones(3, "<f4")},
        {"peak_positions": np.ones(3, "<u4"), "peak_bins": np.full(3, np.nan, "<f4")},
        {"head": np.array([{"a": 1}], dtype=object)},
    ],
)
def test_inconsistent_arrays_are_refused(change: dict[str, npt.NDArray[np.generic]], path: Path) -> None:
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, **change})
    with pytest.raises(SearchError, match="damaged"):
        LandmarkIndex.load(path)


def test_a_missing_file_names_the_command(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="dvc repro index"):
        LandmarkIndex.load(tmp_path / "landmarks.npz")


def test_an_index_of_other_settings_is_refused(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(landmarks.SETTINGS, "hop", 512)
    with pytest.raises(SearchError, match="other settings"):
        LandmarkIndex.load(path)


def test_of_songs_with_the_same_bytes_only_the_first_is_indexed(caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        Row(f"train/rock/{song}-{i:03d}.wav", song, "rock", "train", 30.0 * i, 30.0, f"dataset/{song}.wav", sha256)
        for song, sha256 in (("copy", "0" * 64), ("a", "0" * 64), ("b", "1" * 64))
        for i in (1, 0)
    ]
    songs = group_songs(rows)
    assert [[row.chunk for row in song] for song in songs] == [
        ["train/rock/a-000.wav", "train/rock/a-001.wav"],
        ["train/rock/b-000.wav", "train/rock/b-001.wav"],
    ]
    assert "copy.wav is a copy of dataset/a.wav" in caplog.text
