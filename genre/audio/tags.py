"""Write the genre into the tags of a song; audio and other tags stay unchanged."""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genre.audio.ffmpeg import stream_hash
from genre.errors import AudioError

# Fields for the original genre
ID3_COMMENT = "original genre"  # description of an ID3 comment (COMM)
VORBIS_FIELD = "ORIGINAL_GENRE"
MP4_FIELD = "----:com.apple.iTunes:ORIGINAL_GENRE"
NO_GENRE = "(none)"  # original genre of a file without one; an empty ID3 comment is not stored


@dataclass(frozen=True, slots=True)
class Change:
    """Old and new genre of a file."""

    path: Path
    old: str | None  # several genres are joined with '; '; None: no genre
    new: str
    changed: bool  # False if the file already has the new genre


def write_genre(path: Path, genre: str, *, dry_run: bool = False) -> Change:
    """Write a genre into the tags of an MP3, FLAC, Ogg (Vorbis, Opus, Speex, FLAC), MP4, WAV or AIFF file.

    The original genre is kept in a comment field (`ID3_COMMENT`, `VORBIS_FIELD`, `MP4_FIELD`), also when a genre is
    written again. All other tags and the ID3 version are kept. A copy in the same folder is changed, its encoded audio
    is compared, and it replaces the file in one step, with the same permissions. Symbolic links are followed; another
    hard link keeps the old content.

    Parameters
    ----------
    path : Path
        The song.
    genre : str
        Any text without null characters, not empty.
    dry_run : bool
        Return the change without writing it.

    Raises
    ------
    AudioError
        If the file cannot be read or written, has another format, or its audio would change. The file is then
        unchanged.
    """
    if not path.is_file():
        raise AudioError(f"{path}: " + ("is not a file" if path.exists() else "is not there"))
    target = path.resolve()
    with _named(path):
        audio = _open(target)
        if audio is None:
            raise AudioError(f"{path}: tags can be written to MP3, FLAC, Ogg, MP4, WAV and AIFF files only")
        old = _genres(audio)
        change = Change(path, "; ".join(old) or None, genre, old != [genre])
        if not change.changed:
            return change
        if not (target.stat().st_mode & 0o222 and os.access(target, os.W_OK) and os.access(target.parent, os.W_OK)):
            raise AudioError(f"{path}: is read-only: its genre cannot be written")
        if not dry_run:
            before = stream_hash(target)
            with _replacement(target) as copy:
                save_tags(audio, copy, genre, change.old or NO_GENRE)
                if _hash_or_reason(copy) != before:
                    raise AudioError(f"{path}: its audio would change: the genre is not written")
    return change


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Raise errors of mutagen and the file system as an `AudioError` that names the file."""
    from mutagen import MutagenError

    try:
        yield
    # mutagen raises lookup, struct and arithmetic errors on files with invalid sizes inside
    except (MutagenError, OSError, ValueError, LookupError, ArithmeticError, struct.error) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise AudioError(f"{path}: its tags cannot be changed ({reason or type(error).__name__})") from error


def _open(path: Path) -> Any:
    """Return the file as a mutagen object with tags (empty if it has none), or None for other formats."""
    import mutagen
    from mutagen.aiff import AIFF
    from mutagen.flac import FLAC
    from mutagen.id3 import ID3
    from mutagen.mp3 import MP3
    from mutagen.mp4 import MP4
    from mutagen.oggflac import OggFLAC
    from mutagen.oggopus import OggOpus
    from mutagen.oggspeex import OggSpeex
    from mutagen.oggvorbis import OggVorbis
    from mutagen.wave import WAVE

    audio = mutagen.File(path, options=[MP3, FLAC, OggVorbis, OggOpus, OggFLAC, OggSpeex, MP4, WAVE, AIFF])
    if audio is None:
        return None
    if isinstance(audio.tags, ID3):
        # frames are not translated; only ID3v2.2, which mutagen cannot write, becomes 2.3
        old = audio.tags.version[:2] == (2, 2)
        audio = type(audio)(path, translate=old, v2_version=3 if old else 4)
    if audio.tags is None:
        audio.add_tags()
    return audio


def _hash_or_reason(path: Path) -> str:
    try:
        return stream_hash(path)
    except AudioError as error:
        return str(error)


def _genres(audio: Any) -> list[str]:
    from mutagen.id3 import ID3
    from mutagen.mp4 import MP4Tags

    if isinstance(audio.tags, ID3):
        genres: Sequence[str] = [genre for frame in audio.tags.getall("TCON") for genre in frame.genres]
    else:
        genres = audio.tags.get("\xa9gen" if isinstance(audio.tags, MP4Tags) else "GENRE", [])
    return [genre for genre in genres if genre]


def save_tags(audio: Any, path: Path, genre: str, original: str) -> None:
    """Write the tags of a mutagen object with a new genre to a file; add `original` unless one is stored."""
    from mutagen.id3 import COMM, ID3, TCON, Encoding
    from mutagen.mp4 import MP4Tags

    tags = audio.tags
    if isinstance(tags, ID3):
        if not tags.getall(f"COMM:{ID3_COMMENT}"):
            tags.add(COMM(encoding=Encoding.UTF8, lang="XXX", desc=ID3_COMMENT, text=[original]))
        tags.setall("TCON", [TCON(encoding=Encoding.UTF8, text=[genre])])
        version = 4 if tags.version[:2] in ((2, 4), (1, 1)) else 3
        audio.save(path, v2_version=version, v23_sep=None)
    elif isinstance(tags, MP4Tags):
        tags.setdefault(MP4_FIELD, [original.encode()])
        tags["\xa9gen"] = [genre]
        audio.save(path)
    else:
        if VORBIS_FIELD not in tags:
            tags[VORBIS_FIELD] = [original]
        tags["GENRE"] = [genre]
        audio.save(path)


@contextlib.contextmanager
def _replacement(path: Path) -> Iterator[Path]:
    """Yield a copy in the folder of a file; it replaces the file on success and is removed on an exception."""
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=".", suffix=".tmp")
    os.close(handle)
    copy = Path(name)
    try:
        shutil.copy2(path, copy)  # with permissions and extended attributes
        yield copy
        with contextlib.suppress(PermissionError):  # only root may change the owner
            owner = path.stat()
            os.chown(copy, owner.st_uid, owner.st_gid)
        with copy.open("rb+") as stream:
            os.fsync(stream.fileno())  # else the file could be empty after a power failure
        copy.replace(path)
    finally:
        copy.unlink(missing_ok=True)
