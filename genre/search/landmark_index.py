"""The landmark index: the fingerprints of many songs in one file, by key; songs come and go one at a time.

All songs lie one after another on a single axis of time, with a gap between them that is longer than any snippet, so
that a place on the axis says which song it is in and where.
"""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Collection, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import SearchError
from genre.search import landmarks

STEPS = 4  # places on the axis for each frame
MAX_SNIPPET_S = 30.0
GAP = STEPS * int(1.2 * MAX_SNIPPET_S / landmarks.FRAME_S)  # places between two songs

_ARRAYS = {"keys": "<u4", "places": "<u4", "peak_places": "<u4", "peak_bins": "<f4"}
_SONG_ARRAYS = {"keys": "<u4", "anchors": "<u4", "peak_times": "<u4", "peak_bins": "<f4"}

Integers = npt.NDArray[np.uint32]


@dataclass(frozen=True, slots=True)
class Song:
    """An indexed song."""

    sha256: str  # of the file's bytes: the same content is the same song
    song: str  # name, unique in its genre
    genre: str


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What is kept of a song. Times are in 1/`STEPS` of a frame."""

    keys: Integers  # of its pairs of peaks, shape (pairs,)
    anchors: Integers  # time of the first peak of each pair, shape (pairs,)
    peak_times: Integers  # shape (peaks,)
    peak_bins: npt.NDArray[np.float32]  # shape (peaks,)
    n_frames: int

    def to_bytes(self) -> bytes:
        """Return the fingerprint in NumPy's npz format."""
        arrays = {name: getattr(self, name).astype(kind) for name, kind in _SONG_ARRAYS.items()}
        return _npz({**arrays, "n_frames": np.array(self.n_frames, "<i8")})

    @classmethod
    def from_bytes(cls, data: bytes) -> Fingerprint:
        """Read back what `to_bytes` wrote."""
        arrays = files.read_npz(data)
        keys, anchors, peak_times, peak_bins = (arrays[name] for name in _SONG_ARRAYS)
        return cls(keys, anchors, peak_times, peak_bins, int(arrays["n_frames"]))


def fingerprint(samples: npt.NDArray[np.float32]) -> Fingerprint:
    """Return the fingerprint of a song.

    Parameters
    ----------
    samples : npt.NDArray[np.float32] [shape=(n,)]
        Mono at `landmarks.SAMPLE_RATE`, as `landmarks.load` returns it.
    """
    peaks = landmarks.find_peaks(samples, landmarks.SONG_REACH)
    keys, anchors = landmarks.keys_of_song(peaks)
    return Fingerprint(keys, _in_steps(anchors), _in_steps(peaks.times), peaks.bins, peaks.n_frames)


