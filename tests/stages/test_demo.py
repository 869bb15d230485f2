"""The stage demo writes songs of every style that can be decoded."""

from __future__ import annotations

from pathlib import Path

import pytest

from genre.demo import styles
from genre.errors import DatasetError
from genre.models import cards
from genre.paths import SYNTHETIC, Paths
from stages import demo


@pytest.mark.slow
def test_each_style_has_a_folder_with_its_songs(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    assert demo.main(["--out", str(folder), "--songs", "1"]) == 0
    songs = {path.relative_to(folder).as_posix() for path in folder.glob("*/*")}
    assert songs == {song.file for song in styles.plan(2016, 1)}
    assert {path.name for path in folder.iterdir()} == {*styles.STYLES, SYNTHETIC}


def test_the_card_of_a_model_knows_that_its_songs_were_synthetic_under_any_name(tmp_path: Path) -> None:
    (tmp_path / "dataset" / "real" / "jazz").mkdir(parents=True)
    styles.write([], tmp_path / "dataset" / "other name")
    paths = Paths(tmp_path)
    described = {name: cards.describe_dataset(name, ["a", "a"], paths) for name in ("real", "other name")}
    assert [card["synthetic"] for card in described.values()] == [False, True]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "Mine.mp3").write_bytes(b"")
    with pytest.raises(DatasetError, match="is not empty: remove it"):
        demo.main(["--out", str(tmp_path), "--songs", "1"])
    assert [path.name for path in tmp_path.iterdir()] == ["Mine.mp3"]
