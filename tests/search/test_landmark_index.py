"""The landmark index is written in shards, of which unchanged ones are kept; damaged files are refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from genre.audio.manifest import Row
from genre.errors import SearchError
from genre.search import landmark_index, landmarks
from genre.search.engine import IndexedSong
from genre.search.landmark_index import STEPS, LandmarkIndex, group_songs, song_peaks
from genre.search.landmarks import Peaks
from tests.made import music
from tests.search.conftest import DENSITY, landmark_items, write_landmarks

Items = list[tuple[IndexedSong, Peaks]]


@pytest.fixture(scope="module")
def items() -> Items:
    return landmark_items([music(seed, 6.0) for seed in range(4)])


@pytest.fixture
def folder(items: Items, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return an index of two shards."""
    monkeypatch.setattr(landmark_index, "SHARD_SONGS", 2)
    write_landmarks(tmp_path / "landmarks", items)
    return tmp_path / "landmarks"


def _contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_shards_are_read_as_one_index(folder: Path, items: Items) -> None:
    loaded = LandmarkIndex.load(folder, DENSITY)
    assert len(list(folder.glob("*.npy"))) == 2
    assert loaded.songs == [song for song, _ in items]
    for song, (_, peaks) in enumerate(items):
        np.testing.assert_equal(asdict(loaded.peaks(song, 0, peaks.n_frames)), asdict(peaks))
        hashes, times = landmarks.song_hashes(peaks)
        kept = landmarks.in_sample(hashes, DENSITY)
        assert kept.mean() == pytest.approx(DENSITY, abs=0.1)
        occurrences = {(hashes[owner], frame) for owner, frame in zip(*loaded.lookup(hashes), strict=True)}
        frames = np.rint(times) + loaded.begins[song] // STEPS
        assert set(zip(hashes[kept], frames[kept], strict=True)) <= occurrences
        assert {hash_ for hash_, _ in occurrences} == set(hashes[kept])


def test_the_order_of_the_songs_changes_no_byte_and_another_song_one_shard(folder: Path, items: Items) -> None:
    before = _contents(folder)
    write_landmarks(folder.with_name("again"), items[::-1])
    assert _contents(folder.with_name("again")) == before
    write_landmarks(folder, items[:3])
    assert len(before.keys() & _contents(folder).keys() - {"index.json"}) == 1
    write_landmarks(folder, items)
    assert _contents(folder) == before


def test_unchanged_shards_are_kept_and_damaged_ones_are_written_again(folder: Path, items: Items) -> None:
    before = _contents(folder)
    computed: list[str] = []

    def peaks_of(part: Sequence[IndexedSong]) -> list[Peaks]:
        computed.extend(song.song for song in part)
        return [dict(items)[song] for song in part]

    landmark_index.write(folder, dict(items), peaks_of, DENSITY)
    assert computed == []
    damaged = sorted(folder.glob("*.npy"))[0]
    damaged.write_bytes(b"")
    landmark_index.write(folder, dict(items), peaks_of, DENSITY)
    assert len(computed) == 2
    assert _contents(folder) == before


def test_a_changed_byte_is_noticed(folder: Path) -> None:
    path = sorted(folder.glob("*.npy"))[1]
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(SearchError, match=rf"{path.name} is damaged .*: run `dvc repro --force index`"):
        LandmarkIndex.load(folder)


def test_an_index_of_other_settings_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SearchError, match="other settings"):
        LandmarkIndex.load(folder, DENSITY / 2)
    monkeypatch.setitem(landmark_index.SETTINGS, "hop", 512)
    with pytest.raises(SearchError, match="other settings"):
        LandmarkIndex.load(folder)


def test_landmarks_do_not_depend_on_the_block_size(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = song_peaks(music(2, 12.0))
    monkeypatch.setattr(landmarks, "BLOCK_FRAMES", 50)
    np.testing.assert_equal(asdict(song_peaks(music(2, 12.0))), asdict(whole))


def test_of_songs_with_the_same_bytes_only_the_first_is_indexed(caplog: pytest.LogCaptureFixture) -> None:
    rows = [
        Row(f"train/rock/{song}-{i:03d}.wav", song, "rock", "train", 30.0 * i, 30.0, f"dataset/{song}.wav", sha256)
        for song, sha256 in (("copy", "0" * 64), ("a", "0" * 64), ("b", "1" * 64))
        for i in (1, 0)
    ]
    songs = [[(row.song, row.start_s) for row in song] for song in group_songs(rows).values()]
    assert songs == [[("a", 0.0), ("a", 30.0)], [("b", 0.0), ("b", 30.0)]]
    assert "copy.wav is a copy of dataset/a.wav" in caplog.text
