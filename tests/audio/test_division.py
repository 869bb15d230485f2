"""Copies of a recording and songs of a group are never divided, by no stage that divides."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from genre.audio import dataset, division
from genre.errors import DatasetError, ParamsError
from genre.evaluation import comparison
from genre.models.calibration import Rows, validation_folds
from tests.made import ffmpeg_run, touch

FOLDER = Path("dataset/tiny")


def _song(name: str, split: str = "") -> dataset.Song:
    path = FOLDER / split / name
    return dataset.Song(path, path.parts[-2], path.stem, split)


@settings(max_examples=1000, deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_no_group_is_on_both_sides_of_split_folds_members_or_validation(seed: int) -> None:
    rng = np.random.default_rng(seed)
    songs = [_song(f"{genre}/{n}.mp3") for genre in range(rng.integers(2, 5)) for n in range(rng.integers(2, 12))]
    artists = [[f"artist {a}" for a in rng.integers(0, rng.integers(1, 50), rng.integers(0, 3))] for _ in songs]
    shared = {song.path: names for song, names in zip(songs, artists, strict=True) if names}
    digests = {song.path: [f"{n if rng.random() < 0.9 else 0}", f"d{n}"] for n, song in enumerate(songs)}
    pairs = [(songs[a].path, songs[b].path) for a, b in rng.integers(0, len(songs), (rng.integers(0, 3), 2))]
    original = division.originals(songs, digests, pairs)
    group = division.groups(songs, original, shared)
    for one, other in [*itertools.combinations([song.path for song in songs], 2), *pairs]:
        keys = [{*digests[path], *shared.get(path, ())} for path in (one, other)]
        assert group[one] == group[other] or not ((one, other) in pairs or keys[0] & keys[1])
    groups, labels = [group[song.path] for song in songs], np.array([int(song.genre) for song in songs])
    names = [f"{song.genre}/{song.name}" for song in songs]
    try:
        divided = division.divide(songs, original, group, test_fraction=rng.uniform(0.1, 0.9), seed=seed)
        division.check_no_leak(divided, original, group)
        assert len({(song.genre, song.split) for song in divided}) == 2 * len(set(labels))
    except DatasetError as error:
        assert "fewer than two" in str(error)
    for rows in validation_folds(labels, names, int(rng.integers(1, 9)), groups):
        assert not _shared(groups, rows)
        assert set(np.delete(labels, rows)) == set(labels)
    try:
        folds = comparison.folds(labels, groups, n_folds=int(rng.integers(2, 4)), n_repeats=1, seed=seed)
    except ParamsError as error:
        assert "compare.folds" in str(error)
    else:
        assert not any(_shared(groups, fold.test) for fold in folds)


def _shared(groups: list[str], rows: Rows) -> set[str]:
    """Return the groups that are in some rows and in others."""
    return {groups[row] for row in rows} & {group for row, group in enumerate(groups) if row not in set(rows.tolist())}


def test_a_recording_or_group_in_both_splits_is_refused() -> None:
    songs = [_song("jazz/a.mp3", "train"), _song("jazz/b.mp3", "test"), _song("jazz/c.mp3", "test")]
    alone = {song.path: song for song in songs}
    copies = division.originals(songs, {song.path: [song.name] for song in songs}, [(songs[0].path, songs[1].path)])
    division.check_no_leak(songs, alone, division.groups(songs, alone, {}))
    for original, values, message in (
        (copies, {}, r"a\.mp3 \(train\) and .*b\.mp3 \(test\) are the same recording"),
        (alone, {song.path: ["x"] for song in songs[::2]}, r"a\.mp3 .* and .*c\.mp3 .* are of the group x"),
    ):
        with pytest.raises(DatasetError, match=message):
            division.check_no_leak(songs, original, division.groups(songs, original, values))


@pytest.mark.parametrize("suffix", ["mp3", "flac", "ogg", "opus", "m4a", "aiff", "wma", "wv"])
def test_artists_and_albums_are_read_from_tags_whatever_their_case(tmp_path: Path, suffix: str) -> None:
    tags = ("-metadata", "artist=Miles DAVIS ", "-metadata", "album=Kind of Blue", "-write_id3v2", 1)
    names = [tmp_path / "jazz" / f"{name}.{suffix}" for name in ("tagged", "plain", "broken")]
    names[0].parent.mkdir()
    for path, options in zip(names, (tags[: 4 if suffix != "aiff" else 6], ()), strict=False):
        ffmpeg_run("-f", "lavfi", "-i", "sine=d=1", *options, path)
    names[2].write_bytes(names[0].read_bytes()[:20])
    songs = [dataset.Song(path, "jazz", path.stem, "") for path in names]
    for kind, value in (("artist", "miles davis"), ("album", "kind of blue")):
        assert division.values(songs, tmp_path, kind) == {names[0]: [f"{kind}:{value}"]}
    assert division.values(songs, tmp_path, None) == {}


def test_groups_are_read_from_folders_patterns_and_tables(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    touch(FOLDER, "jazz/one/x.mp3", "jazz/one/disc 2/y.mp3", "jazz/z.mp3", "rock/one/x.mp3")
    (FOLDER / "artists.csv").write_text("song,group\njazz/one/x,Miles\nrock/one/x.mp3,Miles\njazz/none,Miles\n")
    songs = dataset.scan(FOLDER)
    expected = {
        "folder": ["folder:jazz/one", "folder:jazz/one", "", "folder:rock/one"],
        r"regex:([xy])\.mp3": ["regex:y", "regex:x", "", "regex:x"],
        "regex:disc": ["regex:disc", "", "", ""],
        "artists.csv": ["", "artists.csv:Miles", "", "artists.csv:Miles"],
    }
    for group_by, of_songs in expected.items():
        values = division.values(songs, FOLDER, group_by)
        assert ["".join(values.get(song.path, [])) for song in songs] == of_songs
    assert "1 of 3 songs missing or ambiguous, e.g. jazz/none" in caplog.text
    for group_by, message in (("regex:(", "not a regular"), ("../artists.csv", "outside"), ("none.csv", "is missing")):
        with pytest.raises((ParamsError, DatasetError), match=message):
            division.values(songs, FOLDER, group_by)
