"""A data set folder: which songs are in it, what each is called, and on which side of the train/test line it stands."""

from __future__ import annotations

import hashlib
import logging
import os
import random
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genre.audio.manifest import SIDES
from genre.errors import DatasetError

log = logging.getLogger(__name__)


# Files that people keep beside their songs. Anything else is tried: ffmpeg decides what is audio.
SIDECARS = frozenset(
    ".txt .md .pdf .nfo .log .cue .m3u .m3u8 .pls .lrc .csv .tsv .json .yaml .yml .xml .html .ini .db .dvc .part .tmp "
    ".jpg .jpeg .png .gif .bmp .webp .svg .zip .rar .7z .sfv .md5 .py".split()
)
UNKNOWN = "unknown"  # reserved: the answer of query where the confidence is too low
FORMULA_SIGNS = ("=", "+", "-", "@")  # at the start of a cell
MAX_NAME_BYTES = 120  # leaves room for '-NNN' and the longest CSV suffix within the 255 bytes of a file name


@dataclass(frozen=True, slots=True)
class Song:
    """One song of a data set."""

    path: Path  # of the audio file
    genre: str  # name of its genre's folder
    name: str  # safe for file names, unique in its genre
    side: str  # train or test; empty while the data set is not divided yet


def scan(folder: Path) -> list[Song]:
    """List the songs of a data set folder, in a stable order.

    The folder holds train/<genre>/<song> and test/<genre>/<song>, or <genre>/<song>; songs may lie deeper, in album
    folders. Hidden files and files that are known not to be audio (covers, playlists, texts) are passed over.

    Raises
    ------
    DatasetError
        If the folder is missing, has no genre folders, only one of train/ and test/, or a genre's name will not do.
    """
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}/ is not there: put a folder of songs per genre into it, or choose another data set"
            " with dataset.name in params.yaml"
        )
    names = {child.name for child in _folders(folder)}
    for genre in [*_folders(folder), *(path for side in SIDES if side in names for path in _folders(folder / side))]:
        if folder.resolve().is_relative_to(genre.resolve()):
            raise DatasetError(f"{genre} is a link to the folder that it is in: remove it")
    sides = [side for side in SIDES if side in names]
    if len(sides) == 1:
        missing = SIDES[1 - SIDES.index(sides[0])]
        raise DatasetError(f"{folder}/ has {sides[0]}/ but no {missing}/: it needs both, or genre folders alone")
    if sides and names - set(sides):
        extra = sorted(names - set(sides))[0]
        raise DatasetError(f"{folder}/ has {extra}/ beside train/ and test/: move it into one of them")
    outside = [p for p in [folder, *(folder / side for side in sides)] for p in _audio_directly_in(p)]
    if outside:
        log.warning("%s: lies in no genre's folder and is left out (%d such files)", outside[0], len(outside))
    songs = [song for side in sides or [""] for genre in _folders(folder / side) for song in _songs_of(genre, side)]
    if not songs:
        raise DatasetError(f"{folder}/ has no songs: it needs one folder per genre with audio files in it")
    genres = {song.genre for song in songs}
    if UNKNOWN in {genre.casefold() for genre in genres}:
        raise DatasetError(
            f"{folder}/ has a genre {UNKNOWN}/: that is what `query` says where it knows none; rename it"
        )
    if formulas := sorted(genre for genre in genres if genre.startswith(FORMULA_SIGNS)):
        raise DatasetError(f"{folder}/: the genre {formulas[0]} would be a formula in a spreadsheet: rename the folder")
    if len(genres) < 2:
        raise DatasetError(f"{folder}/ has one genre only ({genres.pop()}): at least two are needed")
    return _with_unique_names(songs, folder)


def audio_files(folder: Path) -> list[Path]:
    """List what may be audio below a folder, in a stable order; hidden files and known sidecars are passed over."""
    found: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=_warn_of_folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += (path for name in names if _may_be_audio(path := Path(parent, name)))
    return sorted(found, key=os.fsencode)


def divide(songs: Sequence[Song], digests: Mapping[Path, str], *, test_fraction: float, seed: int) -> list[Song]:
    """Divide songs into train and test, genre by genre; copies of one recording (equal digest) stay together.

    Every genre gets at least one song on each side. The draw depends on the seed and the songs' names alone.

    Raises
    ------
    DatasetError
        If a genre has fewer than two different songs.
    """
    owner: dict[str, Song] = {}
    for song in songs:
        first = owner.setdefault(digests[song.path], song)
        if first.genre != song.genre:
            log.warning("%s and %s are the same file in two genres", first.path, song.path)
    divided: dict[Path, str] = {}
    for genre in sorted({song.genre for song in songs}):
        groups = sorted(d for d, first in owner.items() if first.genre == genre)
        if len(groups) < 2:
            raise DatasetError(f"the genre {genre} has fewer than two different songs: it cannot be divided")
        groups.sort(key=lambda digest: _draw(seed, owner[digest]))
        n_test = min(max(1, round(test_fraction * len(groups))), len(groups) - 1)
        for position, digest in enumerate(groups):
            divided[owner[digest].path] = "test" if position < n_test else "train"
    return [Song(s.path, s.genre, s.name, divided[owner[digests[s.path]].path]) for s in songs]


