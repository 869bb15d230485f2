"""Songs of a data set folder: listing, safe file names, and the train/test split."""

from __future__ import annotations

import codecs
import functools
import hashlib
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from genre.audio.manifest import SPLITS
from genre.errors import DatasetError
from genre.terminal import printable

log = logging.getLogger(__name__)

# A file is a song if its extension is one of these, or if it has one of `FIRST_BYTES` and none of `OTHER_EXTENSIONS`.
AUDIO_EXTENSIONS = frozenset(
    ".3g2 .3ga .3gp .8svx .aa .aac .ac3 .adts .aif .aifc .aiff .amr .ape .asf .au .avi .awb .bwf .caf .dff .dsf .dts "
    ".dtshd .eac3 .f4a .flac .flv .iff .ircam .m2ts .m4a .m4b .m4p .m4r .m4v .mka .mkv .mlp .mmf .mov .mp+ .mp1 .mp2 "
    ".mp3 .mp4 .mpa .mpc .mpeg .mpg .mpp .mts .mxf .nist .nut .oga .ogg .ogv .ogx .oma .opus .paf .pvf .qcp .qt .ra "
    ".rf64 .rm .rmvb .rso .s3m .sbc .sf .shn .snd .sox .sph .spx .svx .tak .thd .tta .vob .voc .vqf .w64 .wav .wave "
    ".weba .webm .wma .wmv .wv .xa .xm .xwma".split()
)
OTHER_EXTENSIONS = frozenset(".asd .bak .crdownload .download .part .partial .pk .reapeaks .sfk .tmp .!qb .!ut".split())
SKIPPED_FOLDERS = frozenset({"@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "__MACOSX"})  # of file servers
FIRST_BYTES = (
    *(b"fLaC", b"OggS\x00", b"wvpk", b"TTA1", b"tBaK", b"MPCK", b"MP+", b"caff\x00", b".snd", b"DSD \x1c", b"FRM8"),
    *(b"RF64", b"ID3\x02", b"ID3\x03", b"ID3\x04", b"#!AMR", b"FLV\x01", b".RMF", b".ra\xfd", b"\x1aE\xdf\xa3"),
    *(b"0&\xb2u", b"riff.\x91", b"\x00\x00\x01\xba", b"\x0bw", b"\x7f\xfe\x80\x01"),
    *(bytes([0xFF, second]) for second in b"\xe2\xe3\xf0\xf1\xf2\xf3\xf8\xf9\xfa\xfb\xfc\xfd"),  # MPEG audio, ADTS
)
CONTAINERS = {b"RIFF": (b"WAVE", b"AVI "), b"FORM": (b"AIFF", b"AIFC", b"8SVX")}  # with the types in bytes 8 to 12
IMAGE_BRANDS = (b"avif", b"avis", b"heic", b"heix", b"heif", b"hevc", b"mif1", b"msf1")  # of MP4 files without audio
NOT_UTF8 = "has a name that is not UTF-8, which DVC cannot write: rename it (docs/data.md)"
LINKED_FOLDER = "is a link to a folder, which DVC does not read: put the folder here, or links to its files (`cp -rs`)"
HIDES_FILES = "hides files of the data set from DVC: remove it"
UNKNOWN = "unknown"  # reserved genre name: the answer of query at low confidence
FORMULA_SIGNS = ("=", "+", "-", "@")  # first characters of a spreadsheet formula
MAX_NAME_BYTES = 120  # '-NNN' and the longest CSV suffix still fit into the 255 bytes of a file name


class Song(NamedTuple):
    """One song of a data set."""

    path: Path  # audio file
    genre: str  # name of the genre folder
    name: str  # safe for file names, unique in its genre; empty before `with_unique_names`
    split: str  # train or test; empty before the split


def scan(folder: Path) -> list[Song]:
    """Return the songs of a data set folder, sorted.

    The layout is train/<genre>/<song> and test/<genre>/<song>, or <genre>/<song>; a genre folder may have subfolders.
    The name of a genre is that of its folder, in Unicode's normal form C. `walk` defines which files are songs. Songs
    outside the genre folders, and genre folders without songs, are logged.

    Raises DatasetError if the folder is missing, its layout is invalid, it has fewer than two genres, a genre name is
    not allowed, or DVC would not notice changes of some files.
    """
    if not folder.is_dir():
        raise DatasetError(f"{folder}/ is missing: add genre folders with songs, or set dataset.name in params.yaml")
    for path, fault in dvc_faults(folder):
        if fault in (LINKED_FOLDER, HIDES_FILES):
            raise DatasetError(f"{path} {fault}")
    splits = [folder / split for split in SPLITS if (folder / split).is_dir()]
    genres = [genre for parent in splits or [folder] for genre in _folders(parent)]
    _check_layout(folder, splits)
    songs = []
    for genre in genres:
        name, split = unicodedata.normalize("NFC", genre.name), genre.parent.name if splits else ""
        of_genre = [Song(path, name, "", split) for path in walk(genre)[0]]
        if not of_genre:
            log.warning("%s/: is left out: it has no song", genre)
        songs += of_genre
    check_genres(songs, folder)
    return with_unique_names(songs, folder)


def walk(folder: Path, *, follow_links: bool = False) -> tuple[list[Path], list[Path]]:
    """Return the songs and the other files below a folder, both sorted; hidden files are in neither.

    A file is a song by its extension or its first bytes. With `follow_links`, links to folders are followed, to each
    folder once.
    """
    songs: list[Path] = []
    others: list[Path] = []
    visited: set[Path] = set()
    report = functools.partial(log.warning, "a folder is skipped: %s")
    for parent, folders, names in os.walk(folder, onerror=report, followlinks=follow_links):
        if (real := Path(parent).resolve()) in visited:
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(filter(_is_visible, folders), key=lambda name: Path(parent, name).is_symlink())
        for path in (Path(parent, name) for name in names if not name.startswith(".")):
            if path.is_file():
                (songs if _may_be_audio(path) else others).append(path)
    return sorted(songs, key=os.fsencode), sorted(others, key=os.fsencode)


def dvc_faults(folder: Path) -> Iterator[tuple[Path, str]]:
    """Yield each path below a data set folder that DVC cannot track, with the reason as the end of a sentence.

    DVC follows links to files, and a link in place of the data set folder. It fails on names that are not UTF-8 and on
    links without a target, waits for named pipes, and does not read links to folders or folders with a .dvc folder.
    """
    for parent, folders, names in os.walk(folder):
        for name in sorted(folders + names):
            path = Path(parent, name)
            if not name.isprintable() and any(unicodedata.category(c) == "Cs" for c in name):
                yield path, NOT_UTF8
            if name in (".dvc", ".dvcignore"):
                yield path, HIDES_FILES
            elif path.is_symlink() and path.is_dir():
                yield path, LINKED_FOLDER
            elif not path.exists():
                yield path, "is a link to a file that is missing: remove it"
            elif not path.is_file() and not path.is_dir():
                yield path, "is neither a file nor a folder: remove it"


def divide_by_list(songs: Sequence[Song], folder: Path, *, test_list: str | None, train_list: str | None) -> list[Song]:
    """Return the songs with the splits of list files in the data set folder.

    A line names a song as <genre>/<song>, with or without its extension; empty lines and lines that start with '#' are
    ignored. Lists are UTF-8 or UTF-16 with any line ends, and names are compared in Unicode's normal form C. Songs on
    no list get the other split; with two lists, they are left out; without a list, nothing changes.

    Raises DatasetError if the folder has splits, a list cannot be read, a song is on both lists, or a split is empty.
    """
    if test_list is None and train_list is None:
        return list(songs)
    if songs[0].split:
        raise DatasetError(f"{folder}/ has train/ and test/ folders: set split.test_list and train_list to null")
    test, train = _read_list(folder, test_list, songs), _read_list(folder, train_list, songs)
    if both := test & train:
        raise DatasetError(f"{min(both)} is on both lists, {test_list} and {train_list}")
    default = "train" if train_list is None else "test" if test_list is None else ""
    splits = dict.fromkeys(test, "test") | dict.fromkeys(train, "train")
    divided = [song._replace(split=splits.get(song.path, default)) for song in songs]
    for split in SPLITS:
        if not any(song.split == split for song in divided):
            raise DatasetError(f"the lists leave no song for {split}")
    return [song for song in divided if song.split]


def check_genres(songs: Iterable[Song], folder: Path) -> None:
    """Raise `DatasetError` if there are fewer than two genres or one has a name that is not allowed."""
    names = sorted({song.genre for song in songs})
    for name in names:
        if fault := genre_fault(name):
            raise DatasetError(f"{folder}/: the genre name {name!r} {fault}: rename the folder")
    if len(names) < 2:
        raise DatasetError(f"{folder}/ has songs of {len(names)} genre(s): at least 2 are needed, each in a folder")


def with_unique_names(songs: Sequence[Song], folder: Path) -> list[Song]:
    """Return the songs with the safe names of their files, unique in their genres.

    Those that two songs would share or that lost characters end in a short digest of the path. Unicode's normal form
    does not matter: file systems store letters with accents in different forms.
    """
    names = [safe_name(song.path.stem) for song in songs]
    keys = [(safe_name(song.genre), name.casefold()) for song, name in zip(songs, names, strict=True)]
    counts = Counter(keys)
    unique = []
    for song, name, key in zip(songs, names, keys, strict=True):
        if counts[key] > 1 or name != unicodedata.normalize("NFC", song.path.stem):
            path = os.fsencode(song.path.relative_to(folder))
            name = f"{name}~{hashlib.sha256(path).hexdigest()[:8]}"
        unique.append(song._replace(name=name))
    return unique


def file_of(folder: Path, name: str) -> Path:
    """Return the path of a file in the data set folder; raise DatasetError if it is outside."""
    path = folder / name
    if not path.resolve().is_relative_to(folder.resolve()):
        raise DatasetError(f"{path} is outside {folder}/: put it there, where DVC tracks it")
    return path


def read_text(path: Path) -> str:
    """Return the text of a file in UTF-8 or UTF-16, in Unicode's normal form C; raise DatasetError if there is none."""
    try:
        data = path.read_bytes()
        text = data.decode("utf-16" if data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)) else "utf-8-sig")
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    return unicodedata.normalize("NFC", text)


