"""The stage demo: its songs, its manifest and the files it removes."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genre.audio.ffmpeg import stream_pcm
from genre.demo import styles, synth
from genre.errors import DatasetError
from stages import demo


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of one song a style, written over songs of an earlier run and of the user."""
    out = tmp_path_factory.mktemp("dataset") / "demo"
    for name in ("waltz/Old Song.mp3", "polka/Gone.mp3", "waltz/Mine.mp3"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"")
    (out / demo.MANIFEST).write_text(json.dumps(["waltz/Old Song.mp3", "polka/Gone.mp3"]))
    assert demo.main(["--out", str(out), "--songs", "1"]) == 0
    return out


def test_each_style_has_a_folder_with_its_songs(folder: Path) -> None:
    songs = {path.relative_to(folder).as_posix() for path in folder.glob("*/*") if path.name != "Mine.mp3"}
    assert songs == {song.file for song in styles.plan(2016, 1, formats=synth.writable_formats())}
    assert {path.name for path in folder.iterdir()} == {*styles.STYLES, demo.MANIFEST}


def test_songs_of_an_earlier_run_are_removed_and_those_of_the_user_stay(folder: Path) -> None:
    assert (folder / "waltz" / "Mine.mp3").exists()
    assert not (folder / "waltz" / "Old Song.mp3").exists()
    assert not (folder / "polka").exists()


def test_every_song_can_be_decoded_and_is_not_silent(folder: Path) -> None:
    for song in styles.plan(2016, 1, formats=synth.writable_formats()):
        samples = np.concatenate(list(stream_pcm(folder / song.file, sample_rate=22_050)))
        assert 59 < len(samples) / 22_050 < 101
        assert samples.std() > 300


def test_nothing_outside_the_data_set_is_removed(tmp_path: Path) -> None:
    outside = tmp_path / "precious.txt"
    outside.write_text("")
    (tmp_path / "demo" / "waltz").mkdir(parents=True)
    names = ["../precious.txt", "waltz/../../precious.txt", str(outside)]
    (tmp_path / "demo" / demo.MANIFEST).write_text(json.dumps(names))
    demo.write_songs([], tmp_path / "demo")
    assert outside.exists()


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / demo.MANIFEST).write_text("{")
    with pytest.raises(DatasetError, match=demo.MANIFEST):
        demo.main(["--out", str(tmp_path), "--songs", "1"])


def test_the_module_is_imported_without_numpy() -> None:
    code = "import sys, stages.demo; assert 'numpy' not in sys.modules and 'scipy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