def divide_by_list(songs: Sequence[Song], folder: Path, *, test_list: str | None, train_list: str | None) -> list[Song]:
    """Divide songs by list files in the data set's folder; with both lists, songs on neither are left out.

    A line names a song as <genre>/<song>, with or without its file extension; empty lines and lines that start with
    '#' do not count.

    Raises
    ------
    DatasetError
        If a list cannot be read, a song is on both lists, or a side is left empty.
    """
    listed = {side: _read_list(folder, name, songs) for side, name in (("test", test_list), ("train", train_list))}
    if both := listed["test"] & listed["train"]:
        raise DatasetError(f"{min(both)} is on both lists, {test_list} and {train_list}")
    others = "train" if train_list is None else "test" if test_list is None else None
    divided = []
    for song in songs:
        side = "test" if song.path in listed["test"] else "train" if song.path in listed["train"] else others
        if side:
            divided.append(Song(song.path, song.genre, song.name, side))
    for side in SIDES:
        if not any(song.side == side for song in divided):
            raise DatasetError(f"the lists leave no song for {side}")
    return divided


def check_no_leak(songs: Iterable[tuple[str, str, str]]) -> None:
    """Prove that no recording stands on both sides.

    Parameters
    ----------
    songs : iterable of (side, digest, name)
        Side (train or test), SHA-256 of the file's bytes, and the name for the message.

    Raises
    ------
    DatasetError
        Naming both files of the first recording that does.
    """
    seen: dict[str, tuple[str, str]] = {}
    for side, digest, name in songs:
        first_side, first_name = seen.setdefault(digest, (side, name))
        if first_side != side:
            raise DatasetError(
                f"{first_name} ({first_side}) and {name} ({side}) are the same recording: train and test must not"
                " share a song, remove one of them"
            )


def safe_name(name: str) -> str:
    """Return `name` as a file name that every tool downstream takes: letters, digits and plain punctuation.

    Letters of any script stay; control characters, bytes that are not UTF-8, and the signs that sonic-annotator,
    shells or other file systems treat specially become '_'. Signs that make an option or a spreadsheet's formula of a
    name go from its start.
    """
    text = unicodedata.normalize("NFC", name)
    kept = (
        "".join(c if c.isalnum() or c in " ._-+=,()[]&!'" else "_" for c in text)
        .strip(" .")
        .lstrip("".join(FORMULA_SIGNS))
    )
    encoded = kept.encode("utf-8", errors="replace")[:MAX_NAME_BYTES]
    return encoded.decode("utf-8", errors="ignore").strip() or "_"


def _may_be_audio(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() not in SIDECARS and path.is_file()


def _audio_directly_in(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix and _may_be_audio(path))


def _warn_of_folder(error: OSError) -> None:
    log.warning("%s: cannot be looked into (%s)", error.filename, error.strerror)


def _folders(folder: Path) -> list[Path]:
    return sorted(p for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))


def _songs_of(genre: Path, side: str) -> list[Song]:
    return [Song(path, genre.name, safe_name(path.stem), side) for path in audio_files(genre)]


def _with_unique_names(songs: Sequence[Song], folder: Path) -> list[Song]:
    """Add a short digest of the path to names that two songs of a genre share or that lost characters."""
    together: defaultdict[tuple[str, str], list[Song]] = defaultdict(list)
    for song in songs:
        together[safe_name(song.genre), song.name.casefold()].append(song)
    return [
        song
        if song.name == song.path.stem and len(together[safe_name(song.genre), song.name.casefold()]) == 1
        else Song(song.path, song.genre, f"{song.name}~{_short_digest(song.path.relative_to(folder))}", song.side)
        for song in songs
    ]


def _short_digest(path: Path) -> str:
    return hashlib.sha256(os.fsencode(path)).hexdigest()[:8]


def _draw(seed: int, song: Song) -> float:
    return random.Random(f"{seed}/{song.genre}/{song.name}").random()  # noqa: S311 (not for secrets)


def _read_list(folder: Path, name: str | None, songs: Sequence[Song]) -> set[Path]:
    if name is None:
        return set()
    path = folder / name
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise DatasetError(f"the list {name} must lie in {folder}/, so that DVC sees when it changes")
    try:
        if not path.resolve().is_relative_to(folder.resolve()):  # a warning would tell what is in it
            raise DatasetError(f"the list {path} is a link that leads out of {folder}/: put the file there")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(f"the list {path} cannot be read: {error}") from error
    known: dict[str, Path] = {}
    for song in songs:
        relative = song.path.relative_to(folder)
        known[str(relative)] = known[str(relative.with_suffix(""))] = song.path
    entries = [entry for line in lines if (entry := line.strip()) and not entry.startswith("#")]
    found = {entry: known.get(entry) or known.get(str(Path(entry).with_suffix(""))) for entry in entries}
    if missing := [entry for entry, match in found.items() if match is None]:
        log.warning("%s: %d of %d songs are not in the data set, e.g. %s", path, len(missing), len(entries), missing[0])
    return {match for match in found.values() if match}
