"""The landmark index: the hashes and peaks of all songs in one file.

All songs lie one after another on one time axis, separated by gaps longer than any snippet, so that a position on the
axis identifies a song and an offset in it.
"""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre import files
from genre.audio.manifest import Row
from genre.errors import SearchError
from genre.search import landmarks
from genre.search.engine import MAX_SNIPPET_S, IndexedSong

STEPS = 4  # positions on the axis per frame
GAP = STEPS * int(1.2 * MAX_SNIPPET_S / landmarks.FRAME_S)  # positions between two songs

_ARRAYS = {"hashes": "<u4", "positions": "<u4", "peak_positions": "<u4", "peak_bins": "<f4"}

Integers = npt.NDArray[np.uint32]

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Landmarks:
    """The landmarks of a song. Times are in 1/`STEPS` of a frame."""

    hashes: Integers  # of its pairs of peaks, shape (pairs,)
    positions: Integers  # time of the first peak of each pair, shape (pairs,)
    peak_positions: Integers  # times of the peaks, ascending, shape (peaks,)
    peak_bins: npt.NDArray[np.float32]  # frequencies of the peaks, shape (peaks,)
    n_frames: int

    @classmethod
    def of_samples(cls, samples: npt.NDArray[np.float32]) -> Landmarks:
        """Return the landmarks of a song, of samples as `landmarks.load` returns them."""
        peaks = landmarks.find_peaks(samples, landmarks.SONG_NEIGHBOURHOOD)
        hashes, times = landmarks.song_hashes(peaks)
        return cls(hashes, _in_steps(times), _in_steps(peaks.times), peaks.bins, peaks.n_frames)

    def to_bytes(self) -> bytes:
        """Return the landmarks in NumPy's npz format."""
        arrays = {name: getattr(self, name).astype(kind) for name, kind in _ARRAYS.items()}
        return _npz({**arrays, "n_frames": np.array(self.n_frames, "<i8")})

    @classmethod
    def from_bytes(cls, data: bytes) -> Landmarks:
        """Return the landmarks in bytes as `to_bytes` returns them."""
        arrays = files.read_npz(data)
        hashes, positions, peak_positions, peak_bins = (arrays[name] for name in _ARRAYS)
        return cls(hashes, positions, peak_positions, peak_bins, int(arrays["n_frames"]))


@dataclass(frozen=True, slots=True)
class LandmarkIndex:
    """The landmarks of all songs, on one axis."""

    songs: Sequence[IndexedSong]
    n_frames: Sequence[int]  # of each song
    hashes: Integers  # ascending, shape (pairs,)
    positions: Integers  # of the first peak of each pair, shape (pairs,)
    peak_positions: Integers  # ascending, shape (peaks,)
    peak_bins: npt.NDArray[np.float32]  # shape (peaks,)

    @property
    def begins(self) -> npt.NDArray[np.int64]:
        """Return the position of the start of each song [shape=(songs,)]."""
        return _begins(self.n_frames)

    @property
    def total_frames(self) -> int:
        """Return the number of frames of all songs."""
        return sum(self.n_frames)

    @classmethod
    def build(cls, items: Sequence[tuple[IndexedSong, Landmarks]]) -> LandmarkIndex:
        """Return the index of songs with their landmarks.

        Raises SearchError if the songs are longer than an index can hold.
        """
        n_frames = [item.n_frames for _, item in items]
        begins = _begins(n_frames)
        if items and begins[-1] + STEPS * n_frames[-1] + GAP >= 2**32:
            raise SearchError("a landmark index holds at most 290 days of music: divide the data set")
        shifted: list[tuple[npt.NDArray[Any], ...]] = [
            (item.hashes, item.positions + begin, item.peak_positions + begin, item.peak_bins)
            for (_, item), begin in zip(items, begins.astype(np.uint32), strict=True)
        ]
        empty = tuple(np.empty(0, dtype) for dtype in _ARRAYS.values())
        hashes, positions, peak_positions, peak_bins = map(np.concatenate, zip(empty, *shifted, strict=True))
        order = np.argsort(hashes, kind="stable")
        songs = [song for song, _ in items]
        return cls(songs, n_frames, hashes[order], positions[order], peak_positions, peak_bins)

    def lookup(self, hashes: Integers) -> tuple[npt.NDArray[np.int64], Integers]:
        """Return (index of the hash, position on the axis) of every occurrence [shape=(n,) each]."""
        begin, end = (np.searchsorted(self.hashes, hashes, side) for side in ("left", "right"))
        owners, indices = landmarks.ranges(begin, end)
        return owners, self.positions[indices]

    def song_at(self, positions: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the index in `songs` of the song at each position; the gap before a song belongs to it."""
        return np.searchsorted(self.begins, positions + GAP, side="right") - 1

    def save(self, path: Path) -> None:
        """Write the index to one file, atomically; the same songs in the same order give the same bytes."""
        songs = [asdict(song) for song in self.songs]
        head = json.dumps({"settings": landmarks.SETTINGS, "songs": songs, "n_frames": list(self.n_frames)}).encode()
        arrays = {name: getattr(self, name).astype(kind, copy=False) for name, kind in _ARRAYS.items()}
        files.write_bytes(path, _npz({"head": np.frombuffer(head, np.uint8), **arrays}))

    @classmethod
    def load(cls, path: Path) -> LandmarkIndex:
        """Read an index.

        Raises SearchError if the file is missing or damaged, or was made with other settings of landmarks.
        """
        try:
            arrays = files.read_npz(path)
            head = json.loads(arrays["head"].tobytes())
            if any(arrays[name].dtype != kind or arrays[name].ndim != 1 for name, kind in _ARRAYS.items()):
                raise ValueError("an array has another type")
            hashes, positions, peak_positions, peak_bins = (arrays[name] for name in _ARRAYS)
            settings, n_frames = head["settings"], [int(n) for n in head["n_frames"]]
            songs = [IndexedSong(**song) for song in head["songs"]]
            if len(hashes) != len(positions) or len(peak_positions) != len(peak_bins) or len(songs) != len(n_frames):
                raise ValueError("its arrays differ in length")
            end = _begins([*n_frames, 0])[-1]
            if min(n_frames, default=0) < 0 or max(positions.max(initial=0), peak_positions.max(initial=0)) > end:
                raise ValueError("a landmark lies outside its song")
            if not np.all((peak_bins >= 0) & (peak_bins < landmarks.N_FFT // 2)):
                raise ValueError("a frequency is out of range")
            index = cls(songs, n_frames, hashes, positions, peak_positions, peak_bins)
        except FileNotFoundError:
            raise SearchError(f"{path} is not there: run `dvc repro index`") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise SearchError(f"{path} is damaged ({error}): run `dvc repro --force index`") from error
        if settings != landmarks.SETTINGS:
            raise SearchError(f"{path} was made with other settings of landmarks: run `dvc repro --force index`")
        return index


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


def _begins(n_frames: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return the position of the start of each song [shape=(songs,)]."""
    lengths = STEPS * np.asarray(n_frames, np.int64) + GAP
    return GAP + np.cumsum(lengths) - lengths


def _in_steps(times: npt.NDArray[np.float32]) -> Integers:
    steps: Integers = np.rint(np.maximum(times, 0) * STEPS).astype(np.uint32)
    return steps


def _npz(arrays: dict[str, npt.NDArray[np.generic]]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()
