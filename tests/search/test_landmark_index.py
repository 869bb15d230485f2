"""The landmark index: songs come and go, one file holds it, and nothing damaged or foreign is read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from genre.errors import SearchError
from genre.search import landmarks
from genre.search.landmark_index import Fingerprint, Index, Song, fingerprint
from tests.search.conftest import Music

Item = tuple[Song, Fingerprint]


@pytest.fixture(scope="module")
def items(music: Music) -> list[Item]:
    return [(Song(f"{seed:064x}", f"song{seed}", "made"), fingerprint(music(seed, 6.0))) for seed in range(4)]


def _same(one: Index, other: Index) -> bool:
    arrays = ("keys", "places", "peak_places", "peak_bins")
    return one.songs == other.songs and all(np.array_equal(getattr(one, a), getattr(other, a)) for a in arrays)


def test_songs_one_at_a_time_or_at_once_make_the_same_index(items: list[Item]) -> None:
    at_once, one_by_one = Index.empty().with_songs(items), Index.empty()
    for item in items:
        one_by_one = one_by_one.with_songs([item])
    assert _same(at_once, one_by_one)


def test_removing_a_song_leaves_what_there_would_be_without_it(items: list[Item]) -> None:
    index = Index.empty().with_songs(items).without({items[1][0].sha256, "unknown"})
    assert _same(index, Index.empty().with_songs([items[0], *items[2:]]))


def test_a_changed_song_replaces_the_one_of_its_name(items: list[Item]) -> None:
    changed = (Song("f" * 64, "song1", "made"), items[3][1])
    index = Index.empty().with_songs(items[:3]).with_songs([changed])
    assert {song.sha256 for song in index.songs} == {items[0][0].sha256, items[2][0].sha256, "f" * 64}


def test_adding_what_is_there_changes_no_content(items: list[Item]) -> None:
    index = Index.empty().with_songs(items)
    assert index.with_songs(items[:2]).digest() == index.digest()


def test_the_digest_is_of_the_contents_and_not_of_their_order(items: list[Item]) -> None:
    index = Index.empty().with_songs(items)
    assert Index.empty().with_songs(items[::-1]).digest() == index.digest()
    assert index.without({items[0][0].sha256}).digest() != index.digest()


def test_a_saved_index_is_read_back_and_written_alike(items: list[Item], tmp_path: Path) -> None:
    index = Index.empty().with_songs(items)
    index.save(tmp_path / "a.npz")
    loaded = Index.load(tmp_path / "a.npz")
    loaded.save(tmp_path / "b.npz")
    assert _same(index, loaded)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_a_fingerprint_goes_through_bytes(items: list[Item]) -> None:
    before = items[0][1]
    after = Fingerprint.from_bytes(before.to_bytes())
    np.testing.assert_array_equal(before.keys, after.keys)
    np.testing.assert_array_equal(before.peak_bins, after.peak_bins)
    assert after.n_frames == before.n_frames


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04" + bytes(50)])
def test_a_damaged_file_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "landmarks.npz"
    path.write_bytes(content)
    with pytest.raises(SearchError, match="damaged"):
        Index.load(path)


def test_a_truncated_file_is_refused(items: list[Item], tmp_path: Path) -> None:
    path = tmp_path / "landmarks.npz"
    Index.empty().with_songs(items).save(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises(SearchError, match="damaged"):
        Index.load(path)


@pytest.mark.parametrize("change", [{"keys": np.full(5, 2**31, "<u4")}, {"places": np.zeros(3, "<u4")}])
def test_arrays_that_make_no_sense_are_refused(
    change: dict[str, npt.NDArray[np.uint32]], items: list[Item], tmp_path: Path
) -> None:
    path = tmp_path / "landmarks.npz"
    Index.empty().with_songs(items).save(path)
    with np.load(path) as arrays:
        np.savez(path, **{**arrays, **change})
    with pytest.raises(SearchError, match="damaged"):
        Index.load(path)


def test_pickles_are_not_read(tmp_path: Path) -> None:
    path = tmp_path / "landmarks.npz"
    np.savez(path, head=np.array([{"a": 1}], dtype=object))
    with pytest.raises(SearchError, match="damaged"):
        Index.load(path)


def test_no_file_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(SearchError, match="dvc repro index"):
        Index.load(tmp_path / "landmarks.npz")


def test_landmarks_of_other_settings_are_refused(
    items: list[Item], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as other:
        other.setitem(landmarks.SETTINGS, "hop", 512)
        Index.empty().with_songs(items).save(tmp_path / "landmarks.npz")
    with pytest.raises(SearchError, match="hop 512"):
        Index.load(tmp_path / "landmarks.npz")
