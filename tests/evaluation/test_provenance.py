"""The provenance of scores counts the songs of a data set, lists the issues its files show, and links its songs."""

from __future__ import annotations

from pathlib import Path

from genre import params
from genre.audio import corrections, manifest
from genre.evaluation import report
from genre.paths import Paths
from tests.made import write_params


def _describe(folder: Path, name: str, *, failures: str = "", group_by: str | None = None) -> report.Provenance:
    rows = [
        manifest.Row("train/a/x-000.wav", "x", "a", "train", 0.0, 3.0, "dataset/tiny/a/x #1.mp3", "1" * 64),
        manifest.Row("train/a/x-001.wav", "x", "a", "train", 3.0, 3.0, "dataset/tiny/a/x #1.mp3", "1" * 64),
        manifest.Row("train/b/y-000.wav", "y", "b", "train", 0.0, 2.0, "dataset/tiny/b/y.mp3", "2" * 64),
        manifest.Row("test/b/z-000.wav", "z", "b", "test", 0.0, 3.0, "dataset/tiny/b/z.mp3", "2" * 64),
    ]
    manifest.write(folder / "chunks", rows)
    Paths(folder).vectors.mkdir(exist_ok=True)
    (folder / "chunks" / "failures.csv").write_text("source,reason\n" + failures)
    write_params(folder, dataset__name=name, split__group_by=group_by)
    return report.provenance(params.load(folder / "params.yaml"), Paths(folder), ["a", "b"])


def test_songs_are_counted_by_split_and_linked_and_the_issues_of_their_files_are_listed(tmp_path: Path) -> None:
    card = _describe(tmp_path, "gtzan-mini", failures="dataset/tiny/a/bad.mp3,no audio\n")
    assert card.counts == [
        {"genre": "a", "train_songs": 1, "train_chunks": 2, "test_songs": 0, "test_chunks": 0},
        {"genre": "b", "train_songs": 1, "train_chunks": 1, "test_songs": 1, "test_chunks": 1},
    ]
    known, copies, failed, short = card.issues
    assert "Sturm" in known and "another song: 1 (" in copies
    assert "decoding failed: 1 (" in failed and short == "Chunks shorter than 3 s, filled by repetition: 1."
    assert card.links["a/x"] == "../dataset/tiny/a/x%20%231.mp3"


def test_the_artist_filter_and_the_corrections_are_shown(tmp_path: Path) -> None:
    for song, genre in (("a/x #1", "b"), ("a/z", "drop"), ("b/y", "a")):
        corrections.add(Paths(tmp_path).corrections("tiny"), song, genre)
    card = _describe(tmp_path, "tiny", group_by="artist")
    assert card.artist_filter == "yes, 3 groups of 3 songs by artist"
    assert "Songs with a corrected genre: 2; dropped: 1." in card.issues
    assert _describe(tmp_path, "tiny").artist_filter.startswith("no")
