"""The demo data set: repeatable, whole, in several formats, and no trivial lookup."""

from __future__ import annotations

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from genre.audio.ffmpeg import stream_pcm
from genre.demo import styles, synth
from genre.demo.styles import DemoSong
from genre.errors import AudioError, DatasetError
from stages import demo


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of one song a style, made where an earlier run and a user have left songs."""
    out = tmp_path_factory.mktemp("dataset") / "demo"
    for name in ("waltz/Old Song.mp3", "polka/Gone.mp3", "waltz/Mine.mp3"):
        (out / name).parent.mkdir(parents=True, exist_ok=True)
        (out / name).write_bytes(b"")
    (out / demo.MANIFEST).write_text(json.dumps(["waltz/Old Song.mp3", "polka/Gone.mp3"]))
    assert demo.main(["--out", str(out), "--songs", "1"]) == 0
    return out


def test_the_same_seed_gives_the_same_samples_and_another_seed_others() -> None:
    song = styles.plan(1, 1)[0]
    first = _rendered(song)
    assert np.array_equal(first, _rendered(song))
    other = styles.plan(2, 1)[0]
    assert not np.array_equal(first[:10_000], _rendered(other)[:10_000])


def test_the_first_songs_do_not_depend_on_how_many_there_are() -> None:
    assert styles.plan(5, 30)[: len(styles.plan(5, 4))] == styles.plan(5, 4)


@pytest.mark.parametrize("style", styles.STYLES)
def test_a_song_is_as_long_and_as_loud_as_planned_and_never_clips(style: str) -> None:
    song = next(song for song in styles.plan(2016, 1) if song.style == style)
    rng = np.random.default_rng(song.seed)
    score = styles.compose(song, rng)
    samples = synth.render(score, rng)
    recording = score.recording
    assert 60 <= score.seconds <= 100
    assert samples.shape == (round(score.seconds * recording.sample_rate), recording.channels)
    assert np.abs(samples.astype(np.int32)).max() <= synth.PEAK * 32767 + 1
    rms_db = 20 * np.log10(np.sqrt(np.mean((samples / 32767) ** 2)))
    assert recording.rms_db - 4 < rms_db < recording.rms_db + 2


def test_every_style_has_every_format_as_often() -> None:
    songs = styles.plan(2016, 10)
    by_style = {style: Counter(song.suffix for song in songs if song.style == style) for style in styles.STYLES}
    assert len(by_style) >= 4
    assert all(formats == Counter(styles.FORMATS) for formats in by_style.values())


def test_a_format_that_ffmpeg_cannot_write_becomes_flac() -> None:
    songs = styles.plan(2016, 10, formats=["wav", "flac"])
    assert {song.suffix for song in songs} == {"wav", "flac"}
    assert [song.seed for song in songs] == [song.seed for song in styles.plan(2016, 10)]


def test_every_title_is_there_once_even_among_thousands() -> None:
    titles = [song.title.casefold() for song in styles.plan(2016, 400)]
    assert len(set(titles)) == len(titles)
    assert any("'" in title for title in titles)
    assert any(not title.isascii() for title in titles)


def test_the_chords_are_those_of_the_roman_numerals() -> None:
    assert styles.read_changes("minor: i V7 bVI") == ("minor", [(0, 3, 7), (7, 11, 14, 17), (8, 12, 15)])


def test_the_data_set_has_a_folder_for_each_style_with_its_songs(made: Path) -> None:
    songs = {path.relative_to(made).as_posix() for path in made.glob("*/*") if path.name != "Mine.mp3"}
    assert songs == {song.file for song in styles.plan(2016, 1, formats=synth.writable_formats())}
    assert {path.name for path in made.iterdir()} == {*styles.STYLES, demo.MANIFEST}


def test_songs_of_an_earlier_run_go_and_the_users_own_stay(made: Path) -> None:
    assert (made / "waltz" / "Mine.mp3").exists()
    assert not (made / "waltz" / "Old Song.mp3").exists()
    assert not (made / "polka").exists()


def test_every_song_can_be_decoded_and_sounds(made: Path) -> None:
    for song in styles.plan(2016, 1, formats=synth.writable_formats()):
        samples = np.concatenate(list(stream_pcm(made / song.file, sample_rate=22_050)))
        assert 59 < len(samples) / 22_050 < 101
        assert samples.std() > 300


def test_the_manifest_removes_nothing_outside_the_data_set(tmp_path: Path) -> None:
    outside = tmp_path / "precious.txt"
    outside.write_text("")
    (tmp_path / "demo" / "waltz").mkdir(parents=True)
    demo._remove(tmp_path / "demo", ["../precious.txt", "waltz/../../precious.txt", str(outside)])
    assert outside.exists()


def test_a_damaged_manifest_is_named(tmp_path: Path) -> None:
    (tmp_path / demo.MANIFEST).write_text("{")
    with pytest.raises(DatasetError, match=demo.MANIFEST):
        demo.main(["--out", str(tmp_path), "--songs", "1"])


def test_at_least_three_formats_are_written_and_come_out_the_same_twice(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-9_000, 9_000, (22_050, 2)).astype(np.int16)
    formats = synth.writable_formats()
    assert len(formats) >= 3
    for suffix in formats:
        for folder in ("first", "second"):
            synth.write(tmp_path / folder / f"Café.{suffix}", samples, sample_rate=22_050)
        first, second = (tmp_path / folder / f"Café.{suffix}" for folder in ("first", "second"))
        assert first.read_bytes() == second.read_bytes()
        decoded = np.concatenate(list(stream_pcm(first, sample_rate=22_050)))
        assert len(decoded) == pytest.approx(22_050, abs=3_000)


def test_a_song_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"Song\.mp3"):
        synth.write(tmp_path / "Song.mp3", np.zeros((100, 1), np.int16), sample_rate=-1)
    assert list(tmp_path.iterdir()) == []


def test_help_answers_without_loading_numpy() -> None:
    code = "import sys, stages.demo; assert 'numpy' not in sys.modules and 'scipy' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def _rendered(song: DemoSong) -> npt.NDArray[np.int16]:
    rng = np.random.default_rng(song.seed)
    return synth.render(styles.compose(song, rng), rng)
