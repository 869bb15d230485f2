"""What a query costs, step by step, against `import keras` in the same run.

    python -m benchmarks.query [--model NAME] [--repeats 3] [--songs 20] [SONG or FOLDER]

Run it in a project's folder whose models are trained. Without a SONG, an mp3 of 4 minutes is made. The steps are
measured one after the other in a process of their own; the query does them side by side. Each figure is the least of
the repeats: wall-clock seconds, and CPU seconds of the process and its ffmpeg. Last come the songs a minute of a
FOLDER, or of --songs copies of the song.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
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

# Does what a query does, step after step, and prints the seconds of each as JSON.
STEPS = """
import json, os, resource, sys, time
from dataclasses import asdict
from pathlib import Path
model, song = json.loads(sys.argv[1])
costs, last = {}, None
def lap(name):
    global last
    both = (resource.getrusage(kind) for kind in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    now = time.perf_counter(), sum(usage.ru_utime + usage.ru_stime for usage in both)
    if name:
        costs[name] = now[0] - last[0], now[1] - last[1]
    last = now
lap("")
import numpy, onnxruntime
from genre.audio import chunks
from genre.models import predict, query
from genre.models.embeddings import Batch
lap("imports")
predictor = predict.load(model, Paths())
lap("model load")
settings = predictor.card.feature_settings
cut = list(chunks.iterate(Path(song), **asdict(settings)))
lap("decode")
features = [query.compute(chunk.samples, settings.sample_rate) for chunk in cut]
lap("features")
for chunk, of_chunk in zip(cut, features):
    predictor.predict(Batch({name: values[None] for name, values in of_chunk.items()}, [chunk.samples]))
lap("predict")
print(json.dumps(costs))
"""


def main() -> None:
    """Print the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.query", description=__doc__.splitlines()[0])
    parser.add_argument("song", nargs="?", type=Path, metavar="SONG")
    parser.add_argument("--model", metavar="NAME", help="as of stages.query")
    parser.add_argument("--repeats", type=integer(1, 10**8), default=3)
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
        _report(song.absolute(), songs.absolute(), options.model, options.repeats)


def _report(song: Path, songs: Path, model: str | None, repeats: int) -> None:
    command = ["-m", "stages.query", *(["--model", model] if model else [])]
    steps: list[dict[str, Cost]] = []
    runs: dict[str, list[Cost]] = {}
    commands = {
        "python start": ["-c", "pass"],
        "query": [*command, str(song)],
        "query --middle 7": [*command, "--middle", "7", str(song)],
        "query --help": [*command, "--help"],
        "import keras": ["-c", "import keras"],
    }
    for _ in range(repeats):  # all in turn: what else the machine does hits them alike
        steps.append(json.loads(_run(["-c", STEPS, json.dumps([model, str(song)])])[1]))
        for name, words in commands.items():
            runs.setdefault(name, []).append(_run(words)[0])
    results = {name: _least(costs) for name, costs in runs.items()}
    parts = {name: _least([step[name] for step in steps]) for name in steps[0]}
    print(f"{song.name}, model {model or 'of the project'}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    print(f"{'':<18} {'wall s':>8} {'CPU s':>8}")
    for name, (wall, cpu) in {"python start": results["python start"], **parts}.items():
        print(f"{name:<18} {wall:>8.3f} {cpu:>8.3f}")
    for name in list(commands)[1:]:
        wall, cpu = results[name]
        keras = results["import keras"]
        print(f"{name:<18} {wall:>8.3f} {cpu:>8.3f}   {wall / keras[0]:.1%} of import keras ({cpu / keras[1]:.1%} CPU)")
    (wall, cpu), output = _run([*command, "--format", "jsonl", str(songs)])
    n_songs = len(output.splitlines())
    print(f"{n_songs} songs in one go: {60 * n_songs / wall:.0f} songs a minute, {cpu / n_songs:.2f} CPU s a song")


def _run(arguments: list[str]) -> tuple[Cost, str]:
    """Run Python, as the query runs: without threads within a chunk."""
    single = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"} if arguments[1] == STEPS else {}
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    result = subprocess.run(
        [sys.executable, *arguments],
        env=os.environ | single | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if result.returncode:
        sys.exit(result.stderr)
    return (wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime), result.stdout


def _least(costs: list[Cost]) -> Cost:
    return min(wall for wall, _ in costs), min(cpu for _, cpu in costs)


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