def find(names: Sequence[str], songs: Iterable[Song], folder: Path, source: Path | None = None) -> dict[str, Song]:
    """Return songs by name: <genre>/<song> in the data set folder, with or without the extension.

    Names are in Unicode's normal form C. Those of no song, and those without extension of several, are left out, with a
    warning that names the file `source`, if there is one.
    """
    relative = {Path(unicodedata.normalize("NFC", str(song.path.relative_to(folder)))): song for song in songs}
    by_name: dict[Path, Song | None] = {}
    for path, song in relative.items():
        by_name[path.with_suffix("")] = None if path.with_suffix("") in by_name else song
    by_name |= relative  # an exact name comes before one without extension
    named: dict[str, Song] = {}
    for name in names:
        paths = Path(name), Path(name.replace("\\", "/"))
        forms = [form for path in paths for form in (path, path.parent / path.stem)]
        if match := next((by_name[form] for form in forms if form in by_name), None):
            named[name] = match
    if source and (missing := [name for name in names if name not in named]):
        log.warning("%s: %d of %d songs missing or ambiguous, e.g. %s", source, len(missing), len(names), missing[0])
    return named


def genre_fault(name: str) -> str | None:
    """Return the reason why `name` is not a valid genre name, as the end of a sentence; None if it is valid.

    Full-width and other compatibility forms of a character count as the character (NFKC).
    """
    plain = unicodedata.normalize("NFKC", name).strip()
    if plain in ("", ".", ".."):
        return "is empty"
    if plain.casefold() == UNKNOWN:
        return "is an answer of query"
    if plain.startswith(FORMULA_SIGNS):
        return "would be a formula in a spreadsheet"
    if set(name) & set("/\n\t") or printable(name) != name:
        return "has a slash, a control character, a line end, a direction mark or bytes that are not UTF-8"
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


