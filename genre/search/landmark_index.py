"""The landmark index: the hashes and peaks of all songs, in memory-mapped shards of at most `SHARD_SONGS` songs.

All songs lie one after another on one time axis, separated by gaps longer than any snippet, so that a position on the
axis identifies a song and an offset in it. A shard has the songs whose SHA-256 begin with the same bits, so another
song changes one shard. It has their peaks, by time, and a share of the pairs of peaks, by hash. The hashes of a snippet
are near each other, so that few pages have their pairs.
"""

from __future__ import annotations

import json
import logging
import mmap
import zlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre import files
from genre.audio import ffmpeg
from genre.audio.manifest import Row
from genre.errors import SearchError
from genre.search import landmarks
from genre.search.engine import MAX_SNIPPET_S, IndexedSong
from genre.search.landmarks import HASH_BITS, Floats, Integers, Peaks, Unsigned

STEPS = 4  # positions on the axis per frame
BIN_STEPS = 128  # frequencies of a peak per bin
GAP = STEPS * int(1.2 * MAX_SNIPPET_S / landmarks.FRAME_S)  # positions between two songs
AXIS_BITS = 40  # of a frame on the axis
SHARD_SONGS = 4096  # 260 MB at most, of songs of 4 minutes: a look-up reads a few pages for each hash and shard
BLOCK = 256  # positions: the place of a peak in its block is one byte
MAX_READ = 1_000_000  # occurrences of hashes that a look-up reads; a hash counts one more in each shard
CHECKED_SHARDS = 4  # an index of more is opened without reading all of it
PART_BITS = 24  # of a frame in a part of a shard's axis: the frame of a pair is three bytes
SETTINGS = landmarks.SETTINGS | {"layout": 2}

_HEAD = "index.json"  # settings, and the songs and digest of each shard

