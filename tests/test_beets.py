"""The plugin of beets, in a library of beets."""

from __future__ import annotations

from pathlib import Path

import mutagen
import pytest
import yaml

from tests.made import ROOT, make_song, python, save_svm, write_params

pytestmark = pytest.mark.slow


def beet(folder: Path, *arguments: str, status: int = 0) -> str:
    result = python(folder, "-m", "beets", *arguments, status=status, BEETSDIR=str(folder))
    return result.stdout + result.stderr


def test_an_album_is_imported_with_predicted_genres_and_keeps_its_own(tmp_path: Path) -> None:
    pytest.importorskip("beets", reason="beets is not installed")
    save_svm(tmp_path)
    write_params(tmp_path)
    settings = {"project": str(tmp_path), "model": "stats_svm", "names": {"low": "Low", "high": "Low"}}
    plugin = {"pluginpath": str(ROOT / "contrib/beets/beetsplug"), "plugins": "genre_project"}
    config = {"directory": "music", "library": "library.db", **plugin, "genre_project": settings}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    for number, suffix in enumerate(("mp3", "flac", "ogg")):
        audio = mutagen.File(make_song(tmp_path / "album" / f"{number}.{suffix}", seconds=2.0), easy=True)
        audio.update({"title": str(number), "artist": "A", "album": "B"} | ({"genre": "Own"} if number == 2 else {}))
        audio.save()
    beet(tmp_path, "import", "--noautotag", "--quiet", "album")
    assert beet(tmp_path, "list", "-f", "$title $genres", "title+") == "0 Low\n1 Low\n2 Own\n"
    assert beet(tmp_path, "list", "-a", "-f", "$genres") == "Low\n"
    beet(tmp_path, "write")
    genres = [mutagen.File(path, easy=True)["genre"] for path in sorted(tmp_path.rglob("music/**/*.*"))]
    assert sorted(genres) == [["Low"], ["Low"], ["Own"]]
    beet(tmp_path, "modify", "--yes", "genres=", "title:0")
    save_svm(tmp_path, name="demo", synthetic=True)
    assert "trained on synthetic songs" in beet(tmp_path, "predictgenre", status=1)
