"""What a query costs, step by step, against `ffmpeg` decoding the song and `import keras` in the same run.

    python -m benchmarks.query [--model NAME] [--repeats 5] [--songs 20] [--tree FOLDER] [SONG or FOLDER]

Run it in a project's folder whose models are trained. Without a SONG, an mp3 of 4 minutes is made. The steps are
measured one after the other in a process of their own; the query does them side by side. Each figure is the median of
the repeats: wall-clock seconds, and CPU seconds of all processes. Last come the songs a minute of a FOLDER, or of
--songs copies of the song. --tree is another checkout whose code is measured.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from genre.audio.dataset import walk
from genre.audio.ffmpeg import executable
from genre.cli import integer

ROOT = Path(__file__).parent.parent
RATE = 44_100  # Hz
MADE_S = 240
Cost = tuple[float, float]  # wall-clock and CPU seconds

# Does what a query does, step after step, and prints the costs of each as JSON.
STEPS = """
import json, os, resource, sys, time
from dataclasses import asdict
from pathlib import Path
model, song = json.loads(sys.argv[1])
costs = {}
def now():
    both = (resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in both)
def lap(name):
    global last
    costs[name] = [after - before for after, before in zip(now(), last)]
    last = now()
last = now()
import numpy, onnxruntime, stages.query
from genre.audio import chunks
from genre.models import embeddings, musicnn, predict, query, rejection
from genre.project import Project
lap("imports")
project = Project()
predictor = project.predictor = predict.load(model, project.paths)
detectors = project.rejection
lap("settings, cards, ONNX sessions")
settings = predictor.card.settings
rate = settings.sample_rate
cut = list(chunks.iterate(Path(song), **asdict(settings)))
lap("decoding (ffmpeg and reading)")
features = [query.compute(chunk.samples, rate) for chunk in cut]
lap("features")
rows = [{name: values[None] for name, values in row.items()} for row in features]
names = [e.name for e in detectors.embedders] if detectors else []
for name in [name for name in names if name.endswith("_both")]:
    network = musicnn.network(project.paths.musicnn(name.removesuffix("_both")))
    patches = [musicnn.patches(chunk.samples, rate) for chunk in cut]
    lap("mel spectrogram")
    for row, of_chunk in zip(rows, patches):
        parts = [network.run(None, {"patches": patch[None]})[0] for patch in of_chunk]
        row[name] = numpy.concatenate(parts).mean(axis=0, dtype=float).astype(numpy.float32)[None]
    lap("MusiCNN")
batches = [embeddings.Batch(row) for row in rows]
for batch in batches:
    predictor.predict(batch)
    if detectors:
        detectors.distances(batch)
lap("statistics, classifiers, rejection")
print(json.dumps(costs))
"""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.query", description=__doc__.splitlines()[0])
    parser.add_argument("song", nargs="?", type=Path, metavar="SONG")
    parser.add_argument("--model", metavar="NAME", help="as of stages.query")
    parser.add_argument("--repeats", type=integer(1, 10**8), default=5)
    parser.add_argument("--tree", type=Path, default=ROOT, metavar="FOLDER", help="the checkout that is measured")
    parser.add_argument(
        "--songs", type=integer(1, 10**8), default=20, help="copies of the song that are analysed in one run"
    )
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="query-") as name:
        folder, songs = Path(name), options.song
        if options.song is None or not options.song.is_dir():
            song = options.song or _made(folder / "made.mp3")
            songs = _copies(song, folder / "songs", options.songs)
        else:
            song = walk(options.song, follow_links=True)[0][0]
        _report(song.absolute(), songs.absolute(), options)


def _report(song: Path, songs: Path, options: argparse.Namespace) -> None:
    query = [sys.executable, "-m", "stages.query", *(["--model", options.model] if options.model else [])]
    commands = {
        "ffmpeg": [executable(), "-v", "error", "-i", str(song), "-f", "null", "-"],
        "python -c pass": [sys.executable, "-c", "pass"],
        "query": [*query, str(song)],
        "query --middle 7": [*query, "--middle", "7", str(song)],
        "query --help": [*query, "--help"],
        "import keras": [sys.executable, "-c", "import keras"],
    }
    steps: list[dict[str, Cost]] = []
    runs: dict[str, list[Cost]] = {}
    for _ in range(options.repeats):  # all in turn: what else the machine does hits them alike
        _, output = _run([sys.executable, "-c", STEPS, json.dumps([options.model, str(song)])], options.tree, "1")
        steps.append(json.loads(output))
        for name, command in commands.items():
            runs.setdefault(name, []).append(_run(command, options.tree)[0])
    results = {name: _median(costs) for name, costs in runs.items()}
    parts = {name: _median([step[name] for step in steps]) for name in steps[0]}
    model = options.model or "of the project"
    print(f"{song.name}, model {model}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':<36} {'wall s':>8} {'CPU s':>8}")
    for name, (wall, cpu) in parts.items():
        print(f"{name:<36} {wall:>8.3f} {cpu:>8.3f}")
    for name, (wall, cpu) in results.items():
        ratios = f"{cpu / results['ffmpeg'][1]:.2f} x ffmpeg's CPU, {cpu / results['import keras'][1]:.1%} of keras's"
        print(f"{name:<36} {wall:>8.3f} {cpu:>8.3f}   {ratios}")
    (wall, cpu), output = _run([*query, "--format", "jsonl", str(songs)], options.tree)
    n_songs = len(output.splitlines())
    print(f"{n_songs} songs in one go: {60 * n_songs / wall:.0f} songs a minute, {cpu / n_songs:.2f} CPU s a song")


def _run(command: list[str], tree: Path, threads: str | None = None) -> tuple[Cost, str]:
    """Run a command with the code of a checkout; `threads` is the number of threads within a chunk."""
    single = {"OMP_NUM_THREADS": threads, "OPENBLAS_NUM_THREADS": threads} if threads else {}
    path = os.pathsep.join(filter(None, [str(tree.absolute()), os.environ.get("PYTHONPATH")]))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = os.environ | single | {"PYTHONPATH": path}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        sys.exit(result.stderr)
    return (wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime), result.stdout


def _median(costs: list[Cost]) -> Cost:
    return statistics.median(wall for wall, _ in costs), statistics.median(cpu for _, cpu in costs)


def _made(path: Path) -> Path:
    """Write an mp3: chords with a beat, and some noise."""
    rng = np.random.default_rng(0)
    time_s = np.arange(RATE * MADE_S) / RATE
    roots = 110 * 2 ** (rng.integers(0, 12, MADE_S // 2) / 12)
    phase = 2 * np.pi * np.cumsum(np.repeat(roots, 2 * RATE)) / RATE
    signal = sum(np.sin(ratio * phase) for ratio in (1, 1.25, 1.5)) * np.exp(-4 * (time_s % 0.5))
    samples = (6000 * signal + rng.normal(0, 300, len(signal))).astype("<i2").repeat(2)
    command = [executable(), "-v", "error", "-f", "s16le", "-ar", str(RATE), "-ac", "2", "-i", "pipe:"]
    subprocess.run([*command, "-b:a", "192k", str(path)], input=samples.tobytes(), check=True)
    return path


def _copies(song: Path, folder: Path, count: int) -> Path:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number:03d}{song.suffix}").symlink_to(song.absolute())
    return folder


if __name__ == "__main__":
    main()
