"""The landmark index: the hashes and peaks of all songs in one file.

All songs lie one after another on one time axis, separated by gaps longer than any snippet, so that a position on the
axis identifies a song and an offset in it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from genre import files
from genre.audio.manifest import Row
from genre.errors import SearchError
from genre.search import landmarks
from genre.search.engine import MAX_SNIPPET_S, IndexedSong
from genre.search.landmarks import Floats, Integers, Peaks, Unsigned

STEPS = 4  # positions on the axis per frame
GAP = STEPS * int(1.2 * MAX_SNIPPET_S / landmarks.FRAME_S)  # positions between two songs

_ARRAYS = {"hashes": "<u4", "positions": "<u4", "peak_positions": "<u4", "peak_bins": "<f4"}

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """The landmarks of a song. Times are in 1/`STEPS` of a frame."""

    hashes: Unsigned  # of its pairs of peaks, shape (pairs,)
    positions: Unsigned  # time of the first peak of each pair, shape (pairs,)
    peak_positions: Unsigned  # times of the peaks, ascending, shape (peaks,)
    peak_bins: Floats  # frequencies of the peaks, shape (peaks,)
    n_frames: int

    @classmethod
    def of_samples(cls, samples: Floats) -> Landmarks:
        """Return the landmarks of a song, of samples as `landmarks.load` returns them."""
        peaks = landmarks.find_peaks(samples, landmarks.SONG_NEIGHBOURHOOD)
        hashes, times = landmarks.song_hashes(peaks)
        return cls(hashes, _in_steps(times), _in_steps(peaks.times), peaks.bins, peaks.n_frames)

    def to_bytes(self) -> bytes:
        """Return the landmarks in NumPy's npz format."""
        return files.npz(**asdict(self))

    @classmethod
    def from_bytes(cls, data: bytes) -> Landmarks:
        """Return the landmarks in bytes as `to_bytes` returns them."""
        arrays = files.read_npz(data)
        return cls(**{**arrays, "n_frames": int(arrays["n_frames"])})


@dataclass(frozen=True, slots=True)
class LandmarkIndex:
    """The landmarks of all songs, on one axis."""

    songs: Sequence[IndexedSong]
    n_frames: Sequence[int]  # of each song
    hashes: Unsigned  # ascending, shape (pairs,)
    positions: Unsigned  # of the first peak of each pair, shape (pairs,)
    peak_positions: Unsigned  # ascending, shape (peaks,)
    peak_bins: Floats  # shape (peaks,)

    @property
    def begins(self) -> Integers:
        """Return the position of the start of each song [shape=(songs,)]."""
        return _begins(self.n_frames)

    @property
    def total_frames(self) -> int:
        """Return the number of frames of all songs."""
        return sum(self.n_frames)

    @classmethod
    def build(cls, items: Sequence[tuple[IndexedSong, Landmarks]]) -> LandmarkIndex:
        """Return the index of songs with their landmarks; raise SearchError if they are longer than 290 days."""
        n_frames = [item.n_frames for _, item in items]
        begins = _begins(n_frames)
        if items and begins[-1] + STEPS * n_frames[-1] + GAP >= 2**32:
            raise SearchError("a landmark index holds at most 290 days of music: divide the data set")
        shifted = [
            (item.hashes, item.positions + begin, item.peak_positions + begin, item.peak_bins)
            for (_, item), begin in zip(items, begins.astype(np.uint32), strict=True)
        ]
        empty = tuple(np.empty(0, dtype) for dtype in _ARRAYS.values())
        hashes, positions, peak_positions, peak_bins = map(np.concatenate, zip(empty, *shifted, strict=True))
        order = np.argsort(hashes, kind="stable")
        songs = [song for song, _ in items]
        return cls(songs, n_frames, hashes[order], positions[order], peak_positions, peak_bins)

    def lookup(self, hashes: Unsigned) -> tuple[Integers, Unsigned]:
        """Return (index of the hash, position on the axis) of every occurrence [shape=(n,) each]."""
        begin, end = (np.searchsorted(self.hashes, hashes, side) for side in ("left", "right"))
        owners, indices = landmarks.ranges(begin, end)
        return owners, self.positions[indices]

    def song_at(self, positions: Integers) -> Integers:
        """Return the index in `songs` of the song at each position; the gap before a song belongs to it."""
        return np.searchsorted(self.begins, positions + GAP, side="right") - 1

    def peaks(self, song: int, first: int, n_frames: int) -> Peaks:
        """Return the peaks of `n_frames` frames, from the frame `first`, of the song at an index in `songs`."""
        begin = self.begins[song] + STEPS * first
        part = slice(*np.searchsorted(self.peak_positions, [begin, begin + STEPS * n_frames]))
        times = (self.peak_positions[part] - begin).astype(np.float32) / STEPS
        return Peaks(times, self.peak_bins[part], n_frames)

    def save(self, path: Path) -> None:
        """Write the index to one file, atomically; the same songs in the same order give the same bytes."""
        songs = [asdict(song) for song in self.songs]
        head = json.dumps({"settings": landmarks.SETTINGS, "songs": songs, "n_frames": list(self.n_frames)}).encode()
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        files.write_bytes(path, files.npz(head=np.frombuffer(head, np.uint8), **arrays))

    @classmethod
    def load(cls, path: Path) -> LandmarkIndex:
        """Read an index; raise SearchError if the file is missing, damaged or of other settings of landmarks."""
        with files.reading(path, SearchError, "index"):
            arrays = files.read_npz(path)
            head = json.loads(arrays.pop("head").tobytes())
            if head["settings"] != landmarks.SETTINGS:
                raise SearchError(f"{path} was made with other settings of landmarks: run `dvc repro --force index`")
            songs, n_frames = [IndexedSong(**song) for song in head["songs"]], [int(n) for n in head["n_frames"]]
            return cls(songs, n_frames, **arrays)


def group_songs(rows: Sequence[Row]) -> list[list[Row]]:
    """Return the chunks of each song in order, songs sorted by name; of songs with equal content, the first only."""
    songs: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.song_id, row.start_s)):
        chunks = songs.setdefault(row.source_sha256, [])
        if chunks and chunks[0].song_id != row.song_id:
            log.warning("%s is a copy of %s and is not indexed", row.source, chunks[0].source)
            continue
        chunks.append(row)
    return list(songs.values())


def _begins(n_frames: Sequence[int]) -> Integers:
    """Return the position of the start of each song [shape=(songs,)]."""
    lengths = STEPS * np.asarray(n_frames, np.int64) + GAP
    return GAP + np.cumsum(lengths) - lengths


def _in_steps(times: Floats) -> Unsigned:
    return (times.clip(0) * STEPS).round().astype(np.uint32)
