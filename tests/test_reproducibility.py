"""The same songs and parameters give the same bytes in any folder, with any number of workers."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.made import make_song, outs, python, write_params

STAGES = ("split", "extract", "vectorize")


@pytest.mark.slow
def test_two_folders_with_other_workers_and_another_order_have_the_same_bytes(tmp_path: Path) -> None:
    songs = [f"{genre}/{name}" for genre in ("high", "low") for name in ("a.wav", "b é.flac", "c.ogg")]
    for n, name in enumerate(songs):
        make_song(tmp_path / "songs" / name, seconds=4.0 + n, hz=110.0 * (1 + n), seed=n)
    outputs = []
    for folder, order, workers, seed in (("one", songs, 1, "1"), ("a longer/one", songs[::-1], 3, "2")):
        project = tmp_path / folder
        for name in order:  # folders list their files in the order in which they were written
            (project / "dataset" / "tiny" / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(tmp_path / "songs" / name, project / "dataset" / "tiny" / name)
        write_params(project, parallel__workers=workers)
        for stage in STAGES:
            python(project, "-m", f"stages.{stage}", PYTHONHASHSEED=seed, TZ=f"UTC+{seed}", OMP_NUM_THREADS=seed)
        outputs.append(outs(project))
    assert outputs[0].keys() == outputs[1].keys()
    assert [name for name in outputs[0] if outputs[0][name] != outputs[1][name]] == []
    assert len(outputs[0]) > 60
