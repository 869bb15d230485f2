"""The same songs and parameters give the same bytes, wherever and however they are computed."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import frozen
from tests.conftest import ROOT, MakeSong, write_params

STAGES = ("split", "extract", "vectorize")
OUTS = ("chunks", "features", "pickled_vectors")


@pytest.mark.slow
def test_two_folders_with_other_workers_and_another_order_have_the_same_bytes(
    tmp_path: Path, make_song: MakeSong
) -> None:
    songs = [f"{genre}/{name}" for genre in ("high", "low") for name in ("a.wav", "b é.flac", "c.ogg")]
    made = tmp_path / "made"
    for n, name in enumerate(songs):
        make_song(made / name, seconds=4.0 + n, hz=110.0 * (1 + n), seed=n)
    outs = []
    for folder, order, workers, seed in (("one", songs, 1, "1"), ("a longer/one", songs[::-1], 3, "2")):
        project = tmp_path / folder
        for name in order:  # folders list their files in the order of their making
            (project / "dataset" / "tiny" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(made / name, project / "dataset" / "tiny" / name)
        write_params(project, parallel__workers=workers)
        places = {"PYTHONPATH": str(ROOT), "PYTHONHASHSEED": seed, "TZ": f"UTC+{seed}", "OMP_NUM_THREADS": seed}
        for stage in STAGES:
            command = [sys.executable, "-m", f"stages.{stage}"]
            subprocess.run(command, cwd=project, env=os.environ | places, check=True, capture_output=True)
        outs.append(_contents(project))
    assert outs[0].keys() == outs[1].keys()
    assert [name for name in outs[0] if outs[0][name] != outs[1][name]] == []
    assert len(outs[0]) > 60


def _contents(project: Path) -> dict[str, bytes]:
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for out in OUTS
        for path in sorted((project / out).rglob("*"))
        if path.is_file()
    }


FIGURES = {"merged": {"song_accuracy": 0.8, "n_songs": 20, "ece": None}, "knn": {"song_accuracy": 0.5}}


@pytest.mark.parametrize(
    ("found", "tolerance", "lines"),
    [
        (FIGURES, 0.0, []),
        ({**FIGURES, "knn": {"song_accuracy": 0.6}}, 0.1, []),
        ({**FIGURES, "knn": {"song_accuracy": 0.6}}, 0.09, ["knn.song_accuracy: 0.6, expected 0.5"]),
        ({**FIGURES, "knn": {"song_accuracy": float("nan")}}, 9.0, ["knn.song_accuracy: nan, expected 0.5"]),
        ({"merged": FIGURES["merged"]}, 9.0, ["knn.song_accuracy: missing, expected 0.5"]),
        ({**FIGURES, "svm": {"ece": 0.1}}, 9.0, ["svm.ece: 0.1 is new"]),
        ({**FIGURES, "knn": {"song_accuracy": "0.5"}}, 9.0, ["knn.song_accuracy: 0.5, expected 0.5"]),
    ],
)
def test_every_figure_that_differs_is_named(found: Any, tolerance: float, lines: list[str]) -> None:
    assert list(frozen.differences(found, FIGURES, tolerance)) == lines
