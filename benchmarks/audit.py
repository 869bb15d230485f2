"""Check what audit finds: planted copies of songs, and labels that were swapped.

python -m benchmarks.audit copies dataset/demo      10 copies are made, and searched for among all songs
python -m benchmarks.audit labels [--draws 5]       10 labels of the project's data set are swapped in each draw
"""

from __future__ import annotations

import argparse
import dataclasses
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genre import params
from genre.audio import dataset, ffmpeg
from genre.audit import duplicates, labels
from genre.audit.songs import AuditedSongs
from genre.cli import integer, run_command
from genre.evaluation import comparison
from genre.paths import Paths
from genre.search import landmark_index, landmarks
from genre.search.engine import IndexedSong

COPIES = {  # name and extension: options of ffmpeg
    "mp3, 64 kbps.mp3": ("-b:a", "64k"),
    "mp3, 32 kbps, 22 kHz.mp3": ("-b:a", "32k", "-ar", "22050", "-ac", "1"),
    "opus, 32 kbps.opus": ("-c:a", "libopus", "-b:a", "32k"),
    "2 % faster.flac": ("-af", "aresample=44100,asetrate=44982,aresample=44100"),
    "2 % slower.flac": ("-af", "aresample=44100,asetrate=43218,aresample=44100"),
    "20 s from the middle.flac": ("-ss", "6", "-t", "20"),
    "-12 dB.flac": ("-af", "volume=-12dB"),
    "first 8 s missing.ogg": ("-ss", "8", "-c:a", "libvorbis"),
    "another container.mka": ("-c:a", "flac"),
    "1 % faster, mp3.mp3": ("-af", "aresample=44100,asetrate=44541,aresample=44100", "-b:a", "96k"),
}
N_SWAPPED, FIRST_ROWS = 10, 20


def main(argv: Sequence[str] | None = None) -> int:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.audit", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("copies").add_argument("folder", type=Path, help="the data set, a folder of songs")
    of_labels = commands.add_parser("labels")
    of_labels.add_argument("--draws", type=integer(1, 1000), default=5)
    of_labels.add_argument("--seed", type=integer(0, 10**9), default=0, help="of the first draw")
    options = parser.parse_args(argv)
    if options.command == "copies":
        _copies(options.folder)
    else:
        _labels(options.draws, options.seed)
    return 0


def _copies(folder: Path) -> None:
    songs = dataset.walk(folder, follow_links=True)[0]
    originals = np.random.default_rng(0).choice(len(songs), len(COPIES), replace=False)
    with tempfile.TemporaryDirectory() as temporary:
        copies = {Path(temporary, name): songs[i] for name, i in zip(COPIES, originals, strict=True)}
        for copy, original in copies.items():
            command = [ffmpeg.executable(), "-v", "error", "-i", original, *COPIES[copy.name], copy]
            subprocess.run(command, check=True)
        items = {}
        for path in [*songs, *copies]:
            song = IndexedSong(str(path), path.name, path.parent.name)
            items[song] = landmark_index.song_peaks(landmarks.load(path))
        index = Path(temporary, "landmarks")
        density = params.load().index.landmark_density
        landmark_index.write(index, items, lambda part: [items[song] for song in part], density)
        start = time.process_time()
        pairs = {frozenset((m.song, m.other)): m for m in duplicates.matches(index, 1)}
        cpu_s = (time.process_time() - start) / len(items)
    for copy, original in copies.items():
        match = pairs.pop(frozenset((str(copy), str(original))), None)
        shown = f"evidence {match.evidence:.0f}, {match.n_agreeing} landmarks" if match else "not found"
        print(f"{copy.name}: {shown}")
    print(f"{len(songs)} songs, {len(pairs)} false pairs {[tuple(pair) for pair in pairs]}, {cpu_s:.2f} CPU-s per song")


def _labels(n_draws: int, first_seed: int) -> None:
    project = AuditedSongs(params.load(), Paths())
    data, options, n_found = project.data, project.settings.compare, []
    of_songs = data.labels[np.unique(project.song_of, return_index=True)[1]]
    for seed in range(first_seed, first_seed + n_draws):
        rng = np.random.default_rng(seed)
        swapped = rng.choice(len(of_songs), N_SWAPPED, replace=False)
        changed = of_songs.copy()
        changed[swapped] = (changed[swapped] + rng.integers(1, len(data.genres), N_SWAPPED)) % len(data.genres)
        project.data = dataclasses.replace(data, labels=changed[project.song_of])
        folds = comparison.folds(
            project.data.labels, data.groups, n_folds=options.folds, n_repeats=1, seed=options.seed
        )
        predictions = labels.predict(project, folds)
        rows = sorted(labels.suspects(predictions, project), key=lambda finding: -finding.severity)
        names = {list(project.songs)[i] for i in swapped}
        n_found.append(len(names & {finding.song for finding in rows[:FIRST_ROWS]}))
        print(f"draw {seed}: {n_found[-1]} of {N_SWAPPED} in the first {FIRST_ROWS} of {len(rows)} rows")
    print(f"mean: {np.mean(n_found):.1f}")


if __name__ == "__main__":
    run_command(main)
