"""chunks/index.csv."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from genre.audio import manifest


def test_the_index_keeps_every_name_and_without_groups_each_song_is_its_group(tmp_path: Path) -> None:
    names = ('x"y,', "a\nb", "dataset/t/a\nb/\udcff.mp3")
    rows = [manifest.Row(f"train/a/{names[0]}-000.wav", names[0], names[1], "train", 0.0, 3.0, names[2], "0" * 64)]
    manifest.write(tmp_path, rows)
    assert manifest.read(tmp_path) == rows
    index = tmp_path / manifest.INDEX_NAME
    table = pd.read_csv(index, dtype=object, encoding_errors="surrogateescape").drop(columns="group")
    table.to_csv(index, index=False, errors="surrogateescape")
    assert [row.group for row in manifest.read(tmp_path)] == [rows[0].song_id] == ['a\nb/x"y,']