class Index:
    """Fingerprints of songs. It does not change: `with_songs` and `without` return another one."""

    def __init__(
        self,
        songs: Sequence[Song],
        n_frames: Sequence[int],
        keys: Integers,
        places: Integers,
        peak_places: Integers,
        peak_bins: npt.NDArray[np.float32],
    ) -> None:
        """Take the songs with their frames, the places of all keys (sorted by key) and the peaks (sorted by place)."""
        self.songs = tuple(songs)
        self.n_frames = tuple(n_frames)
        self.keys, self.places = keys, places
        self.peak_places, self.peak_bins = peak_places, peak_bins
        self.begins = _begins(self.n_frames)
        self._edges = np.zeros(2**landmarks.KEY_BITS + 1, np.uint32)
        np.cumsum(np.bincount(keys, minlength=2**landmarks.KEY_BITS), out=self._edges[1:])

    @classmethod
    def empty(cls) -> Index:
        """Return an index of no songs."""
        return cls([], [], *(np.empty(0, kind) for kind in _ARRAYS.values()))

    @property
    def total_frames(self) -> int:
        """Frames of all songs together."""
        return sum(self.n_frames)

    def lookup(self, keys: Integers) -> tuple[npt.NDArray[np.int64], Integers]:
        """Return which of the keys is found, by position and once for every place, and the places [shape=(n,)]."""
        begin, end = self._edges[keys].astype(np.int64), self._edges[keys + np.uint32(1)].astype(np.int64)
        owners, found = landmarks.ranges(begin, end)
        return owners, self.places[found]

    def song_at(self, places: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the position in `songs` of the song that each place belongs to; the gap before a song is its own."""
        return np.searchsorted(self.begins, places + GAP, side="right") - 1

    def with_songs(self, added: Iterable[tuple[Song, Fingerprint]]) -> Index:
        """Return an index that also has these songs; one whose content or whose name was there is replaced."""
        items = {song.sha256: (song, prints) for song, prints in added}
        names = {(song.genre, song.song) for song, _ in items.values()}
        old = {s.sha256 for s in self.songs if s.sha256 in items or (s.genre, s.song) in names}
        rest = self.without(old)
        songs = [*rest.songs, *(song for song, _ in items.values())]
        n_frames = [*rest.n_frames, *(prints.n_frames for _, prints in items.values())]
        begins = _begins(n_frames)
        if not items:
            return rest
        if begins[-1] + STEPS * n_frames[-1] + GAP >= 2**32:
            raise SearchError("the landmark index is full (about 290 days of music): keep the songs in several indexes")
        new = list(zip((prints for _, prints in items.values()), begins[len(rest.songs) :], strict=True))
        keys = np.concatenate([rest.keys, *(prints.keys for prints, _ in new)])
        places = np.concatenate([rest.places, *(prints.anchors + np.uint32(b) for prints, b in new)])
        order = np.argsort(keys, kind="stable")
        peak_places = np.concatenate([rest.peak_places, *(prints.peak_times + np.uint32(b) for prints, b in new)])
        peak_bins = np.concatenate([rest.peak_bins, *(prints.peak_bins for prints, _ in new)])
        return Index(songs, n_frames, keys[order], places[order], peak_places, peak_bins)

    def without(self, digests: Collection[str]) -> Index:
        """Return an index without the songs of these SHA-256; those it does not have do not matter."""
        kept = np.array([song.sha256 not in digests for song in self.songs], bool)
        if kept.all():
            return self
        songs = [song for song, keep in zip(self.songs, kept, strict=True) if keep]
        n_frames = [n for n, keep in zip(self.n_frames, kept, strict=True) if keep]
        moved = np.zeros(len(kept), np.int64)
        moved[kept] = _begins(n_frames) - self.begins[kept]
        owner, peak_owner = (self.song_at(p.astype(np.int64)) for p in (self.places, self.peak_places))
        stays, peak_stays = kept[owner], kept[peak_owner]
        return Index(
            songs,
            n_frames,
            self.keys[stays],
            (self.places[stays] + moved[owner[stays]]).astype(np.uint32),
            (self.peak_places[peak_stays] + moved[peak_owner[peak_stays]]).astype(np.uint32),
            self.peak_bins[peak_stays],
        )

    def digest(self) -> str:
        """Return a SHA-256 of the contents, whatever order the songs came in."""
        parts = []
        edges = np.searchsorted(self.peak_places, [*self.begins, 2**32])
        for i, song in enumerate(self.songs):
            part = slice(edges[i], edges[i + 1])
            times = self.peak_places[part] - np.uint32(self.begins[i])
            prints = hashlib.sha256(times.astype("<u4").tobytes() + self.peak_bins[part].astype("<f4").tobytes())
            parts.append([*asdict(song).values(), prints.hexdigest()])
        return files.digest(landmarks.SETTINGS, sorted(parts))

    def save(self, path: Path) -> None:
        """Write the index to one file, atomically; the same songs in the same order give the same bytes."""
        songs = [{**asdict(song), "n_frames": n} for song, n in zip(self.songs, self.n_frames, strict=True)]
        head = json.dumps({"settings": landmarks.SETTINGS, "songs": songs}, ensure_ascii=True).encode()
        arrays = {name: getattr(self, name).astype(kind, copy=False) for name, kind in _ARRAYS.items()}
        files.write_bytes(path, _npz({"head": np.frombuffer(head, np.uint8), **arrays}))

    @classmethod
    def load(cls, path: Path) -> Index:
        """Read an index.

        Raises
        ------
        SearchError
            If the file is missing or damaged, or its landmarks were made with other settings than this version's.
        """
        try:
            arrays = files.read_npz(path)
            head = json.loads(arrays["head"].tobytes())
            if any(arrays[name].dtype != kind or arrays[name].ndim != 1 for name, kind in _ARRAYS.items()):
                raise ValueError("its arrays are of another kind")
            keys, places, peak_places, peak_bins = (arrays[name] for name in _ARRAYS)
            settings = dict(head["settings"])
            songs = [Song(s["sha256"], s["song"], s["genre"]) for s in head["songs"]]
            n_frames = [int(s["n_frames"]) for s in head["songs"]]
            if len(keys) != len(places) or len(peak_places) != len(peak_bins):
                raise ValueError("its arrays are of different lengths")
            end = _begins([*n_frames, 0])[-1]
            if min(n_frames, default=0) < 0 or max(places.max(initial=0), peak_places.max(initial=0)) > end:
                raise ValueError("its landmarks lie outside of its songs")
            index = cls(songs, n_frames, keys, places, peak_places, peak_bins)
        except FileNotFoundError:
            raise SearchError(f"{path} is not there: `dvc repro index` makes it") from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError, OverflowError) as error:
            raise SearchError(f"{path} is damaged ({error}): run `dvc repro --force index`") from error
        for key, value in landmarks.SETTINGS.items():
            if settings.get(key) != value:
                raise SearchError(
                    f"{path}: its landmarks were made with {key} {settings.get(key)}, this version takes {value};"
                    " make it again with `dvc repro index`"
                )
        return index


def _begins(n_frames: Sequence[int]) -> npt.NDArray[np.int64]:
    """Return the place on the axis where each song begins."""
    lengths = STEPS * np.asarray(n_frames, np.int64) + GAP
    return GAP + np.cumsum(lengths) - lengths


def _in_steps(times: npt.NDArray[np.float32]) -> Integers:
    steps: Integers = np.rint(np.maximum(times, 0) * STEPS).astype(np.uint32)
    return steps


def _npz(arrays: dict[str, npt.NDArray[np.generic]]) -> bytes:
    stream = io.BytesIO()
    np.savez(stream, allow_pickle=False, **arrays)
    return stream.getvalue()
