"""The cache: storing, verification, bounds, and the command that shows and clears it."""

from __future__ import annotations

import json
import multiprocessing
import os
from pathlib import Path

import pytest

from genre import files
from genre.cache import Cache
from genre.paths import Paths
from stages import cache as cache_command


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    """Return an empty cache."""
    return Cache(tmp_path / "cache", max_bytes=10_000)


def _store(cache: Cache, key: str, *contents: bytes) -> None:
    sources = {cache.folder.parent / f"source-{number}": content for number, content in enumerate(contents)}
    for path, content in sources.items():
        files.write_bytes(path, content)
    cache.store(key, list(sources), "note")
    for path in sources:
        path.unlink()


def _restored(cache: Cache, key: str) -> list[bytes] | None:
    out = cache.folder.parent / "out"
    if cache.restore(key, lambda number: out / str(number)) is None:
        return None
    return [path.read_bytes() for path in sorted(out.iterdir())]


def test_an_entry_is_never_that_of_a_restored_file_that_was_changed(cache: Cache, tmp_path: Path) -> None:
    _store(cache, "k1", b"one")
    for _ in range(2):  # the second time the file exists
        assert _restored(cache, "k1") == [b"one"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0"]
    files.write_bytes(tmp_path / "out" / "0", b"two")  # replaced
    assert _restored(cache, "k1") == [b"one"]
    (tmp_path / "out" / "0").write_bytes(b"ONE")  # changed in place, by the hard link
    assert _restored(cache, "k1") is None
    assert cache.entries() == []
    _store(cache, "k1", b"one")
    (cache.entries()[0][0] / "0").unlink()
    assert _restored(cache, "k1") is None


def test_a_file_system_without_hard_links_gets_copies(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError

    monkeypatch.setattr(os, "link", refuse)
    _store(cache, "k1", b"one")
    assert _restored(cache, "k1") == [b"one"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["0"]
    assert {path.stat().st_nlink for path in tmp_path.rglob("*") if path.is_file()} == {1}


@pytest.mark.parametrize("manifest", ["[]", '{"sha256": ["../../x"], "note": 1}', {"sha256": []}, {"note": [[0]]}, {}])
def test_an_entry_with_a_damaged_or_a_wrong_manifest_is_made_again(
    cache: Cache, manifest: str | dict[str, object]
) -> None:
    _store(cache, "k1", b"one", b"two")
    _store(cache, "k2", b"three")
    entries = sorted(entry for entry, _ in cache.entries())
    k1, k2 = (json.loads((entry / "manifest.json").read_text()) for entry in entries)
    text = manifest if isinstance(manifest, str) else json.dumps((k1 | manifest) if manifest else k2)
    (entries[0] / "manifest.json").write_text(text)
    assert _restored(cache, "k1") is None
    _store(cache, "k1", b"one", b"two")
    assert _restored(cache, "k1") == [b"one", b"two"]


def test_the_least_recently_used_go_first_when_it_is_full(cache: Cache, tmp_path: Path) -> None:
    for number in range(4):
        _store(cache, f"k{number}", bytes(4000))
    for entry, _ in cache.entries():
        os.utime(entry, (int(entry.name[1:]),) * 2)
    assert _restored(cache, "k0") is not None  # used just now
    (tmp_path / "out" / "0").unlink()
    assert _restored(cache, "k1") is not None  # takes no space: it is in out/, too
    os.utime(cache.folder / "k1" / "k1", (0, 0))
    cache.trim()
    assert {entry.name for entry, _ in cache.entries()} == {"k0", "k1", "k3"}


def test_an_entry_that_cannot_be_written_replaces_no_other(cache: Cache, caplog: pytest.LogCaptureFixture) -> None:
    _store(cache, "k1", b"one")
    (cache.folder / "bl").write_text("a file where the folder should be")
    cache.store("blocked", [cache.folder / "bl"], "note", replaces=["k1"])
    assert "cannot be written" in caplog.text
    assert _restored(cache, "k1") == [b"one"]


def _store_many(folder: Path) -> None:
    for number in range(50):
        Cache(folder / "cache", 10**9).store(f"k{number}", [folder / "a"], number)


def test_several_processes_store_the_same_entries(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"work")
    with multiprocessing.get_context("spawn").Pool(3) as pool:
        pool.map(_store_many, [tmp_path] * 9, chunksize=1)
    cache = Cache(tmp_path / "cache", 10**9)
    assert [cache.restore(f"k{n}", lambda _: tmp_path / "out") for n in range(50)] == list(range(50))
    assert [entry.stat().st_mode for entry, _ in cache.entries()] == 50 * [cache.folder.stat().st_mode]


def test_the_command_shows_and_clears_also_a_link(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (project / "elsewhere").mkdir()
    Paths().cache.symlink_to("elsewhere")
    Cache(Paths().cache, 10**6).keep("k1", b"one")
    for arguments, message in (([], "1 entries"), (["--clear"], "removed 1 entries"), ([], "0 entries")):
        assert cache_command.main(arguments) == 0
        assert message in capsys.readouterr().out