def _check_layout(folder: Path, splits: Sequence[Path]) -> None:
    """Raise `DatasetError` if one of train and test is missing or other folders are beside them; log stray files."""
    if splits:
        for missing in set(SPLITS) - {split.name for split in splits}:
            raise DatasetError(f"{folder}/ has {splits[0].name}/ but no {missing}/: add it, or use genre folders alone")
        if others := set(_folders(folder)) - set(splits):
            raise DatasetError(f"{folder}/ has {min(others).name}/ beside train/ and test/: move it into one of them")
    files = [path for parent in [folder, *splits] for path in sorted(parent.iterdir())]
    if stray := [path for path in files if path.suffix and path.is_file() and _may_be_audio(path)]:
        log.warning("%s: is in no genre folder and is skipped (%d such files)", stray[0], len(stray))


def _may_be_audio(path: Path) -> bool:
    suffix = path.suffix.lower()
    if suffix in AUDIO_EXTENSIONS or suffix in OTHER_EXTENSIONS:
        return suffix in AUDIO_EXTENSIONS and not path.name.startswith(".")
    try:
        with path.open("rb") as stream:
            head = stream.read(20)
    except OSError:  # the decoder reports the reason
        return True
    is_mp4 = head[4:8] == b"ftyp" and head[8:12] not in IMAGE_BRANDS
    return head.startswith(FIRST_BYTES) or is_mp4 or head[8:12] in CONTAINERS.get(head[:4], ())


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and _is_visible(path.name))


def _is_visible(folder: str) -> bool:
    return not folder.startswith(".") and folder not in SKIPPED_FOLDERS


def _read_list(folder: Path, name: str | None, songs: Sequence[Song]) -> set[Path]:
    """Return the paths of the songs on a list."""
    if name is None:
        return set()
    path = file_of(folder, name)
    lines = map(str.strip, re.split(r"\r\n|\r|\n", read_text(path)))
    entries = [line for line in lines if line and not line.startswith("#")]
    return {song.path for song in find(entries, songs, folder, path).values()}
