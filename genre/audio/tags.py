"""Write genres into the tags of songs, without changing the audio and other tags."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import struct
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutagen
from mutagen.aiff import AIFF
from mutagen.flac import FLAC
from mutagen.id3 import COMM, ID3, PRIV, TCON, Encoding
from mutagen.mp3 import MP3
from mutagen.mp4 import MP4, MP4Tags
from mutagen.oggflac import OggFLAC
from mutagen.oggopus import OggOpus
from mutagen.oggspeex import OggSpeex
from mutagen.oggvorbis import OggVorbis
from mutagen.wave import WAVE

from genre.audio.ffmpeg import stream_hash
from genre.errors import AudioError
from genre.files import atomic_path

FORMATS = (MP3, FLAC, OggVorbis, OggOpus, OggFLAC, OggSpeex, MP4, WAVE, AIFF)
# Fields that keep the genre of a file before the first change
ID3_COMMENT = "original genre"  # description of an ID3 comment (COMM)
VORBIS_FIELD = "ORIGINAL_GENRE"
MP4_FIELD = "----:com.apple.iTunes:ORIGINAL_GENRE"
N_ID3_GENRES = 256  # numbers below may refer to ID3v1's list of genres
NO_GENRE = ""  # original genre of a file without one; as ID3 has no empty comments, a private frame (PRIV) stores it


@dataclass(frozen=True, slots=True)
class Change:
    """Old and new genre of a file."""

    path: Path
    old: str | None  # several genres are joined with '; '
    new: str
    changed: bool  # False if the genre is kept


def write_genre(path: Path, genre: str, *, dry_run: bool = False, only_missing: bool = False) -> Change:
    """Write a genre into the tags of an MP3, FLAC, Ogg (Vorbis, Opus, Speex, FLAC), MP4, WAV or AIFF file.

    The genre before the first change is kept in a comment field. All other tags, the ID3 version and the permissions
    are kept. A copy is changed and replaces the file atomically, if its encoded audio is the same. Symbolic links are
    followed; other hard links keep the old content.

    A genre that differs in letter case only is kept; with `only_missing`, every genre is. `genre` is not empty and has
    no null characters; `dry_run`: return the change without writing it. Raises AudioError if the file cannot be read
    or written, has another format, or its audio would change; the file is then unchanged.
    """
    if not path.is_file():
        raise AudioError(f"{path}: " + ("is not a file" if path.exists() else "is not there"))
    target = path.resolve()
    with _named(path):
        audio = _open(target)
        if audio is None:
            raise AudioError(f"{path}: tags can be written to MP3, FLAC, Ogg, MP4, WAV and AIFF files only")
        old = _genres(audio)
        is_kept = [_folded(name) for name in old] == [_folded(genre)] or (only_missing and bool(old))
        change = Change(path, "; ".join(old) or None, genre, not is_kept)
        if not change.changed:
            return change
        if not (target.stat().st_mode & 0o222 and os.access(target, os.W_OK) and os.access(target.parent, os.W_OK)):
            raise AudioError(f"{path}: is read-only: its genre cannot be written")
        if not dry_run:
            digest = stream_hash(path)
            with atomic_path(target) as copy:
                shutil.copy2(target, copy)  # with permissions
                save_tags(audio, copy, genre, change.old or NO_GENRE)
                if not _has_audio(copy, digest):
                    raise AudioError(f"{path}: its audio would change: the genre is not written")
                with contextlib.suppress(PermissionError):  # only root may change the owner
                    shutil.chown(copy, target.stat().st_uid, target.stat().st_gid)
                with copy.open("rb+") as stream:
                    os.fsync(stream.fileno())  # before the rename, in case of a power failure
    return change


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Turn errors of mutagen and the file system into an `AudioError` that names the file."""
    try:
        yield
    except (mutagen.MutagenError, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error).replace(f"{path.resolve()}: ", "")
    except (ValueError, LookupError, ArithmeticError, struct.error):  # of mutagen, on damaged files
        reason = ""
    else:
        return
    raise AudioError(f"{path}: its tags cannot be changed ({reason or 'the sizes in its headers are wrong'})")


def _open(path: Path) -> Any:
    """Return the file as a mutagen object with tags (empty if it has none); None for other formats."""
    audio = mutagen.File(path, options=FORMATS)
    if audio is None:
        return None
    if isinstance(audio.tags, ID3):
        # translate=False keeps frames as they are; ID3v2.2, which mutagen cannot write, becomes 2.3
        old = audio.tags.version[:2] == (2, 2)
        audio = type(audio)(path, translate=old, v2_version=3 if old else 4)
    if audio.tags is None:
        audio.add_tags()
    return audio


def _has_audio(path: Path, digest: str) -> bool:
    """Whether a file has the audio of a `stream_hash`."""
    try:
        return stream_hash(path) == digest
    except AudioError:
        return False


def _folded(genre: str) -> str:
    """Return a genre for comparison: case-folded, in normal form C, without outer spaces."""
    return unicodedata.normalize("NFC", genre).strip().casefold()


def _genres(audio: Any) -> list[str]:
    if isinstance(audio.tags, ID3):
        genres: Sequence[str] = [genre for frame in audio.tags.getall("TCON") for genre in frame.genres]
    else:
        genres = audio.tags.get("\xa9gen" if isinstance(audio.tags, MP4Tags) else "GENRE", [])
    return [genre.strip() for genre in genres if genre.strip()]


def save_tags(audio: Any, path: Path, genre: str, original: str) -> None:
    """Write the tags of a mutagen object to a file, with a new genre, and with the original one if none is stored."""
    tags, options = audio.tags, {}
    if isinstance(tags, ID3):
        if not tags.getall(f"COMM:{ID3_COMMENT}") and not tags.getall(f"PRIV:{ID3_COMMENT}"):
            comment = COMM(encoding=Encoding.UTF8, lang="XXX", desc=ID3_COMMENT, text=[original])
            tags.add(comment if original else PRIV(owner=ID3_COMMENT))
        tags.setall("TCON", [TCON(encoding=Encoding.UTF8, text=[_as_id3_text(genre)])])
        options = {"v2_version": 4 if tags.version[:2] in ((2, 4), (1, 1)) else 3, "v23_sep": None}
    elif isinstance(tags, MP4Tags):
        tags.setdefault(MP4_FIELD, [original.encode()])
        tags["\xa9gen"] = [genre]
    else:
        tags.setdefault(VORBIS_FIELD, [original])
        tags["GENRE"] = [genre]
    audio.save(path, **options)


def _as_id3_text(genre: str) -> str:
    """Return a genre, after a no-break space if programs would read it as a number in ID3v1's list of genres.

    "17", "RX" and "(12)" are such references, ID3v2.4 has no escape for them, and ffmpeg reads "80s" as number 80.
    """
    number = re.match(r"\(|(RX|CR)$|(\d+)", genre)
    return f"\u00a0{genre}" if number and int(number[2] or 0) < N_ID3_GENRES else genre
