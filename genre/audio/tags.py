"""Write genres into the tags of songs and take them back, without changing the audio and other tags."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import struct
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mutagen
from mutagen.asf import ASF
from mutagen.id3 import ID3, TCON, Encoding, ParseID3v1
from mutagen.mp4 import MP4Tags
from typing_extensions import TypedDict

from genre import files
from genre.audio.dataset import UNKNOWN
from genre.audio.ffmpeg import check_file, stream_hash
from genre.errors import AudioError, ParamsError

N_ID3_GENRES = 256  # numbers below may refer to ID3v1's list of genres
ID3V1_BYTES = 128
MULTI_PROBABILITY = 0.25  # mean over the chunks, from which a genre is written beside the song's
Fields = list[list[Any]]  # the genre fields of a file, as in JSON: [encoding or key of the field, its values]


class Change(TypedDict):
    """The genres of a file before and after: the answer of tags (docs/tags.md)."""

    file: str
    old: list[str]
    new: list[str]
    reason: str | None  # why the file is unchanged


@dataclass(frozen=True)
class Tagger:
    """Writes genres into the tags of files, in every format of mutagen but ASF, and takes them back.

    All other tags, ID3v1, the version of ID3 and the permissions are kept. A copy is changed and replaces the file
    atomically, if its encoded audio is the same. Symbolic links are followed; other hard links keep the old content.
    Methods raise AudioError if a file cannot be read or written, has another format, or its audio would change; the
    file is then unchanged, except by an undo whose entry cannot be written. Threads and processes may share a journal.
    Raises OSError if the journal cannot be opened.
    """

    journal: Path  # JSON lines: each change, with the genre fields before
    names: Mapping[str, Sequence[str]] = field(default_factory=dict)  # own names of genres, see `read_map`
    dry_run: bool = False  # return changes without writing them
    force: bool = False  # undo: also if another program has changed the genre

    def __post_init__(self) -> None:
        if not self.dry_run:
            self.journal.open("ab").close()  # an error before the first song

    def write(self, path: Path, genres: Sequence[str]) -> Change:
        """Write genres into the tags of a file; of several, ID3v2.3 gets the first. None are written if empty.

        A genre that differs in letter case only is kept as it is, unless it has an own name.
        """
        with _opened(path) as (audio, is_tagged):
            before = _fields(audio.tags)
            old = _genres(audio.tags, before)
            spelling = {_folded(name): name for name in old}
            named = [name for g in genres for name in self.names.get(g, [spelling.get(_folded(g), g)])]
            after = _new_fields(audio.tags, before, list(dict.fromkeys(named)))
            new = _genres(audio.tags, after)
            if new == old or not named:
                reason = "the same genre" if named else "the map has no name for it" if genres else UNKNOWN
                return _unchanged(path, old, reason)
            return self._replace(path, audio, after, is_tagged=True, entry={"tagged": is_tagged, "old": before})

    def undo(self, path: Path) -> Change:
        """Restore the genre fields that a file had before its first change; find a moved file by its audio.

        Raises AudioError also if another program has changed the genre, unless `force`.
        """
        changes = self._changes(path)
        with _opened(path) as (audio, _):
            fields = _fields(audio.tags)
            old = _genres(audio.tags, fields)
            if not changes or fields == changes[0]["old"]:
                return _unchanged(path, old, "as before the first change" if changes else f"not in {self.journal}")
            known = [_genres(audio.tags, changes[0]["old"]), *(change["new"] for change in changes)]
            if old not in known and not self.force:
                raise AudioError(f"{path}: another program has changed its genre to {old}; --force undoes it")
            return self._replace(path, audio, changes[0]["old"], is_tagged=changes[0]["tagged"], entry={})

    def _replace(self, path: Path, audio: Any, fields: Fields, *, is_tagged: bool, entry: dict[str, Any]) -> Change:
        """Replace a file by a copy with other genre fields; the journal gets an entry before it, or after an undo."""
        target = path.resolve()
        modified_ns = target.stat().st_mtime_ns
        old, new = (_genres(audio.tags, part) for part in (_fields(audio.tags), fields))
        change: Change = {"file": str(path), "old": old, "new": new, "reason": "dry run" if self.dry_run else None}
        if not (target.stat().st_mode & 0o222 and os.access(target, os.W_OK) and os.access(target.parent, os.W_OK)):
            raise AudioError(f"{path}: is read-only: its genre cannot be written")
        if self.dry_run:
            return change
        digest = stream_hash(path)
        with files.atomic_path(target) as copy:
            shutil.copy2(target, copy)  # with permissions
            save_tags(audio, copy, fields, is_tagged=is_tagged)
            is_same = False
            with contextlib.suppress(AudioError):
                is_same = stream_hash(copy) == digest
            with contextlib.suppress(PermissionError):  # only root may change the owner
                shutil.chown(copy, target.stat().st_uid, target.stat().st_gid)
            with copy.open("rb+") as stream:
                os.fsync(stream.fileno())  # before the rename, in case of a power failure
            if target.stat().st_mtime_ns != modified_ns:
                raise AudioError(f"{path}: another program is writing it: its genre is not written")
            if not is_same:
                raise AudioError(f"{path}: its audio would change: the genre is not written")
            time = datetime.now(UTC).isoformat(timespec="seconds")
            entry = {"time": time, "path": str(target), "format": type(audio).__name__, "audio": digest} | entry
            entry["new"] = new
            if "old" in entry:
                self._append(entry)
        if "old" not in entry:
            self._append(entry)
        return change

    def _append(self, entry: Mapping[str, Any]) -> None:
        """Append an entry to the journal with one write, so that processes do not mix theirs."""
        self.__dict__.pop("_entries", None)
        with self.journal.open("ab") as stream:
            stream.write(f"\n{json.dumps(entry)}".encode())  # after an entry that is cut off, if a disk was full
            stream.flush()
            os.fsync(stream.fileno())

    @functools.cached_property
    def _entries(self) -> Mapping[str, list[dict[str, Any]]]:
        """Return the entries of the journal by path, and by the hash of the audio."""
        entries: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for line in self.journal.read_bytes().splitlines() if self.journal.exists() else ():
            with contextlib.suppress(ValueError):  # an entry that is cut off: its file was not changed
                entry = json.loads(line)
                if isinstance(entry, dict) and entry.keys() >= {"path", "audio", "new"}:
                    entries[entry["path"]].append(entry)
                    entries[entry["audio"]].append(entry)
        return entries

    def _changes(self, path: Path) -> list[dict[str, Any]]:
        """Return the entries of a file since it was last undone, the first one first: by its path, or by its audio.

        Raises AudioError if several files with this audio were moved, and had different genres.
        """
        own = str(path.resolve())
        same_audio = (self._entries and self._entries[stream_hash(path)]) or self._entries[own]
        recent = _since_undone(same_audio, own)
        paths = {entry["path"] for entry in recent}
        paths = {own} if own in paths else {other for other in paths if not Path(other).exists()}
        of_files = [[e for e in _since_undone(recent, other) if e["path"] == other] for other in sorted(paths)]
        changed = [of_file for of_file in of_files if of_file]
        if len({json.dumps(of_file[0]["old"]) for of_file in changed}) > 1:
            raise AudioError(f"{path}: {self.journal} has several files with its audio that were moved: move them back")
        return changed[0] if changed else []


def _since_undone(entries: Sequence[dict[str, Any]], path: str) -> Sequence[dict[str, Any]]:
    """Return the entries after the last undo of a path."""
    undone = [n for n, entry in enumerate(entries, 1) if entry["path"] == path and "old" not in entry]
    return entries[undone[-1] :] if undone else entries


def genres(answer: Mapping[str, Any], *, multi: bool = False) -> list[str]:
    """Return the genres to write for an answer of query: none for "unknown".

    With `multi`, further ones are those with a mean probability of `MULTI_PROBABILITY`, the most probable first.
    """
    if answer["genre"] == UNKNOWN:
        return []
    means = Counter[str]()
    for chunk in answer["chunks"]:
        means.update({genre: p / len(answer["chunks"]) for genre, p in chunk["probabilities"].items()})
    others = [genre for genre, mean in means.most_common() if mean >= MULTI_PROBABILITY and genre != answer["genre"]]
    return [answer["genre"], *(others if multi else ())]


def read_map(path: Path, genres: Collection[str]) -> dict[str, list[str]]:
    """Read own names of genres from YAML, `genre: name`, a list of names, or null for a genre that is not written.

    Raises ParamsError if the file cannot be read, or for a genre that is not in `genres`.
    """
    try:
        values = files.read_yaml(path).items()
        names = {genre: own if isinstance(own, list) else [own] * (own is not None) for genre, own in values}
    except Exception as error:  # OSError, ValueError, AttributeError or one of yaml's
        raise ParamsError(f"{path}: is not a map of genres in YAML ({error})") from error
    for genre, own in names.items():
        if genre not in genres:
            raise ParamsError(f"{path}: {genre} is not a genre of the model; choose from {', '.join(genres)}")
        if bad := [name for name in own if not (isinstance(name, str) and name.strip() and name.isprintable())]:
            raise ParamsError(f"{path}: the name {bad[0]!r} of {genre} must be text in quotes")
    return names


def describe(change: Mapping[str, Any]) -> str:
    """Return a `Change` in one line."""
    old, new = ("; ".join(change[key]) or "no genre" for key in ("old", "new"))
    reason = f" ({change['reason']})" if change["reason"] else ""
    return f"{change['file']}: " + (f"{old}, unchanged{reason}" if old == new else f"{old} -> {new}{reason}")


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, bool]]:
    """Yield a file as a mutagen object with tags, and whether it has any; turn errors into an `AudioError`."""
    check_file(path)
    target = path.resolve()
    try:
        audio = mutagen.File(target)
        if audio is None or isinstance(audio, ASF):
            formats = "MP3, FLAC, Ogg, MP4, WAV, AIFF, APE, WavPack and Musepack"
            raise AudioError(f"{path}: tags can be written to {formats} files only")
        is_id3v1 = False
        if isinstance(audio.tags, ID3):
            # translate=False keeps frames as they are; ID3v2.2, which mutagen cannot write, becomes 2.3
            is_id3v1, old = (audio.tags.version[:2] == version for version in ((1, 1), (2, 2)))
            audio = type(audio)(target, translate=old, v2_version=3 if old else 4, load_v1=is_id3v1)
        is_tagged = audio.tags is not None and not is_id3v1
        if audio.tags is None:
            audio.add_tags()
        yield audio, is_tagged
    except (mutagen.MutagenError, OSError) as error:
        reason = getattr(error, "strerror", None) or str(error).replace(f"{target}: ", "") or "it is damaged"
        raise AudioError(f"{path}: its tags cannot be changed ({reason})") from error
    except (ValueError, LookupError, ArithmeticError, struct.error) as error:  # of mutagen, on damaged files
        raise AudioError(f"{path}: its tags cannot be changed (the sizes in its headers are wrong)") from error


def _unchanged(path: Path, genres: list[str], reason: str) -> Change:
    return {"file": str(path), "old": genres, "new": genres, "reason": reason}


def _folded(genre: str) -> str:
    """Return a genre for comparison: case-folded, in normal form C, without outer spaces."""
    return unicodedata.normalize("NFC", genre).strip().casefold()


def _fields(tags: Any) -> Fields:
    if isinstance(tags, ID3):
        return [[int(frame.encoding), list(frame.text)] for frame in tags.getall("TCON")]
    if isinstance(tags, list):  # Vorbis comments
        return [[[n, key], [value]] for n, (key, value) in enumerate(tags) if key.upper() == "GENRE"]
    return [[key, list(values)] for key, values in tags.items() if key.lower() in ("genre", "\xa9gen")]


def _new_fields(tags: Any, before: Fields, genres: list[str]) -> Fields:
    """Return the fields for genres, in place of the fields before."""
    if isinstance(tags, ID3):
        texts = [_as_id3_text(genre) for genre in genres]
        return [[int(Encoding.UTF8), texts]] if _is_id3v24(tags) else [[int(Encoding.UTF16), texts[:1]]]
    if isinstance(tags, list):
        position, key = before[0][0] if before else (len(tags), "GENRE")
        return [[[n, key], [genre]] for n, genre in enumerate(genres, position)]
    key = "\xa9gen" if isinstance(tags, MP4Tags) else "Genre"
    return [[before[0][0] if before else key, genres]]


def _genres(tags: Any, fields: Fields) -> list[str]:
    """Return the genres in fields."""
    values = [value for _, values in fields for value in values]
    if isinstance(tags, ID3):
        values = TCON(encoding=Encoding.UTF8, text=values).genres  # names of numbers
    return [value.strip() for value in values if value.strip()]


def save_tags(audio: Any, path: Path, fields: Fields, *, is_tagged: bool) -> None:
    """Write the tags of a mutagen object to a file, with other genre fields; no tags if not tagged and none are left.

    ID3v1 is kept, which mutagen would change.
    """
    tags, options = audio.tags, {}
    with path.open("rb") as stream:
        stream.seek(-min(ID3V1_BYTES, path.stat().st_size), os.SEEK_END)
        id3v1 = stream.read()
    if isinstance(tags, ID3):
        tags.setall("TCON", [TCON(encoding=encoding, text=texts) for encoding, texts in fields])
        options = {"v2_version": 4 if _is_id3v24(tags) else 3, "v23_sep": None}
    elif isinstance(tags, list):
        tags[:] = [(key, value) for key, value in tags if key.upper() != "GENRE"]
        for (position, key), (value,) in fields:
            tags.insert(position, (key, value))
    else:
        for key, _ in _fields(tags):
            del tags[key]
        tags.update(dict(fields))
    if is_tagged or (len(tags) and tags != ParseID3v1(id3v1)):
        audio.save(path, **options)
    else:
        audio.delete(path)
    if id3v1.startswith(b"TAG"):
        with path.open("rb+") as stream:
            stream.seek(-ID3V1_BYTES, os.SEEK_END)
            stream.seek(-ID3V1_BYTES if stream.read(3) == b"TAG" else 0, os.SEEK_END)
            stream.write(id3v1)


def _is_id3v24(tags: Any) -> bool:
    """Whether tags are written as ID3v2.4, as new ones are; else as ID3v2.3."""
    return tags.version[:2] in ((2, 4), (1, 1))


def _as_id3_text(genre: str) -> str:
    """Return a genre, after a no-break space if programs would read it as a number in ID3v1's list of genres.

    "17", "RX" and "(12)" are such references, ID3v2.4 has no escape for them, and ffmpeg reads "80s" as number 80.
    """
    number = re.match(r"\(|(RX|CR)$|(\d+)", genre)
    return f"\u00a0{genre}" if number and int(number[2] or 0) < N_ID3_GENRES else genre
