"""Division of songs into training and test songs: copies of a recording and songs of a group stay together."""

from __future__ import annotations

import logging
import random
import re
import statistics
import struct
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from genre.audio.corrections import read_table
from genre.audio.dataset import Song, file_of, find
from genre.errors import DatasetError, ParamsError

TAGS = {  # case-folded names of a tag in ID3, MP4, ASF, and Vorbis comments or APE
    "artist": {"tpe1", "\xa9art", "author", "artist"},
    "album": {"talb", "\xa9alb", "wm/albumtitle", "album"},
}
FOLDER = r"^(?:(?:train|test)/)?([^/]+/[^/]+)/"  # genre and the first folder in it

log = logging.getLogger(__name__)


def originals(
    songs: Iterable[Song], digests: Mapping[Path, Sequence[str]], pairs: Iterable[tuple[Path, Path]] = ()
) -> dict[Path, Song]:
    """Return the first song of each song's recording, test songs before others; log recordings that are in two genres.

    Files that share a digest, directly or through others, are one recording, and so are `pairs`. `digests` has those of
    each file, of its encoded audio and of its decoded chunks, in any order.
    """
    keys = {path: list(of_file) for path, of_file in digests.items()}
    for number, pair in enumerate(pairs):
        for path in keys.keys() & set(pair):
            keys[path].append(f"pair {number}")
    recording = join(keys)
    first: dict[str, Song] = {}
    for song in sorted(songs, key=lambda song: song.split != "test"):
        original = first.setdefault(recording[song.path], song)
        if original.genre != song.genre:
            log.warning("%s and %s are the same recording in two genres", original.path, song.path)
    return {path: first[key] for path, key in recording.items()}


def join(keys: Mapping[Path, Sequence[str]]) -> dict[Path, str]:
    """Return one of the keys of each file, the same for files that share a key, directly or through others."""
    from scipy.cluster.hierarchy import DisjointSet

    sets = DisjointSet(key for of_file in keys.values() for key in of_file)
    for first, *rest in keys.values():
        for key in rest:
            sets.merge(first, key)
    return {path: sets[of_file[0]] for path, of_file in keys.items()}


def values(songs: Iterable[Song], folder: Path, group_by: str | None) -> dict[Path, list[str]]:
    """Return the values of `split.group_by` of each song that has some, such as "artist:miles davis".

    Raises ParamsError if its pattern is not a regular expression, DatasetError if its table is empty or cannot be read.
    """
    if group_by is None:
        return {}
    of_songs: dict[Path, list[str]] = {}
    kind, _, pattern = group_by.partition(":")
    if kind in TAGS:
        of_songs = {song.path: _tags(song.path, TAGS[kind]) for song in songs}
    elif kind in ("folder", "regex"):
        try:
            names = {song.path: song.path.relative_to(folder).as_posix() for song in songs}
            matches = {path: re.search(pattern or FOLDER, name) for path, name in names.items()}
        except re.error as error:
            raise ParamsError(f"split.group_by: {pattern} is not a regular expression: {error}") from error
        of_songs = {path: [next(iter(match.groups()), match[0]) or ""] for path, match in matches.items() if match}
    else:
        table = file_of(folder, group_by)
        rows = [row for _, row in read_table(table, ["song", "group"])]
        if not rows:
            raise DatasetError(f"{table} (split.group_by) is missing or has no rows")
        named = find([name for name, _ in rows], songs, folder, table)
        for name, group in rows:
            if name in named:
                of_songs.setdefault(named[name].path, []).append(group)
    return {path: [f"{kind}:{value}" for value in of_song] for path, of_song in of_songs.items() if any(of_song)}


def groups(songs: Iterable[Song], original: Mapping[Path, Song], shared: Mapping[Path, list[str]]) -> dict[Path, str]:
    """Return the group of each song: copies, and songs that share one of their `values`, are in one.

    Its name is the least of the values of its first song, or the <genre>/<name> of that song if there is none.
    """
    joined = join({song.path: [str(original[song.path].path), *shared.get(song.path, ())] for song in songs})
    names: dict[str, str] = {}
    for song in songs:
        names.setdefault(joined[song.path], min(shared.get(song.path, ()), default=f"{song.genre}/{song.name}"))
    return {path: names[key] for path, key in joined.items()}


def divide(
    songs: Sequence[Song], original: Mapping[Path, Song], group: Mapping[Path, str], *, test_fraction: float, seed: int
) -> list[Song]:
    """Return the songs with a random split, stratified by genre; songs of a group get the same split.

    It depends only on the seed and the names of the songs. A group counts in the genre of most of its recordings, and
    every genre has at least one group in each split. `original` and `group` are those of `originals` and `groups`.

    Raises DatasetError if a genre has fewer than two groups.
    """
    members: dict[str, list[Song]] = {}
    for song in songs:
        if original[song.path] == song:
            members.setdefault(group[song.path], []).append(song)
    genre_of = {key: statistics.mode(song.genre for song in of_group) for key, of_group in members.items()}
    test: set[str] = set()
    for genre in sorted({song.genre for song in songs}):
        keys = sorted(key for key in members if genre_of[key] == genre)
        if len(keys) < 2:
            raise DatasetError(
                f"the genre {genre} has fewer than two different songs (with split.group_by: groups) that can be"
                " decoded and are in no other genre: add songs, or remove it"
            )
        keys.sort(key=lambda key: random.Random(f"{seed}/{genre}/{members[key][0].name}").random())  # noqa: S311
        test |= _drawn(keys, members, test_fraction)
    return [song._replace(split="test" if group[song.path] in test else "train") for song in songs]


def check_no_leak(songs: Iterable[Song], original: Mapping[Path, Song], group: Mapping[Path, str]) -> None:
    """Raise `DatasetError` if a recording or a group is in both splits."""
    first_of: dict[str, Song] = {}
    for song in songs:
        first = first_of.setdefault(group[song.path], song)
        if first.split != song.split:
            same = original[first.path].path == original[song.path].path
            what = "the same recording" if same else f"of the group {group[song.path]} (split.group_by)"
            raise DatasetError(
                f"{first.path} ({first.split}) and {song.path} ({song.split}) are {what}: remove one of them, or put"
                " them into one split"
            )


def _drawn(keys: Sequence[str], members: Mapping[str, Sequence[Song]], test_fraction: float) -> set[str]:
    """Return the test groups of a genre, the first that fit into its share; at least one, and not all."""
    sizes = {key: len(members[key]) for key in keys}
    total, n_drawn = sum(sizes.values()), 0
    n_test = min(max(1, round(test_fraction * total)), total - 1)
    drawn = set()
    for key in keys:
        if n_drawn + sizes[key] / 2 < n_test:
            drawn.add(key)
            n_drawn += sizes[key]
    smallest = {min(keys, key=sizes.__getitem__)}
    return (drawn or smallest) if len(drawn) < len(keys) else drawn - smallest


def _tags(path: Path, names: set[str]) -> list[str]:
    """Return the case-folded values of a tag of a file, given its names; none if there are no tags."""
    import mutagen

    try:
        tags = getattr(mutagen.File(path), "tags", None) or {}
        fields = [tags[key] for key in tags.keys() if key.casefold() in names]  # noqa: SIM118 (Vorbis comments differ)
    except (mutagen.MutagenError, OSError, ValueError, LookupError, ArithmeticError, struct.error) as error:
        log.warning("%s: has no tags that can be read (%s)", path, error)
        return []
    texts = [str(text).strip().casefold() for field in fields for text in getattr(field, "text", field)]
    return [text for text in dict.fromkeys(texts) if text]