Rows = npt.NDArray[np.int32]
Shard = npt.NDArray[np.void]  # of one record, as `_shard` returns it

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class LandmarkIndex:
    """The landmarks of all songs, on one axis."""

    songs: Sequence[IndexedSong]
    n_frames: Integers  # of each song, shape (songs,)
    begins: Integers  # position of the start of each song, shape (songs,)
    shards: Sequence[Shard]
    first_songs: Integers  # index in `songs` of the first song of each shard, shape (shards,)
    rows: Rows  # of each hash in a shard, as `_rows` returns them

    @classmethod
    def load(cls, folder: Path, density: float | None = None) -> LandmarkIndex:
        """Open an index that `write` wrote, of a density, or of any.

        Raises SearchError if a file is missing, damaged or of other settings of landmarks.
        """
        with files.reading(folder / _HEAD, SearchError, "index"):
            head = files.read_json(folder / _HEAD)
            if head["settings"] != SETTINGS or density not in (None, head["density"]):
                raise SearchError(f"{folder} was made with other settings of landmarks: run `dvc repro --force index`")
            is_small = len(head["shards"]) <= CHECKED_SHARDS
            shards = [_open(folder / entry["file"], check=is_small) for entry in head["shards"]]
            songs = [IndexedSong(*song) for entry in head["shards"] for song in entry["songs"]]
        n_frames = np.concatenate([np.empty(0, np.int64), *(shard["n_frames"][0] for shard in shards)])
        first_songs = np.cumsum([0, *(shard["n_frames"].shape[1] for shard in shards)])[:-1]
        begins, rows = _begins(n_frames), _rows(head["density"])
        return cls(songs, n_frames, begins, shards, first_songs, rows)

    def lookup(self, hashes: Unsigned) -> tuple[Integers, Integers]:
        """Return (index of the hash, ascending, and frame on the axis) of the occurrences of hashes [shape=(n,) each].

        The rarest hashes are looked up first, and no more than give `MAX_READ` occurrences.
        """
        rows = self.rows[hashes]
        rarest = self._rarest(rows)
        occurrences = [np.empty(0, np.int64)]
        for shard, start in zip(self.shards, (self.begins[self.first_songs] - GAP) // STEPS, strict=True):
            first, end = _pairs_with(shard, rows[rarest])
            of_part, indices = landmarks.ranges(first.ravel(), end.ravel())
            parts = (rarest << AXIS_BITS)[:, np.newaxis] + start + (np.arange(first.shape[1]) << PART_BITS)
            frames = np.pad(shard["frames"][0][indices], ((0, 0), (0, 1))).view("<u4")[:, 0]
            occurrences.append(parts.ravel()[of_part] + frames)
            if isinstance(shard.base, mmap.mmap):  # the pages that were read stay in the page cache only
                shard.base.madvise(mmap.MADV_DONTNEED)
        owners, frames = np.divmod(np.sort(np.concatenate(occurrences)), 2**AXIS_BITS)
        return owners, frames

    def song_at(self, positions: Integers) -> Integers:
        """Return the index in `songs` of the song at each position; the gap before a song belongs to it."""
        return np.searchsorted(self.begins, positions + GAP, side="right") - 1

    def peaks_between(self, begins: Integers, ends: Integers) -> tuple[Integers, Integers, Floats]:
        """Return (index of the interval, position, bin) of the peaks in intervals of the axis [shape=(n,) each].

        An interval [begins[i], ends[i]) is of one song and the gaps around it.
        """
        parts: list[tuple[Any, ...]] = [(np.empty(0, np.int64), np.empty(0, np.int64), np.empty(0, np.float32))]
        numbers = np.searchsorted(self.first_songs, self.song_at(begins), side="right") - 1
        for number in np.unique(numbers):
            shard, intervals = self.shards[number], np.flatnonzero(numbers == number)
            start = self.begins[self.first_songs[number]] - GAP
            length = BLOCK * (shard["blocks"].shape[1] - 1)
            first, end = (np.clip(edges[intervals] - start, 0, length) for edges in (begins, ends))
            owners, blocks = landmarks.ranges(first // BLOCK, -(-end // BLOCK))
            of_block, indices = landmarks.ranges(*(shard["blocks"][0][blocks + i] for i in (0, 1)))
            positions, owners = blocks[of_block] * BLOCK + shard["times"][0][indices], owners[of_block]
            inside = (positions >= first[owners]) & (positions < end[owners])
            bins = shard["bins"][0][indices[inside]] / np.float32(BIN_STEPS)
            parts.append((intervals[owners[inside]], positions[inside] + start, bins))
        owners, positions, bins = map(np.concatenate, zip(*parts, strict=True))
        return owners, positions, bins

    def peaks(self, song: int, first: int, n_frames: int) -> Peaks:
        """Return the peaks of `n_frames` frames, from the frame `first`, of the song at an index in `songs`."""
        begin = self.begins[[song]] + STEPS * first
        _, positions, bins = self.peaks_between(begin, begin + STEPS * n_frames)
        return Peaks(((positions - begin) / STEPS).astype(np.float32), bins, n_frames)

    def _rarest(self, rows: Rows) -> Integers:
        """Return the indices of the rows to look up; a few shards tell how many occurrences each has."""
        kept = np.flatnonzero(rows >= 0)
        sample = self.shards[:: len(self.shards) // 8 + 1]
        counts = np.full(len(kept), len(self.shards), np.float64)
        for shard in sample:
            first, end = _pairs_with(shard, rows[kept])
            counts += (end - first).sum(axis=1) * (len(self.shards) / len(sample))
        order = np.argsort(counts, kind="stable")
        return kept[np.sort(order[: np.searchsorted(np.cumsum(counts[order]), MAX_READ)])]


def write(
    folder: Path, songs: Iterable[IndexedSong], peaks_of: Callable[[list[IndexedSong]], Iterable[Peaks]], density: float
) -> LandmarkIndex:
    """Write the index of songs of different SHA-256 to a folder, and open it; the same songs give the same bytes.

    `peaks_of` returns the peaks of songs as `song_peaks` does. It is called for each shard, unless the folder has it of
    the same songs, settings, density and version of ffmpeg.
    """
    entries: list[dict[str, Any]] = []
    for part in _divided(sorted(songs, key=lambda song: song.sha256)):
        identity = files.digest(SETTINGS, density, ffmpeg.version(), [song.sha256 for song in part])
        path = folder / f"{identity[:16]}.npy"
        try:
            _open(path, check=True)
        except SearchError:
            with files.atomic_path(path) as temporary, temporary.open("wb") as stream:
                np.save(stream, _shard(list(peaks_of(part)), density), allow_pickle=False)
        entries.append({"file": path.name, "songs": [astuple(song) for song in part]})
    head = {"settings": SETTINGS, "density": density, "shards": entries}
    files.write_text(folder / _HEAD, json.dumps(head, ensure_ascii=False) + "\n")
    files.remove_others(folder, {folder / name for name in (_HEAD, *(entry["file"] for entry in entries))})
    return LandmarkIndex.load(folder, density)


def song_peaks(samples: Floats) -> Peaks:
    """Return the peaks of a song, rounded as in a shard, of samples as `landmarks.load` returns them."""
    peaks = landmarks.find_peaks(samples, landmarks.SONG_NEIGHBOURHOOD)
    times, bins = np.rint(peaks.times.clip(0) * STEPS) / STEPS, np.rint(peaks.bins * BIN_STEPS) / BIN_STEPS
    return Peaks(times.astype(np.float32), bins.astype(np.float32), peaks.n_frames)


def group_songs(rows: Sequence[Row]) -> dict[IndexedSong, list[Row]]:
    """Return the chunks of each song in order, songs sorted by name; of songs with equal content, the first only."""
    songs: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda row: (row.song_id, row.start_s)):
        chunks = songs.setdefault(row.source_sha256, [])
        if chunks and chunks[0].song_id != row.song_id:
            log.warning("%s is a copy of %s and is not indexed", row.source, chunks[0].source)
            continue
        chunks.append(row)
    return {IndexedSong(sha256, of_song[0].song, of_song[0].genre): of_song for sha256, of_song in songs.items()}


def _divided(songs: list[IndexedSong], bit: int = 255) -> list[list[IndexedSong]]:
    """Return the songs of each shard; songs are divided by the next bit of their SHA-256 while they are too many."""
    if len(songs) <= SHARD_SONGS:
        return [songs] if songs else []
    halves = [[song for song in songs if int(song.sha256, 16) >> bit & 1 == value] for value in (0, 1)]
    return [shard for half in halves for shard in _divided(half, bit - 1)]


def _shard(songs: Sequence[Peaks], density: float) -> Shard:
    """Return a shard of songs [shape=(1,)]: a record of arrays, so that one file can be memory-mapped.

    n_frames: of each song, shape (songs,);
    buckets: index of the first pair of each row in each part of the axis; the number of pairs, shape (rows + 1, parts);
    blocks: index of the first peak of each block of the axis, and the number of peaks, shape (blocks + 1,);
    bins, times: of each peak, the frequency, and the position in its block, shape (peaks,);
    frames: of the first peak of each pair in its part of the axis, by row and part, shape (pairs, 3 bytes).
    """
    n_frames = np.array([peaks.n_frames for peaks in songs], np.int64)
    begins, rows = _begins(n_frames), _rows(density)
    pairs = _sorted_pairs(songs, begins // STEPS, rows)
    positions = np.repeat(begins, [len(peaks.times) for peaks in songs])
    positions += (np.concatenate([peaks.times for peaks in songs]) * STEPS).astype(np.int64)
    length = int(np.sum(STEPS * n_frames + GAP))
    parts = np.arange((length // STEPS >> PART_BITS) + 1) << PART_BITS
    first_pairs = np.arange(rows.max() + 2)[:, np.newaxis] << 32 | parts
    arrays = {
        "n_frames": n_frames.astype("<u4"),
        "buckets": np.searchsorted(pairs, first_pairs).astype("<u4"),
        "blocks": np.searchsorted(positions, BLOCK * np.arange(length // BLOCK + 2)).astype("<u4"),
        "bins": (np.concatenate([peaks.bins for peaks in songs]) * BIN_STEPS).astype("<u2"),
        "times": (positions % BLOCK).astype("u1"),
        "frames": pairs.view(np.uint8).reshape(-1, 8)[:, :3],
        "crc": np.array(0, "<u4"),
    }
    shard = np.array([tuple(arrays.values())], [(name, a.dtype.str, a.shape) for name, a in arrays.items()])
    shard["crc"] = _crc(shard)
    return shard


def _sorted_pairs(songs: Sequence[Peaks], begins: Integers, rows: Rows) -> Integers:
    """Return the row of each indexed pair, times 2**32, plus the frame of its first peak [shape=(pairs,), <i8].

    `begins` are the frames at which the songs start.
    """
    pairs = []
    for peaks, begin in zip(songs, begins, strict=True):
        hashes, firsts = landmarks.song_hashes(peaks)
        of_hashes, frames = rows[hashes].astype(np.int64), begin + np.rint(firsts).astype(np.int64)
        pairs.append((of_hashes << 32 | frames)[of_hashes >= 0])
    together = np.concatenate(pairs, dtype="<i8")
    together.sort()
    return together


def _open(path: Path, *, check: bool) -> Shard:
    with files.reading(path, SearchError, "index"):
        shard: Shard = np.load(path, mmap_mode="r", allow_pickle=False)
        if check and shard["crc"][0] != _crc(shard):
            raise ValueError("its contents changed")
    return shard


def _crc(shard: Shard) -> int:
    return zlib.crc32(shard.view(np.uint8)[: -shard["crc"].nbytes].data)


def _rows(density: float) -> Rows:
    """Return the row of each hash in a shard, -1 for those that are not indexed [shape=(2**HASH_BITS,)]."""
    kept = landmarks.in_sample(np.arange(2**HASH_BITS, dtype=np.uint32), density)
    return np.where(kept, np.cumsum(kept, dtype=np.int32) - 1, np.int32(-1))


def _pairs_with(shard: Shard, rows: Rows) -> tuple[Unsigned, Unsigned]:
    """Return the index of the first pair of each row and part, and of the pair after the last [shape=(n, parts)]."""
    buckets = shard["buckets"][0]
    n_parts = buckets.shape[1]
    first = rows[:, np.newaxis] * n_parts + np.arange(n_parts)
    return buckets.ravel()[first], buckets.ravel()[first + 1]


def _begins(n_frames: Integers) -> Integers:
    """Return the position of the start of each song [shape=(songs,)]."""
    lengths = STEPS * n_frames + GAP
    return GAP + np.cumsum(lengths) - lengths
