"""Songs of a data set folder: listing, safe file names, and the train/test split."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import os
import random
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from genre.audio.manifest import SPLITS
from genre.errors import DatasetError

log = logging.getLogger(__name__)

# Extensions of files that are no songs. All other files are tried: ffmpeg decides what is audio.
SIDECARS = frozenset(
    ".txt .md .pdf .nfo .log .cue .m3u .m3u8 .pls .lrc .csv .tsv .json .yaml .yml .xml .html .ini .db .dvc .part .tmp "
    ".jpg .jpeg .png .gif .bmp .webp .svg .zip .rar .7z .sfv .md5 .py".split()
)
UNKNOWN = "unknown"  # reserved genre name: the answer of query at low confidence
FORMULA_SIGNS = ("=", "+", "-", "@")  # first characters of a spreadsheet formula
CONTROL = ("Cc", "Cs", "Zl", "Zp")  # Unicode categories: control characters, bytes that are not UTF-8, line ends
DIRECTION_MARKS = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
MAX_NAME_BYTES = 120  # '-NNN' and the longest CSV suffix still fit into the 255 bytes of a file name


@dataclass(frozen=True, slots=True)
class Song:
    """One song of a data set."""

    path: Path  # audio file
    genre: str  # name of the genre folder
    name: str  # safe for file names, unique in its genre
    split: str  # train or test; empty before the split


def scan(folder: Path) -> list[Song]:
    """Return the songs of a data set folder, sorted.

    The layout is train/<genre>/<song> and test/<genre>/<song>, or <genre>/<song>; a genre folder may have subfolders.
    Hidden files and files with an extension in `SIDECARS` are skipped; files outside the genre folders are reported.

    Raises DatasetError if the folder is missing, its layout is invalid, it has fewer than two genres, or a genre name
    is not allowed.
    """
    if not folder.is_dir():
        raise DatasetError(
            f"{folder}/ is missing: put a folder of songs per genre into it, or set dataset.name in params.yaml"
        )
    names = {path.name for path in _folders(folder)}
    splits = [name for name in SPLITS if name in names] or [""]
    layout = {split: _folders(folder / split) for split in splits}
    _check_layout(layout, folder)
    songs = [
        Song(path, genre.name, safe_name(path.stem), split)
        for split, genres in layout.items()
        for genre in genres
        for path in audio_files(genre)
    ]
    _check_genres(sorted({song.genre for song in songs}), folder)
    return _with_unique_names(songs, folder)


def audio_files(folder: Path) -> list[Path]:
    """Return the files below a folder that may be audio, sorted; hidden files and sidecars are skipped."""
    paths: list[Path] = []
    for parent, folders, names in os.walk(folder, onerror=lambda error: log.warning("a folder is skipped: %s", error)):
        folders[:] = [name for name in folders if not name.startswith(".")]
        paths += (path for name in names if _may_be_audio(path := Path(parent, name)))
    return sorted(paths, key=os.fsencode)


def divide(songs: Sequence[Song], digests: Mapping[Path, str], *, test_fraction: float, seed: int) -> list[Song]:
    """Return the songs with a random split, stratified by genre.

    It depends only on the seed and the names of the songs. Copies of a recording (equal SHA-256 in `digests`) get the
    same split, and every genre has at least one song in each split.

    Raises DatasetError if a genre has fewer than two different songs.
    """
    originals: dict[str, Song] = {}
    for song in songs:
        original = originals.setdefault(digests[song.path], song)
        if original.genre != song.genre:
            log.warning("%s and %s are the same file in two genres", original.path, song.path)
    splits: dict[str, str] = {}
    for genre in sorted({song.genre for song in songs}):
        recordings = sorted(digest for digest, original in originals.items() if original.genre == genre)
        if len(recordings) < 2:
            raise DatasetError(f"the genre {genre} has fewer than two different songs: it cannot be divided")
        recordings.sort(key=lambda digest: random.Random(f"{seed}/{genre}/{originals[digest].name}").random())  # noqa: S311
        n_test = min(max(1, round(test_fraction * len(recordings))), len(recordings) - 1)
        splits |= {digest: "test" if rank < n_test else "train" for rank, digest in enumerate(recordings)}
    return [dataclasses.replace(song, split=splits[digests[song.path]]) for song in songs]


def divide_by_list(songs: Sequence[Song], folder: Path, *, test_list: str | None, train_list: str | None) -> list[Song]:
    """Return the songs with the splits of list files in the data set folder.

    A line names a song as <genre>/<song>, with or without its extension; empty lines and lines that start with '#' are
    ignored. Songs on no list get the other split; with two lists, they are left out.

    Raises DatasetError if a list cannot be read, a song is on both lists, or a split is empty.
    """
    test, train = _read_list(folder, test_list, songs), _read_list(folder, train_list, songs)
    if both := test & train:
        raise DatasetError(f"{min(both)} is on both lists, {test_list} and {train_list}")
    default = "train" if train_list is None else "test" if test_list is None else ""
    splits = dict.fromkeys(test, "test") | dict.fromkeys(train, "train")
    divided = [dataclasses.replace(song, split=splits.get(song.path, default)) for song in songs]
    for split in SPLITS:
        if not any(song.split == split for song in divided):
            raise DatasetError(f"the lists leave no song for {split}")
    return [song for song in divided if song.split]


def check_no_leak(songs: Iterable[tuple[str, str, str]]) -> None:
    """Raise `DatasetError` if a recording is in both splits.

    `songs` has the split, the SHA-256 of the file and the name for the message of each song.
    """
    first_seen: dict[str, tuple[str, str]] = {}
    for split, digest, name in songs:
        first_split, first_name = first_seen.setdefault(digest, (split, name))
        if first_split != split:
            raise DatasetError(
                f"{first_name} ({first_split}) and {name} ({split}) are the same recording: remove one of them, train"
                " and test must not share a song"
            )


def genre_fault(name: str) -> str | None:
    """Return why `name` cannot be the name of a genre, as the end of a sentence; None if it can.

    Full-width and other compatibility forms of a character count as the character (NFKC).
    """
    plain = unicodedata.normalize("NFKC", name).strip()
    if plain in ("", ".", ".."):
        return "is empty"
    if plain.casefold() == UNKNOWN:
        return "is an answer of query"
    if plain.startswith(FORMULA_SIGNS):
        return "would be a formula in a spreadsheet"
    if any(c == "/" or c in DIRECTION_MARKS or unicodedata.category(c) in CONTROL for c in name):
        return "has a slash, a control character, a line end, a direction mark, or a byte that is not UTF-8"
    return None


def safe_name(name: str) -> str:
    """Return `name` as a file name that is valid in all file systems and tools.

    Letters of any script stay. Control characters, bytes that are not UTF-8, and characters with a meaning for
    sonic-annotator, shells or file systems become '_'. Leading signs of an option or a formula are removed.
    """
    text = unicodedata.normalize("NFC", name)
    plain = "".join(c if c.isalnum() or c in " ._-+=,()[]&!'" else "_" for c in text)
    plain = plain.strip(" .").lstrip("".join(FORMULA_SIGNS))
    encoded = plain.encode("utf-8", errors="replace")[:MAX_NAME_BYTES]
    return encoded.decode("utf-8", errors="ignore").strip() or "_"


def _check_layout(layout: Mapping[str, Sequence[Path]], folder: Path) -> None:
    """Raise `DatasetError` if the genre folders by split are invalid; log files outside them."""
    splits = [folder / split for split in layout if split]
    for path in [*splits, *(genre for genres in layout.values() for genre in genres)]:
        if folder.resolve().is_relative_to(path.resolve()):
            raise DatasetError(f"{path} is a link to a folder that contains it: remove it")
    if splits:
        for missing in set(SPLITS) - set(layout):
            raise DatasetError(f"{folder}/ has {min(layout)}/ but no {missing}/: add it, or use genre folders alone")
        if others := {path.name for path in _folders(folder)} - set(SPLITS):
            raise DatasetError(f"{folder}/ has {min(others)}/ beside train/ and test/: move it into one of them")
    files = [path for parent in [folder, *splits] for path in sorted(parent.iterdir())]
    if stray := [path for path in files if path.suffix and _may_be_audio(path)]:
        log.warning("%s: is in no genre folder and is skipped (%d such files)", stray[0], len(stray))


def _check_genres(names: Sequence[str], folder: Path) -> None:
    """Raise `DatasetError` if there are fewer than two genres or one has a name that is not allowed."""
    for name in names:
        if fault := genre_fault(name):
            raise DatasetError(f"{folder}/: the genre name {name!r} {fault}: rename the folder")
    if len(names) < 2:
        raise DatasetError(f"{folder}/ has songs of {len(names)} genre(s): at least 2 are needed, each in a folder")


def _may_be_audio(path: Path) -> bool:
    return not path.name.startswith(".") and path.suffix.lower() not in SIDECARS and path.is_file()


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _with_unique_names(songs: Sequence[Song], folder: Path) -> list[Song]:
    """Append a short digest of the path to names that two songs of a genre share or that lost characters."""
    keys = [(safe_name(song.genre), song.name.casefold()) for song in songs]
    counts = Counter(keys)
    unique = []
    for song, key in zip(songs, keys, strict=True):
        if song.name != song.path.stem or counts[key] > 1:
            path = os.fsencode(song.path.relative_to(folder))
            song = dataclasses.replace(song, name=f"{song.name}~{hashlib.sha256(path).hexdigest()[:8]}")
        unique.append(song)
    return unique


def _read_list(folder: Path, name: str | None, songs: Sequence[Song]) -> set[Path]:
    """Return the paths of the songs on a list."""
    if name is None:
        return set()
    path = folder / name
    try:
        if not path.resolve().is_relative_to(folder.resolve()):
            raise DatasetError(f"the list {path} is outside {folder}/: put it there, where DVC tracks it")
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise DatasetError(f"the list {path} cannot be read: {error}") from error
    by_name: dict[str, Path] = {}
    for song in songs:
        relative = song.path.relative_to(folder)
        by_name[str(relative)] = by_name[str(relative.with_suffix(""))] = song.path
    entries = [entry for line in lines if (entry := line.strip()) and not entry.startswith("#")]
    matches = {entry: by_name.get(entry) or by_name.get(str(Path(entry).with_suffix(""))) for entry in entries}
    if missing := [entry for entry, match in matches.items() if match is None]:
        log.warning("%s: %d of %d songs are not in the data set, e.g. %s", path, len(missing), len(entries), missing[0])
    return {match for match in matches.values() if match}
