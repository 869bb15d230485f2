"""What a report says of a data set: counts, faults that its files show, links to its songs."""

from __future__ import annotations

from pathlib import Path

from genre.audio import manifest
from genre.audio.manifest import Row
from genre.evaluation import dataset_card


def _describe(folder: Path, name: str, *, divided: bool = True, failures: str = "") -> dataset_card.DataSet:
    rows = [
        Row("train/a/x-000.wav", "x", "a", "train", 0.0, 3.0, "dataset/tiny/a/x #1.mp3", "1" * 64),
        Row("train/a/x-001.wav", "x", "a", "train", 3.0, 3.0, "dataset/tiny/a/x #1.mp3", "1" * 64),
        Row("train/b/y-000.wav", "y", "b", "train", 0.0, 2.0, "dataset/tiny/b/y.mp3", "2" * 64),
        Row("test/b/z-000.wav", "z", "b", "test", 0.0, 3.0, "dataset/tiny/b/z.mp3", "2" * 64),
    ]
    manifest.write(folder, rows)
    (folder / "failures.csv").write_text("source,reason\n" + failures)
    return dataset_card.describe(name, folder, genres=["a", "b"], chunk_seconds=3.0, divided=divided)


def test_songs_and_chunks_are_counted_by_side_or_together(tmp_path: Path) -> None:
    assert _describe(tmp_path, "tiny").counts == [("a", 1, 2, 0, 0), ("b", 1, 1, 1, 1)]
    together = _describe(tmp_path, "tiny", divided=False)
    assert together.header == ["genre", "songs", "chunks"]
    assert together.counts == [("a", 1, 2), ("b", 2, 2)]


def test_copies_short_songs_and_undecodable_files_are_faults(tmp_path: Path) -> None:
    copies, failed, short = _describe(tmp_path, "tiny", failures="dataset/tiny/a/bad.mp3,no audio\n").faults
    assert "b/y = b/z" in copies
    assert failed.startswith("1 file was left out")
    assert short.startswith("1 chunk was shorter than 3 s")


def test_what_is_known_of_a_data_set_is_told_by_its_name(tmp_path: Path) -> None:
    assert any("Sturm" in fault for fault in _describe(tmp_path, "gtzan-mini").faults)


def test_a_song_is_linked_from_a_folder_beside_the_chunks(tmp_path: Path) -> None:
    assert _describe(tmp_path, "tiny").links["a/x"] == "../dataset/tiny/a/x%20%231.mp3"


def test_the_digest_changes_with_the_vectors_and_with_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "genres.json").write_text("[]")
    first = dataset_card.digest(tmp_path)
    (tmp_path / "notes.txt").write_text("none of the vectors")
    assert dataset_card.digest(tmp_path) == first
    (tmp_path / "genres.json").write_text("[1]")
    assert dataset_card.digest(tmp_path) != first
