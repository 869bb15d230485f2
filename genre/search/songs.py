"""The songs that are indexed or asked for."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre.audio import ffmpeg, manifest

log = logging.getLogger(__name__)


def load(path: Path, *, sample_rate: int, start: float = 0.0, duration: float | None = None) -> npt.NDArray[np.float32]:
    """Decode an audio file, or a part of it in seconds, to mono at `sample_rate` in Hz; full scale is 1.0 [shape=(n,)].

    Raises
    ------
    AudioError
        If the file cannot be decoded.
    """
    blocks = list(ffmpeg.stream_pcm(path, sample_rate=sample_rate, start=start, duration=duration))
    return np.concatenate(blocks).astype(np.float32) / np.float32(32768)


@dataclass(frozen=True, slots=True)
class Song:
    """A song with its chunks, in their order."""

    rows: tuple[manifest.Row, ...]

    @property
    def row(self) -> manifest.Row:
        """The first row: what all rows tell of the song."""
        return self.rows[0]


def of_rows(rows: Sequence[manifest.Row]) -> list[Song]:
    """Return the songs in order of their names; of songs with the same content the first."""
    together: dict[str, list[manifest.Row]] = {}
    for row in sorted(rows, key=lambda row: (row.song_id, row.start_s)):
        of_content = together.setdefault(row.source_sha256, [])
        if of_content and of_content[0].song_id != row.song_id:
            log.warning("%s is a copy of %s: it is not indexed", row.source, of_content[0].source)
            continue
        of_content.append(row)
    return [Song(tuple(of_content)) for of_content in together.values()]
