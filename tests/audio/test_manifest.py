"""chunks/index.csv."""

from __future__ import annotations

from pathlib import Path

from genre.audio import manifest


def test_the_index_keeps_every_name(tmp_path: Path) -> None:
    names = ('x"y,', "a\nb", "dataset/t/a\nb/\udcff.mp3")
    rows = [manifest.Row(f"train/a/{names[0]}-000.wav", names[0], names[1], "train", 0.0, 3.0, names[2], "0" * 64)]
    manifest.write(tmp_path, rows)
    assert manifest.read(tmp_path) == rows
