"""Genres in the tags of songs; audio and other tags stay unchanged."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import mutagen
import numpy as np
import pytest
from mutagen.id3 import APIC, COMM, ID3, TCON, TIT2, TXXX, TYER

from genre.audio import tags
from genre.audio.ffmpeg import executable, stream_hash, stream_pcm
from genre.audio.tags import write_genre
from genre.errors import AudioError
from tests.made import MakeSong

pytestmark = pytest.mark.slow

FORMATS = ["mp3", "flac", "ogg", "opus", "oga", "m4a", "wav", "aiff"]


@pytest.fixture(scope="module", params=FORMATS)
def template(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, make_song: MakeSong) -> Path:
    """Return a song of each format."""
    return make_song(tmp_path_factory.mktemp("template") / f"song.{request.param}", seconds=2.0, sample_rate=48_000)


@pytest.fixture
def song(template: Path, tmp_path: Path) -> Path:
    """Return a copy of the template."""
    return Path(shutil.copy(template, tmp_path / template.name))


@pytest.fixture
def mp3(tmp_path: Path, make_song: MakeSong) -> Path:
    return make_song(tmp_path / "song.mp3", seconds=2.0)


def _tags(path: Path) -> tuple[list[str], list[str], str]:
    """Return the genres, the original genre and the title, read with mutagen."""
    stored: Any = mutagen.File(path).tags
    if isinstance(stored, ID3):
        original = stored.getall("COMM:original genre")
        return (
            [genre for frame in stored.getall("TCON") for genre in frame.genres],
            [text for comment in original for text in comment.text],
            str(stored.get("TIT2", "")),
        )
    if path.suffix == ".m4a":
        original_bytes = stored.get("----:com.apple.iTunes:ORIGINAL_GENRE", [])
        return stored["\xa9gen"], [bytes(value).decode() for value in original_bytes], stored.get("\xa9nam", [""])[0]
    return stored["GENRE"], stored.get("ORIGINAL_GENRE", []), stored.get("TITLE", [""])[0]


def _tag(path: Path, genre: str, title: str) -> None:
    """Write genre and title as another program does."""
    audio: Any = mutagen.File(path)
    if audio.tags is None:
        audio.add_tags()
    if isinstance(audio.tags, ID3):
        audio.tags.add(TCON(encoding=3, text=[genre]))
        audio.tags.add(TIT2(encoding=3, text=[title]))
    elif path.suffix == ".m4a":
        audio.tags["\xa9gen"], audio.tags["\xa9nam"] = [genre], [title]
    else:
        audio.tags["GENRE"], audio.tags["TITLE"] = [genre], [title]
    audio.save()


def _decoded(path: Path) -> bytes:
    return np.concatenate(list(stream_pcm(path, sample_rate=48_000))).tobytes()


def test_the_genre_is_written_and_the_original_one_is_stored(song: Path) -> None:
    _tag(song, "Chamber Pop", "Ein Lied für ☃")
    audio = _decoded(song)
    change = write_genre(song, "hip-hop ♥ 音楽")
    assert change == tags.Change(song, "Chamber Pop", "hip-hop ♥ 音楽", changed=True)
    assert _tags(song) == (["hip-hop ♥ 音楽"], ["Chamber Pop"], "Ein Lied für ☃")
    assert write_genre(song, "jazz").old == "hip-hop ♥ 音楽"
    assert _tags(song) == (["jazz"], ["Chamber Pop"], "Ein Lied für ☃")
    assert _decoded(song) == audio
    assert list(song.parent.iterdir()) == [song]


def test_a_predicted_genre_never_becomes_the_original_one(song: Path) -> None:
    assert write_genre(song, "jazz") == tags.Change(song, None, "jazz", changed=True)
    write_genre(song, "rock")
    genres, original, _ = _tags(song)
    assert (genres, "".join(original)) == (["rock"], "")  # no comment in words


@pytest.mark.parametrize(("old", "new"), [("Hip-Hop", "hip-hop"), ("JAZZ ", "jazz"), ("Cafe\u0301", "caf\u00e9")])
def test_letter_case_alone_is_no_change_and_a_genre_can_be_left_alone(song: Path, old: str, new: str) -> None:
    _tag(song, old, "title")
    before = (song.read_bytes(), song.stat().st_ino, song.stat().st_mtime_ns)
    assert not write_genre(song, new).changed
    assert not write_genre(song, "pop", only_missing=True).changed
    assert write_genre(song, "pop", dry_run=True) == tags.Change(song, old.strip(), "pop", changed=True)
    assert (song.read_bytes(), song.stat().st_ino, song.stat().st_mtime_ns) == before


def test_a_file_whose_audio_would_change_is_not_replaced(song: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    save = tags.save_tags

    def damaging(audio: Any, path: Path, genre: str, original: str) -> None:
        save(audio, path, genre, original)
        data = bytearray(path.read_bytes())
        middle = len(data) // 2
        data[middle : middle + 400] = bytes(byte ^ 0x15 for byte in data[middle : middle + 400])
        path.write_bytes(data)

    monkeypatch.setattr(tags, "save_tags", damaging)
    before = song.read_bytes()
    with pytest.raises(AudioError, match=rf"{song.name}: its audio would change"):
        write_genre(song, "jazz")
    assert song.read_bytes() == before
    assert list(song.parent.iterdir()) == [song]


@pytest.mark.parametrize("stop", [KeyboardInterrupt, MemoryError, OSError(28, "No space left on device")])
def test_an_interruption_leaves_the_song_unchanged(
    mp3: Path, monkeypatch: pytest.MonkeyPatch, stop: type[BaseException] | BaseException
) -> None:
    def stopped(audio: Any, path: Path, genre: str, original: str) -> None:
        path.write_bytes(b"half")
        raise stop

    monkeypatch.setattr(tags, "save_tags", stopped)
    before = mp3.read_bytes()
    with pytest.raises((AudioError, KeyboardInterrupt, MemoryError)) as caught:
        write_genre(mp3, "jazz")
    assert caught.type is not AudioError or "song.mp3: its tags cannot be changed (No space left" in str(caught.value)
    assert mp3.read_bytes() == before
    assert list(mp3.parent.iterdir()) == [mp3]


def test_permissions_and_links_stay_and_the_modification_time_is_new(song: Path, tmp_path: Path) -> None:
    song.chmod(0o640)
    os.utime(song, (1_000_000_000, 1_000_000_000))
    (tmp_path / "elsewhere").mkdir()
    link = tmp_path / "elsewhere" / "link"
    link.symlink_to(Path("..") / song.name)
    assert write_genre(link, "jazz").path == link
    assert link.is_symlink() and _tags(song)[0] == ["jazz"]
    assert song.stat().st_mode & 0o777 == 0o640
    assert song.stat().st_mtime > 1_000_000_000  # for backups and players


@pytest.mark.parametrize("dry_run", [False, True])
def test_a_read_only_song_is_refused_by_name(mp3: Path, dry_run: bool) -> None:
    mp3.chmod(0o444)
    before = mp3.read_bytes()
    with pytest.raises(AudioError, match=r"song\.mp3: is read-only"):
        write_genre(mp3, "jazz", dry_run=dry_run)
    assert mp3.read_bytes() == before


@pytest.mark.parametrize("version", [3, 4])
def test_an_id3_tag_keeps_its_version_and_every_other_frame(mp3: Path, version: int) -> None:
    before = ID3(mp3)
    before.clear()
    frames = [
        TCON(encoding=0, text=["(17)", "Funk"]),
        TYER(encoding=0, text=["1999"]),  # of ID3v2.3; must not become a frame of 2.4
        TXXX(encoding=1, desc="mood", text=["a", "b"]),
        COMM(encoding=3, lang="eng", desc="", text=["my own comment"]),
        APIC(encoding=0, mime="image/png", type=3, desc="cover", data=bytes(range(256)) * 300),
    ]
    for frame in frames:
        before.add(frame)
    before.save(mp3, v2_version=version, v23_sep=None)
    assert write_genre(mp3, "jazz").old == "Rock; Funk"  # number 17
    after = ID3(mp3, translate=False)
    assert after.version[1] == version
    for frame in frames[1:]:
        assert after[frame.HashKey] == frame, frame
    assert _tags(mp3)[:2] == (["jazz"], ["Rock; Funk"])


def test_an_old_id3v1_tag_is_kept(mp3: Path) -> None:
    ID3().save(mp3)
    ID3().delete(mp3)
    name, artist = b"Old Name".ljust(30, b"\0"), b"Somebody".ljust(30, b"\0")
    mp3.write_bytes(mp3.read_bytes() + b"TAG" + name + artist + bytes(30) + b"1987" + bytes(30) + b"\x08")
    audio = stream_hash(mp3)
    assert write_genre(mp3, "Techno").old == "Jazz"
    after = ID3(mp3)
    assert (str(after["TIT2"]), str(after["TPE1"]), str(after["TDRC"])) == ("Old Name", "Somebody", "1987")
    assert _tags(mp3)[:2] == (["Techno"], ["Jazz"])
    assert stream_hash(mp3) == audio


@pytest.mark.parametrize("name", ["a.mka", "a.wma", "a.au"])
def test_an_unsupported_format_is_refused_by_name(tmp_path: Path, make_song: MakeSong, name: str) -> None:
    path = make_song(tmp_path / name, seconds=1.0)
    with pytest.raises(AudioError, match=rf"{name}: tags can be written to MP3, FLAC"):
        write_genre(path, "jazz")


@pytest.mark.parametrize("keep", [0, 10, 60, 700])
def test_a_damaged_file_is_refused_by_name_and_not_changed(song: Path, keep: int) -> None:
    data = song.read_bytes()[:keep]
    song.write_bytes(data)
    try:
        write_genre(song, "jazz")
    except AudioError as error:
        assert song.name in str(error)
        assert ".tmp" not in str(error)
        assert song.read_bytes() == data
    else:  # some formats need only headers and a little audio
        assert _tags(song)[0] == ["jazz"]
    assert list(song.parent.iterdir()) == [song]


@pytest.mark.parametrize("name", ["mp3", "wav", "flac"])
@pytest.mark.parametrize("genre", ["17", "RX", "(12)abc", "80s", "1980", "rock (live)"])
def test_a_genre_that_looks_like_a_number_of_id3_is_text_for_other_programs(
    tmp_path: Path, make_song: MakeSong, name: str, genre: str
) -> None:
    path = make_song(tmp_path / f"a.{name}", seconds=0.3)
    assert write_genre(path, genre).changed
    assert not write_genre(path, genre).changed
    stored: Any = mutagen.File(path).tags
    assert [text.strip() for text in (stored["TCON"].genres if name != "flac" else stored["GENRE"])] == [genre]
    shown = subprocess.run([executable(), "-hide_banner", "-i", path], capture_output=True, check=False).stderr
    match = re.search(r"^ *genre *: (.*)$", shown.decode(), re.MULTILINE | re.IGNORECASE)
    assert match and match[1].strip() == genre


def test_messages_have_neither_temporary_names_nor_errors_of_structures(
    tmp_path: Path, make_song: MakeSong, caplog: pytest.LogCaptureFixture
) -> None:
    stream = make_song(tmp_path / "stream.wav", seconds=0.3)
    data = bytearray(stream.read_bytes())
    at = data.index(b"data") + 4
    data[4:8] = data[at : at + 4] = b"\xff" * 4
    stream.write_bytes(data)
    with pytest.raises(
        AudioError, match=r"stream\.wav: its tags cannot be changed \(the sizes in its headers are wrong\)"
    ):
        write_genre(stream, "jazz")
    links = [make_song(tmp_path / f"{n}.ogg", seconds=1.0, channels=n).read_bytes() for n in (1, 2)]
    chained = tmp_path / "chained.ogg"
    chained.write_bytes(b"".join(links))
    assert write_genre(chained, "jazz").changed
    assert caplog.records == []
    assert len(_decoded(chained)) == 2 * 2 * 48_000  # bytes
