"""Vectors are read back exactly, and no pickle of anything but an array is loaded."""

from __future__ import annotations

import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genre.audio.manifest import SPLITS, Row
from genre.errors import VectorError
from genre.features import arrays
from genre.features.transforms import Settings
from tests.made import write_vectors

SETTINGS = Settings(22_050, 30.0, 10.0)


def _write_all(folder: Path, genres: str = "xyyx") -> None:
    rows = [
        Row(f"{split}/{n}.wav", "song", genre, split, 0.0, 30.0, "dataset/song.wav", "0")
        for split in SPLITS
        for n, genre in enumerate(genres)
    ]
    write_vectors(folder, rows, SETTINGS)


def test_the_names_are_those_of_the_first_pipeline(tmp_path: Path) -> None:
    _write_all(tmp_path)
    names = {path.name for path in tmp_path.glob("mfcc*")}
    assert names == {
        "mfcc_coefficients_training_vector.pickle",
        "mfcc_coefficients_label.pickle",
        "mfcc_coefficients_evaluation_training_vector.pickle",
        "mfcc_coefficients_evaluation_label.pickle",
    }
    one_hot = pickle.loads((tmp_path / "mfcc_coefficients_label.pickle").read_bytes())
    assert one_hot.dtype == np.float32
    assert one_hot.tolist() == [[1, 0], [0, 1], [0, 1], [1, 0]]


def test_groups_are_kept_and_are_the_songs_by_default(tmp_path: Path) -> None:
    rows = [Row(f"{s}/{n}.wav", f"{n}", "xy"[n], s, 0.0, 30.0, f"dataset/{n}", "0") for s in SPLITS for n in (0, 1)]
    for grouped in (False, True):
        chosen = [replace(row, group=f"artist:{row.split}") for row in rows] if grouped else rows
        write_vectors(tmp_path, chosen, SETTINGS)
        assert arrays.read(tmp_path, "train").groups == (["artist:train"] * 2 if grouped else ["x/0", "y/1"])
        assert ("training_groups" in (tmp_path / "songs.json").read_text()) == grouped


class _Attack:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, ("touch attacked",)


@pytest.mark.parametrize("protocol", [0, 5])
def test_a_pickle_that_runs_code_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, protocol: int) -> None:
    monkeypatch.chdir(tmp_path)
    Path("x.pickle").write_bytes(pickle.dumps(_Attack(), protocol=protocol))
    with pytest.raises(VectorError, match=r"x\.pickle .*is not part of an array"):
        arrays.read_pickle(Path("x.pickle"))
    assert not Path("attacked").exists()


@pytest.mark.parametrize("value", [[1, 2], np.zeros(3), np.array([_Attack()], dtype=object)])
def test_a_pickle_of_anything_but_a_float32_array_is_refused(tmp_path: Path, value: object) -> None:
    (tmp_path / "x.pickle").write_bytes(pickle.dumps(value))
    with pytest.raises(VectorError, match=r"x\.pickle"):
        arrays.read_pickle(tmp_path / "x.pickle")


def test_files_that_are_missing_or_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    with pytest.raises(VectorError, match=r"genres\.json is missing: run `dvc repro"):
        arrays.read(tmp_path, "train")
    _write_all(tmp_path)
    (tmp_path / "songs.json").write_text("{}")
    with pytest.raises(VectorError, match="is damaged"):
        arrays.read(tmp_path, "train")
    _write_all(tmp_path)
    _write_all(tmp_path / "other", "xyy")
    name = "mfcc_coefficients_training_vector.pickle"
    (tmp_path / "other" / name).replace(tmp_path / name)
    with pytest.raises(VectorError, match="differs from songs"):
        arrays.read(tmp_path, "train")


def test_the_digest_changes_with_every_setting() -> None:
    others = [Settings(44_100, 30.0, 10.0), Settings(22_050, 29.0, 10.0), Settings(22_050, 30.0, 9.0)]
    assert len({settings.to_dict()["digest"] for settings in (SETTINGS, *others)}) == 4
