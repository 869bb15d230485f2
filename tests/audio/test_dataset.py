"""Songs of a data set folder, and their division into train and test."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre import files
from genre.audio import dataset, division
from genre.cli import answer_all
from genre.errors import DatasetError
from tests.made import make_song, touch


def _divided(folder: Path, **options: float) -> dict[str, str]:
    songs = dataset.scan(folder)
    settings = {"test_fraction": 0.3, "seed": 0} | options
    original = division.originals(songs, {song.path: [files.sha256(song.path)] for song in songs})
    songs = division.divide(songs, original, division.groups(songs, original, {}), **settings)  # type: ignore[arg-type]
    return {song.path.relative_to(folder).as_posix(): song.split for song in songs}


def _two_genres(folder: Path, n_songs: int = 10) -> None:
    touch(folder, *(f"{genre}/{n}.mp3" for genre in ("jazz", "rock") for n in range(n_songs)))


def test_covers_playlists_and_hidden_files_are_skipped(tmp_path: Path) -> None:
    touch(tmp_path, "jazz/a.mp3", "jazz/cover.jpg", "jazz/list.m3u", "jazz/.DS_Store", "rock/album/b.flac")
    touch(tmp_path, "rock/cover.xyz", "rock/a.mp3.part", "rock/@eaDir/a.mp3", "#recycle/z/a.mp3")
    (tmp_path / "rock" / "x").write_bytes(b"\xff\xfb\x90\x00")
    names = [song.path.relative_to(tmp_path).as_posix() for song in dataset.scan(tmp_path)]
    assert names == ["jazz/a.mp3", "rock/album/b.flac", "rock/x"]


@pytest.mark.parametrize("link", ["jazz/album", "blues", "train"])
def test_a_link_to_a_folder_in_which_dvc_sees_no_change_is_refused_by_name(tmp_path: Path, link: str) -> None:
    folder = tmp_path / "mine"
    _two_genres(folder)
    touch(tmp_path / "elsewhere", "a.mp3", "b.mp3")
    (folder / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(DatasetError, match=rf"mine/{link} is a link to a folder.*links to its files"):
        dataset.scan(folder)
    (folder / link).unlink()
    (folder / "jazz" / "link.mp3").symlink_to(tmp_path / "elsewhere" / "a.mp3")  # DVC reads its target
    (tmp_path / "link").symlink_to(folder)
    assert len(dataset.scan(tmp_path / "link")) == 21


@pytest.mark.parametrize(
    "suffix", ["wav", "flac", "mp3", "ogg", "opus", "m4a", "aac", "mka", "aiff", "au", "caf", "wma"]
)
def test_a_song_without_extension_is_found_by_its_first_bytes(tmp_path: Path, suffix: str) -> None:
    make_song(tmp_path / f"song.{suffix}", seconds=0.5).rename(tmp_path / "song")
    others = {"LICENSE": "Creative Commons", "list": "ID3 tags", "riff": "RIFF....WEBP", "x": "\x00\x00"}
    for name, text in others.items():
        (tmp_path / name).write_text(text)
    assert dataset.walk(tmp_path, follow_links=True)[0] == [tmp_path / "song"]


def test_a_folder_of_a_query_is_followed_through_links_to_each_folder_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    touch(tmp_path, "music/a.mp3", "albums/one/b.mp3", "albums/one/cover.jpg")
    for link, target in (("by artist", "albums"), ("again", "albums/one"), ("up", "music")):
        (tmp_path / "music" / link).symlink_to(tmp_path / target)
    songs, rows = [str(tmp_path / "music")], lambda answer: [[Path(answer["file"]).name]]
    assert answer_all(songs, lambda path: {}, str, "csv", ["name"], rows) == 0
    printed = capsys.readouterr()
    assert sorted(printed.out.split()) == ["a.mp3", "b.mp3", "name"]
    assert "music: 1 other files skipped" in printed.err


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_list_of_any_computer_names_songs_whatever_the_form_of_their_letters(
    tmp_path: Path, encoding: str, end: str
) -> None:
    composed, decomposed = "Caf\u00e9", "Cafe\u0301"
    touch(tmp_path, f"{composed}/{decomposed}.mp3", f"{composed}/{composed} 2.mp3", "rock/a.mp3", "rock/b.mp3")
    entries = ["# a comment", f"{decomposed}/{composed}.wav", f"{composed}/{decomposed} 2", "./rock\\a.mp3", ""]
    (tmp_path / "test.txt").write_bytes(end.join(entries).encode(encoding))
    songs = dataset.divide_by_list(dataset.scan(tmp_path), tmp_path, test_list="test.txt", train_list=None)
    assert [song.name for song in songs if song.split == "train"] == ["b"]
    assert {song.genre for song in songs} == {composed, "rock"}


def test_stray_files_and_copies_in_two_genres_are_warned_of(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _two_genres(tmp_path)
    touch(tmp_path, "stray.mp3", "notes.txt", "empty/cover.jpg")
    (tmp_path / "rock" / "0.mp3").write_bytes((tmp_path / "jazz" / "0.mp3").read_bytes())
    _divided(tmp_path)
    stray, empty, copy = caplog.messages
    assert "empty/: is left out" in empty
    assert "stray.mp3: is in no genre folder" in stray
    assert "jazz/0.mp3" in copy
    assert "rock/0.mp3 are the same recording in two genres" in copy


REFUSED = (
    "unknown|Unknown| ｕｎｋｎｏｗｎ|=cmd|+1|-x|@a|＝SUM(1)| =1|new\nline|a\rb|\u2028x|x\u202e|\a|\x9b31m| |caf\udce9"
)


@pytest.mark.parametrize("name", REFUSED.split("|"))
def test_a_reserved_genre_name_a_formula_or_a_control_character_is_refused(tmp_path: Path, name: str) -> None:
    _two_genres(tmp_path)
    touch(tmp_path, f"{name}/a.mp3")
    with pytest.raises(DatasetError, match="rename") as error:
        dataset.scan(tmp_path)
    assert str(error.value).removeprefix(str(tmp_path)).isprintable()


@pytest.mark.parametrize(
    "name", ["R&B", "日本語", "हिन्दी", "1980", "Rock ", "Drum, Bass 'x'", "می\u200cخواهم", "a-b", "Café"]
)
def test_a_name_in_any_script_is_a_genre(name: str) -> None:
    assert dataset.genre_fault(name) is None


def test_train_and_test_folders_give_the_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/jazz/a.mp3", "train/rock/b.mp3", "test/jazz/c.mp3", "test/rock/d.mp3")
    assert {song.name: song.split for song in dataset.scan(tmp_path)} == dict(a="train", b="train", c="test", d="test")


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ([], r"songs of 0 genre"),
        (["jazz/a.mp3"], r"songs of 1 genre"),
        (["train/jazz/a.mp3", "train/rock/a.mp3"], "no test/"),
        (["train/jazz/a.mp3", "test/rock/a.mp3", "blues/x.mp3"], "blues/ beside"),
    ],
)
def test_an_unusable_layout_is_refused_with_the_reason(tmp_path: Path, names: list[str], message: str) -> None:
    touch(tmp_path, *names)
    with pytest.raises(DatasetError, match=message):
        dataset.scan(tmp_path)
    with pytest.raises(DatasetError, match="mine/ is missing"):
        dataset.scan(tmp_path / "mine")


def test_each_genre_has_its_share_of_test_songs_and_a_new_song_changes_the_split_of_at_most_one_other(
    tmp_path: Path,
) -> None:
    _two_genres(tmp_path)
    before = _divided(tmp_path)
    test_songs = [name for name, split in before.items() if split == "test"]
    assert [sum(name.startswith(genre) for name in test_songs) for genre in ("jazz", "rock")] == [3, 3]
    assert before == _divided(tmp_path) != _divided(tmp_path, seed=1)
    touch(tmp_path, "jazz/new.mp3")
    after = _divided(tmp_path)
    assert sum(before[name] != after[name] for name in before) <= 1


def test_songs_on_neither_of_two_lists_are_left_out(tmp_path: Path) -> None:
    touch(tmp_path, "jazz/a.mp3", "jazz/b.mp3", "rock/a.mp3", "rock/c.mp3")
    (tmp_path / "test.txt").write_text("jazz/a.mp3\n")
    (tmp_path / "train.txt").write_text("rock/a.mp3\n")
    songs = dataset.divide_by_list(dataset.scan(tmp_path), tmp_path, test_list="test.txt", train_list="train.txt")
    assert [(song.genre, song.split) for song in songs] == [("jazz", "test"), ("rock", "train")]


@pytest.mark.parametrize("name", ["../list.txt", "/list.txt", "none.txt"])
def test_a_list_outside_the_data_set_or_missing_is_refused(tmp_path: Path, name: str) -> None:
    _two_genres(tmp_path, 2)
    with pytest.raises(DatasetError, match="list"):
        dataset.divide_by_list(dataset.scan(tmp_path), tmp_path, test_list=name, train_list=None)


@settings(deadline=None)  # the first call imports scipy
@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=4), max_size=30))
def test_files_that_share_any_digest_are_one_recording(digests: list[list[int]]) -> None:
    joined = division.join({Path(str(n)): [str(d) for d in of_file] for n, of_file in enumerate(digests)})
    sets = [set(of_file) for of_file in digests]
    for _ in sets:  # each round joins what shares a digest, directly or through others
        sets = [set().union(*(other for other in sets if other & of_file)) for of_file in sets]
    expected = [[a == b for b in sets] for a in sets]
    keys = [joined[Path(str(n))] for n in range(len(digests))]
    assert [[a == b for b in keys] for a in keys] == expected


def test_songs_of_a_genre_get_different_names(tmp_path: Path) -> None:
    touch(tmp_path, "jazz/a.mp3", "jazz/A.wav", "jazz/disc 2/a.mp3", "rock/a.mp3", "rock/b:c.mp3", "rock/b_c.mp3")
    songs = dataset.scan(tmp_path)
    assert len({(song.genre, song.name.casefold()) for song in songs}) == len(songs)
    assert [song.name for song in songs if song.genre == "rock"][0] == "a"


@given(st.text(max_size=300))
def test_a_safe_name_is_a_valid_file_name_everywhere(name: str) -> None:
    safe = dataset.safe_name(name)
    assert 0 < len(safe.encode()) <= dataset.MAX_NAME_BYTES
    assert not set(safe) & set('/\\:#?*"<>|\n\r\t\0%$`')
    assert safe[0] not in "-." and safe == safe.strip()
    assert dataset.safe_name(safe) == safe
    assert dataset.safe_name("Café at Noon (live)") == "Café at Noon (live)"
