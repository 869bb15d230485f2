"""Genres in the tags of songs, and back; audio and other tags stay unchanged."""

from __future__ import annotations

import os
import re
import shutil
import struct
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from unittest import mock

import mutagen
import numpy as np
import pytest
from mutagen.id3 import APIC, COMM, ID3, TCON, TIT2, TXXX, TYER

from genre.audio import tags
from genre.audio.ffmpeg import executable, stream_hash, stream_pcm
from genre.audio.tags import Tagger, read_map
from genre.errors import AudioError, ParamsError
from tests.made import ape_bomb, make_song

pytestmark = pytest.mark.slow

FORMATS = ["mp3", "3.mp3", "flac", "ogg", "opus", "oga", "m4a", "wav", "aiff", "wv", "ape"]  # 3: ID3v2.3


@pytest.fixture(scope="module", params=FORMATS)
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a song of each format."""
    path: Path = tmp_path_factory.mktemp("template") / f"song.{request.param}"
    if path.suffix == ".ape":  # ffmpeg has no encoder
        data = ape_bomb(44_100, 2)
        path.write_bytes(data[:56] + struct.pack("<II", 4608, 4608) + data[64:])  # samples in a frame
        return path
    return make_song(path, seconds=1.0, sample_rate=48_000)


@pytest.fixture
def song(template: Path, tmp_path: Path) -> Path:
    """Return a copy of the template."""
    return Path(shutil.copy(template, tmp_path / template.name))


@pytest.fixture
def mp3(tmp_path: Path) -> Path:
    return make_song(tmp_path / "song.mp3", seconds=1.0)


@pytest.fixture
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Tagger:
    return Tagger(tmp_path_factory.mktemp("journal") / "tags.jsonl")


def _state(path: Path) -> tuple[object, ...]:
    """Return the tags of a file as mutagen reads them, with the version of ID3, and its audio."""
    stored: Any = mutagen.File(path).tags
    raw = ID3(path, translate=False) if path.suffix == ".mp3" and stored else None
    shown = list(stored) if isinstance(stored, list) else sorted((key, repr(stored[key])) for key in stored or {})
    return shown, raw and (raw.version, sorted(map(repr, raw.values()))), stream_hash(path)


def _genres(path: Path) -> list[str]:
    stored: Any = mutagen.File(path).tags
    if isinstance(stored, ID3):
        return [genre for frame in stored.getall("TCON") for genre in frame.genres]
    return list(stored.get("\xa9gen" if path.suffix == ".m4a" else "genre", []))


def _tag(path: Path, *genres: str) -> None:
    """Write genres and other tags as another program does."""
    audio: Any = mutagen.File(path)
    if audio.tags is None:
        audio.add_tags()
    if isinstance(audio.tags, ID3):
        audio.tags.setall("TCON", [TCON(encoding=1, text=list(genres))] if genres else [])
        audio.tags.add(TIT2(encoding=3, text=["Ein Lied für ☃"]))
        audio.save(**({"v2_version": 3, "v23_sep": None} if path.name == "song.3.mp3" else {}))
        return
    title, genre = ("\xa9nam", "\xa9gen") if path.suffix == ".m4a" else ("Title", "Genre")
    audio.tags.update({title: ["Ein Lied für ☃"]} | ({genre: list(genres)} if genres else {}) | {"Year": ["1999"]})
    audio.save()


@pytest.mark.parametrize("first", [("Chamber Pop", "17"), (), None], ids=["genres", "none", "no tags"])
def test_genres_are_written_again_and_undone(song: Path, tagger: Tagger, first: tuple[str, ...] | None) -> None:
    if first is not None:
        _tag(song, *first)
    before = _state(song)
    old = [name.replace("17", "Rock") if song.suffix in (".mp3", ".wav", ".aiff") else name for name in first or ()]
    written = tagger.write(song, ["hip-hop ♥ 音楽"])
    assert written == {"file": str(song), "old": old, "new": ["hip-hop ♥ 音楽"], "reason": None}
    assert _genres(song) == ["hip-hop ♥ 音楽"]
    several = ["jazz", "drum and bass"] if song.name != "song.3.mp3" or first is None else ["jazz"]  # ID3v2.3: one
    assert tagger.write(song, ["jazz", "drum and bass"])["new"] == _genres(song) == several
    assert stream_hash(song) == before[-1]
    moved = song.rename(song.with_name(f"moved{song.suffix}"))
    assert tagger.undo(moved) == {"file": str(moved), "old": several, "new": old, "reason": None}
    assert _state(moved) == before
    assert Tagger(tagger.journal).undo(moved)["reason"] == f"not in {tagger.journal}"
    assert list(song.parent.iterdir()) == [moved]


def test_undo_is_for_the_files_and_genres_of_the_journal(mp3: Path, tagger: Tagger) -> None:
    _tag(mp3, "Rock")
    copy = Path(shutil.copy(mp3, mp3.with_name("copy.mp3")))
    tagger.write(mp3, ["jazz"])
    assert tagger.undo(copy)["reason"] == f"not in {tagger.journal}"  # it has the same audio
    with tagger.journal.open("ab") as stream:
        stream.write(b'\n{"path": "')  # the disk was full
    tagger.write(mp3, ["blues"])
    _tag(mp3, "Bebop")
    with pytest.raises(AudioError, match=r"song.mp3: another program has changed its genre to \['Bebop'\]; --force"):
        Tagger(tagger.journal).undo(mp3)
    assert Tagger(tagger.journal, force=True, dry_run=True).undo(mp3)["new"] == ["Rock"]
    assert _genres(mp3) == ["Bebop"]
    assert Tagger(tagger.journal, force=True).undo(mp3)["new"] == ["Rock"] == _genres(mp3)
    first = _state(mp3)
    assert tagger.write(mp3, ["pop"])["old"] == ["Rock"]
    assert tagger.write(mp3, ["Rock"])["old"] == ["pop"]
    assert _state(mp3) != first  # another encoding
    assert Tagger(tagger.journal).undo(mp3) == {"file": str(mp3), "old": ["Rock"], "new": ["Rock"], "reason": None}
    assert _state(mp3) == first


def test_moved_files_with_the_same_audio_get_their_own_genres_back(mp3: Path, tagger: Tagger) -> None:
    paths, genres = [mp3.with_name(f"{number}.mp3") for number in range(3)], ["Rock", "Rock", "Funk"]
    for path, genre in zip(paths, genres, strict=True):
        _tag(Path(shutil.copy(mp3, path)), genre)
        tagger.write(path, ["jazz"])
    moved = [path.rename(path.with_suffix(".moved.mp3")) for path in paths]
    with pytest.raises(AudioError, match="has several files with its audio that were moved: move them back"):
        tagger.undo(moved[0])
    moved[2].rename(paths[2])
    assert [tagger.undo(path)["new"] for path in [paths[2], *moved[:2]]] == [["Funk"], ["Rock"], ["Rock"]]


@pytest.mark.parametrize(("old", "new"), [("Hip-Hop", "hip-hop"), ("JAZZ ", "jazz"), ("Cafe\u0301", "caf\u00e9")])
def test_letter_case_alone_is_no_change(mp3: Path, tagger: Tagger, old: str, new: str) -> None:
    _tag(mp3, old, "Funk")
    before = (mp3.read_bytes(), mp3.stat().st_ino, mp3.stat().st_mtime_ns)
    assert tagger.write(mp3, [new, "funk"])["reason"] == "the same genre"
    assert tagger.write(mp3, [])["reason"] == "unknown"
    dry_run = Tagger(tagger.journal, dry_run=True).write(mp3, ["pop", new])
    assert dry_run == {"file": str(mp3), "old": [old.strip(), "Funk"], "new": ["pop", old.strip()], "reason": "dry run"}
    assert (mp3.read_bytes(), mp3.stat().st_ino, mp3.stat().st_mtime_ns) == before
    assert not tagger.journal.read_bytes()


def test_a_map_has_own_names_and_their_letter_case(mp3: Path, tagger: Tagger, tmp_path: Path) -> None:
    path = tmp_path / "map.yaml"
    path.write_text("{jazz: JAZZ, metal: [Metal, Rock], rock: Rock, noise: null}")
    own = Tagger(tagger.journal, read_map(path, ["jazz", "metal", "rock", "noise", "pop"]))
    _tag(mp3, "Jazz", "POP")
    assert own.write(mp3, ["jazz", "metal", "noise", "rock", "pop"])["new"] == ["JAZZ", "Metal", "Rock", "POP"]
    assert own.write(mp3, ["noise"])["reason"] == "the map has no name for it"
    for text, fault in (("jaz: J", "jaz is not a genre"), ("jazz: 17", "the name 17 of jazz"), ("[a", "is not a map")):
        path.write_text(text)
        with pytest.raises(ParamsError, match=f"map.yaml: {fault}"):
            read_map(path, ["jazz"])


def test_further_genres_have_a_mean_probability_of_a_quarter() -> None:
    chunks = [{"pop": 0.0, "jazz": 0.4, "blues": 0.6}, {"pop": 0.4, "jazz": 0.6, "blues": 0.0}]
    answer = {"genre": "blues", "chunks": [{"probabilities": chunk} for chunk in chunks]}
    assert tags.genres(answer, multi=True) == ["blues", "jazz"]
    assert tags.genres(answer) == ["blues"]
    assert tags.genres(answer | {"genre": "unknown"}, multi=True) == []


def test_a_file_whose_audio_changes_is_kept(song: Path, tagger: Tagger, monkeypatch: pytest.MonkeyPatch) -> None:
    save = tags.save_tags

    def damaging(audio: Any, path: Path, *arguments: Any, **options: Any) -> None:
        save(audio, path, *arguments, **options)
        with path.open("rb+") as stream:
            stream.seek(song.stat().st_size // 2)
            stream.write(b"\x15" * 400)

    monkeypatch.setattr(tags, "save_tags", damaging)
    before = song.read_bytes()
    with pytest.raises(AudioError, match=rf"{song.name}: its audio would change"):
        tagger.write(song, ["jazz"])
    monkeypatch.setattr(tags, "save_tags", lambda *_, **__: song.write_bytes(before))
    with pytest.raises(AudioError, match=rf"{song.name}: another program is writing it"):
        tagger.write(song, ["jazz"])
    assert song.read_bytes() == before
    assert list(song.parent.iterdir()) == [song]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, OSError(28, "No space left on device")])
def test_an_interruption_before_the_file_is_replaced_leaves_it_unchanged(
    mp3: Path, tagger: Tagger, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException] | BaseException
) -> None:
    append = Tagger._append

    def stopped(self: Tagger, entry: Mapping[str, Any]) -> None:
        append(self, entry)
        raise stop

    before = mp3.read_bytes()
    with monkeypatch.context() as patch, pytest.raises((AudioError, KeyboardInterrupt, MemoryError)) as caught:
        patch.setattr(Tagger, "_append", stopped)
        tagger.write(mp3, ["jazz"])
    assert caught.type is not AudioError or "song.mp3: its tags cannot be changed (No space left" in str(caught.value)
    assert mp3.read_bytes() == before
    assert list(mp3.parent.iterdir()) == [mp3]
    assert tagger.undo(mp3)["reason"] == "as before the first change"
    tagger.write(mp3, ["jazz"])
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "chown", mock.Mock(side_effect=KeyboardInterrupt))
        Tagger(tagger.journal).undo(mp3)
    assert Tagger(tagger.journal).undo(mp3)["old"] == ["jazz"]


def test_permissions_and_links_stay_and_what_is_read_only_is_refused(mp3: Path, tagger: Tagger, tmp_path: Path) -> None:
    mp3.chmod(0o640)
    os.utime(mp3, (1_000_000_000, 1_000_000_000))
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(Path("..") / mp3.name)
    assert tagger.write(link, ["jazz"])["file"] == str(link)
    assert link.is_symlink() and _genres(mp3) == ["jazz"]
    assert mp3.stat().st_mode & 0o777 == 0o640
    assert mp3.stat().st_mtime > 1_000_000_000  # for backups and players
    assert tagger.undo(mp3)["new"] == []
    mp3.chmod(0o444)
    for dry_run in (False, True):
        with pytest.raises(AudioError, match=r"song\.mp3: is read-only"):
            Tagger(tagger.journal, dry_run=dry_run).write(mp3, ["jazz"])
    assert _genres(mp3) == []
    with pytest.raises(FileNotFoundError):  # before the first song
        Tagger(tmp_path / "no" / "tags.jsonl")


@pytest.mark.parametrize("version", [3, 4])
def test_id3_keeps_its_version_and_every_other_frame_and_id3v1(mp3: Path, tagger: Tagger, version: int) -> None:
    before = ID3(mp3)
    before.clear()
    frames = [
        TYER(encoding=0, text=["1999"]),  # of ID3v2.3; must not become a frame of 2.4
        TXXX(encoding=1, desc="mood", text=["a", "b"]),
        COMM(encoding=3, lang="eng", desc="", text=["my own comment"]),
        APIC(encoding=0, mime="image/png", type=3, desc="cover", data=bytes(range(256)) * 300),
        TCON(encoding=0, text=["(17)", "Funk"]),
    ]
    for frame in frames:
        before.add(frame)
    before.save(mp3, v2_version=version, v23_sep=None)
    id3v1 = b"TAG" + b"Old Name".ljust(30, b"\0") + "Дима".encode("cp1251").ljust(94, b"\0") + b"\x08"
    mp3.write_bytes(mp3.read_bytes() + id3v1)
    assert tagger.write(mp3, ["jazz"])["old"] == ["Rock", "Funk"]  # number 17
    for expected in (frames[:-1], frames):
        after = ID3(mp3, translate=False, load_v1=False)
        assert after.version[1] == version and len(after) == 5
        for frame in expected:
            assert after[frame.HashKey] == frame, frame
        assert mp3.read_bytes().endswith(id3v1)
        tagger.undo(mp3)


def test_id3v1_becomes_id3v2_and_stays(mp3: Path, tagger: Tagger) -> None:
    ID3().delete(mp3)
    name, artist = b"Old Name".ljust(30, b"\0"), b"Somebody".ljust(30, b"\0")
    before = mp3.read_bytes() + b"TAG" + name + artist + bytes(30) + b"1987" + bytes(30) + b"\x08"
    mp3.write_bytes(before)
    assert tagger.write(mp3, ["Techno"])["old"] == ["Jazz"]
    after = ID3(mp3, load_v1=False)
    assert (str(after["TIT2"]), str(after["TPE1"]), str(after["TDRC"])) == ("Old Name", "Somebody", "1987")
    assert _genres(mp3) == ["Techno"]
    tagger.undo(mp3)
    assert mp3.read_bytes() == before


@pytest.mark.parametrize("keep", [0, 10, 60, 700])
def test_a_damaged_file_is_refused_by_name_and_not_changed(song: Path, tagger: Tagger, keep: int) -> None:
    os.truncate(song, keep)
    data = song.read_bytes()
    try:
        tagger.write(song, ["jazz"])
    except AudioError as error:
        assert song.name in str(error) and ".tmp" not in str(error)
        assert song.read_bytes() == data
    else:  # some formats need only headers and a little audio
        assert _genres(song) == ["jazz"]
    assert list(song.parent.iterdir()) == [song]


@pytest.mark.parametrize("name", ["mp3", "wav", "flac", "m4a", "wv"])
@pytest.mark.parametrize("genre", ["17", "RX", "(12)abc", "80s", "1980", "rock (live)"])
def test_a_genre_that_looks_like_a_number_of_id3_is_text_for_other_programs(
    tmp_path: Path, tagger: Tagger, name: str, genre: str
) -> None:
    path = make_song(tmp_path / f"a.{name}", seconds=0.3)
    assert tagger.write(path, [genre])["new"] == [genre]
    assert tagger.write(path, [genre])["reason"] == "the same genre"
    stored = _genres(path)
    assert stored == [genre] if name not in ("mp3", "wav") else [text.strip() for text in stored] == [genre]
    shown = subprocess.run([executable(), "-hide_banner", "-i", path], capture_output=True, check=False).stderr
    match = re.search(r"^ *genre *: (.*)$", shown.decode(), re.MULTILINE | re.IGNORECASE)
    assert match and match[1].strip() == genre


def test_messages_have_neither_temporary_names_nor_errors_of_structures(
    tmp_path: Path, tagger: Tagger, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("a.mka", "a.wma", "a.au"):
        with pytest.raises(AudioError, match=rf"{name}: tags can be written to MP3, FLAC"):
            tagger.write(make_song(tmp_path / name, seconds=0.3), ["jazz"])
    stream = make_song(tmp_path / "stream.wav", seconds=0.3)
    data = bytearray(stream.read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = b"\xff" * 4
    stream.write_bytes(data)
    with pytest.raises(AudioError, match=r"stream\.wav: its tags .* \(the sizes in its headers are wrong\)"):
        tagger.write(stream, ["jazz"])
    links = [make_song(tmp_path / f"{n}.ogg", seconds=1.0, channels=n).read_bytes() for n in (1, 2)]
    chained = tmp_path / "chained.ogg"
    chained.write_bytes(b"".join(links))
    assert tagger.write(chained, ["jazz"])["new"] == ["jazz"]
    assert caplog.records == []
    assert len(np.concatenate(list(stream_pcm(chained, sample_rate=48_000)))) == 2 * 48_000
