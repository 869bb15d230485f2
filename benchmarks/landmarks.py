"""Size of the landmark index, and time, memory and recognition of `identify` with many songs.

    python -m benchmarks.landmarks FOLDER [--songs 1500 | --full] [--density 0.45 0.14] [--snippets 20]
                                   [--conditions clean "pink 5 dB"]

Half of the songs below FOLDER are indexed with made-up songs of 4 minutes: peaks of the other half, end to end, each
song's shifted by 43 to 430 Hz, at another speed, and with random errors. Beyond `N_MADE`, whole shards are copied, and
the times and frequencies in them changed at random. Snippets of 10 s of the first half are identified by another
process, with their song in the index and without; times are CPU seconds. The layout to compare with has 8 bytes for
each peak and each pair of peaks (hash and position of 32 bits), all in memory.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import pandas as pd

from benchmarks import recognition
from benchmarks.degradations import CONDITIONS
from benchmarks.identify import recordings
from benchmarks.recognition import Recording
from genre import files
from genre.cli import integer
from genre.search import landmark_index, landmarks
from genre.search.engine import Candidate, IndexedSong
from genre.search.landmark_engine import LandmarkEngine
from genre.search.landmark_index import BIN_STEPS, PART_BITS, STEPS, LandmarkIndex
from genre.search.landmarks import Floats, Peaks

SEED = 17
SONG_S = 240.0
N_MADE = 3000  # songs at most that are made from peaks


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.landmarks", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="songs to index, 20 s or longer")
    parser.add_argument("--songs", type=integer(1, 10**7), default=1500, help="songs of 4 minutes")
    parser.add_argument("--full", dest="songs", action="store_const", const=100_000, help="100,000 songs, 8 GB of disk")
    parser.add_argument("--density", type=float, nargs="+", default=[0.45, 0.14])
    parser.add_argument("--snippets", type=integer(1, 1000), default=20, help="of each condition")
    names = [condition.name for condition in CONDITIONS]
    parser.add_argument(
        "--conditions", nargs="+", choices=names, metavar="NAME", default=["clean", "pink 5 dB", "music 5 dB"]
    )
    options = parser.parse_args(argv)
    songs = recordings(options.folder)
    peaks = [landmark_index.song_peaks(landmarks.load(song.path)) for song in songs]
    real = dict(zip((_song(song.sha256) for song in songs[::2]), peaks[::2], strict=True))
    rows = []
    for density in options.density:
        with tempfile.TemporaryDirectory(prefix="landmarks-") as temporary:
            folder = Path(temporary, "landmarks")
            began = time.process_time()
            n_made = min(options.songs, N_MADE)
            build(folder, real, peaks[1::2], n_made, density)
            build_s = (time.process_time() - began) * 1000 / n_made
            _copy_shards(folder, options.songs)
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                measured = pool.apply(_measured, (folder, songs[::2], options.snippets, options.conditions))
            n_bytes = sum(path.stat().st_size for path in folder.iterdir())
            seconds = LandmarkIndex.load(folder).n_frames.sum() * landmarks.FRAME_S
            kb = n_bytes / seconds * SONG_S / 1000
        rows.append({"density": density, "KB/song": kb, "build CPU-s/1000": build_s, **measured})
    n_pairs = sum(len(landmarks.song_hashes(of_song)[0]) for of_song in peaks)
    per_song = SONG_S / landmarks.FRAME_S / sum(of_song.n_frames for of_song in peaks)
    print(pd.DataFrame(rows).round(2).T.to_string(header=False))
    print(f"8 bytes a peak and pair: {8 * per_song * (n_pairs + sum(len(p.times) for p in peaks)) / 1000:.0f} KB/song")
    return 0


def build(
    folder: Path, real: dict[IndexedSong, Peaks], peaks: Sequence[Peaks], n_songs: int, density: float
) -> LandmarkIndex:
    """Write the index of songs with their peaks, and of `n_songs` songs made of others."""
    seeds = {_song(files.digest(i)): i for i in range(n_songs)}
    return landmark_index.write(
        folder,
        [*real, *seeds],
        lambda part: [real[song] if song in real else _made_up(peaks, seeds[song]) for song in part],
        density,
    )


def _song(sha256: str) -> IndexedSong:
    return IndexedSong(sha256, sha256[:12], "rock")


def _made_up(songs: Sequence[Peaks], seed: int) -> Peaks:
    rng = np.random.default_rng([SEED, seed])
    n_frames = round(SONG_S / landmarks.FRAME_S)
    times, bins, end = [np.empty(0)], [np.empty(0)], 0.0
    while end < n_frames:
        song = songs[int(rng.integers(len(songs)))]
        speed, pitch = rng.uniform(0.8, 1.25), rng.choice([-1, 1]) * rng.uniform(4, 40)
        times.append(end + song.times * speed + rng.normal(0, 0.5, len(song.times)))
        bins.append(song.bins + pitch + rng.normal(0, 0.25, len(song.times)))
        end += song.n_frames * speed
    all_times, all_bins = np.concatenate(times), np.concatenate(bins)
    inside = (all_times >= 0) & (all_times < n_frames)
    inside &= (all_bins >= landmarks.LOWEST_BIN) & (all_bins < landmarks.HIGHEST_BIN)
    order = np.flatnonzero(inside)[np.argsort(all_times[inside], kind="stable")]
    rounded = np.rint(all_times[order] * STEPS) / STEPS, np.rint(all_bins[order] * BIN_STEPS) / BIN_STEPS
    return Peaks(rounded[0].astype(np.float32), rounded[1].astype(np.float32), n_frames)


def _copy_shards(folder: Path, n_songs: int) -> None:
    """Add changed copies of the shards until the index has `n_songs` songs."""
    head = files.read_json(folder / "index.json")
    originals = list(head["shards"])
    n_indexed = sum(len(shard["songs"]) for shard in originals)
    number = 0
    while n_indexed < n_songs:
        original = originals[number % len(originals)]
        rng, number = np.random.default_rng([SEED, number]), number + 1
        shard = np.load(folder / original["file"])
        frames = np.pad(shard["frames"][0], ((0, 0), (0, 1))).view("<u4")[:, 0]
        frames += rng.integers(0, 64, len(frames), dtype=np.uint32)
        shard["frames"][0] = np.minimum(frames, 2**PART_BITS - 1).view(np.uint8).reshape(-1, 4)[:, :3]
        shard["bins"] += rng.integers(0, 4 * BIN_STEPS, shard["bins"].shape, dtype=np.uint16) % 505
        shard["times"] ^= rng.integers(0, 64, shard["times"].shape, dtype=np.uint8)
        shard["crc"] = landmark_index._crc(shard)
        names = [files.digest(number, song) for song, _, _ in original["songs"]]
        np.save(folder / f"copy{number}.npy", shard)
        songs = [[name, name[:12], "rock"] for name in names]
        head["shards"].append({"file": f"copy{number}.npy", "songs": songs})
        n_indexed += len(names)
    files.write_text(folder / "index.json", json.dumps(head))


class _Timed:
    """An engine that records the CPU time of every call, and leaves out the copies of songs as well."""

    load = staticmethod(landmarks.load)

    def __init__(self, engine: LandmarkEngine, n_copies: int) -> None:
        self.engine, self.n_copies, self.seconds = engine, n_copies, list[float]()

    def recognise(self, snippet: Floats, *, without: Collection[str] = ()) -> list[Candidate]:
        copies = [files.digest(number, song) for song in without for number in range(1, self.n_copies + 1)]
        began = time.process_time()
        candidates = self.engine.recognise(snippet, without=[*without, *copies])
        self.seconds.append(time.process_time() - began)
        return candidates


def _measured(
    folder: Path, songs: Sequence[Recording], n_snippets: int, condition_names: Sequence[str]
) -> dict[str, float]:
    began = time.process_time()
    index = LandmarkIndex.load(folder)
    row = {"songs": float(len(index.songs)), "shards": float(len(index.shards)), "load s": time.process_time() - began}
    engine = _Timed(LandmarkEngine(index), len(list(folder.glob("copy*.npy"))))
    conditions = [condition for condition in CONDITIONS if condition.name in condition_names]
    outcomes = recognition.measure(
        songs, cast(Any, engine), conditions=conditions, seconds=[10.0], n_snippets=n_snippets, seed=SEED
    )
    row |= {"p50 s": float(np.median(engine.seconds[::2])), "p50 s, out of set": float(np.median(engine.seconds[1::2]))}
    row["RSS MB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000
    table = recognition.summary(outcomes, 0.5)
    for name, top1, false in zip(table["condition"], table["top1"], table["false_acceptance"], strict=True):
        row |= {f"{name}: recognised %": top1, f"{name}: false acc. %": false}
    return row


if __name__ == "__main__":
    raise SystemExit(main())
