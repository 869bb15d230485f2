"""How much CPU time features cost, beside the FFTs that cannot be saved and beside other programs.

    python -m benchmarks.extract [--seconds 120] [--repeat 5] [FOLDER|FILE ...]

Without files a signal is made. Everything runs on one thread, in turn, and the median of the repetitions is shown.
"""

from __future__ import annotations

import argparse
import importlib.util
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.fft
import threadpoolctl  # type: ignore[import-untyped]

from genre.audio import chunks, dataset, ffmpeg
from genre.cli import integer, positive
from genre.errors import EngineError, GenreError
from genre.features import csv, engines, numpy_engine, vamp_engine
from genre.features.transforms import CONTRAST_PEAKS, MFCC, TRANSFORMS

SAMPLE_RATE = 22_050  # Hz
FFT_BATCH = 64  # frames transformed at once; about the fastest on machines with 1 MB of L2 cache
BARE = "bare FFTs, float64"
LIBROSA = "librosa, MFCC and contrast"  # float32 FFTs of 2048 samples every 512, its defaults

Signal = npt.NDArray[np.int16]


@dataclass(frozen=True)
class Contender:
    """Something to measure; `missing` says why it cannot be measured here."""

    name: str
    run: Callable[[], object]
    missing: str = ""


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.extract", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("audio", nargs="*", type=Path, help="audio files, or folders of them")
    parser.add_argument("--seconds", type=positive, default=120.0, help="length of the signal made without files")
    parser.add_argument("--repeat", type=integer(1, 1000), default=5)
    options = parser.parse_args(argv)
    try:
        signals = _decode(options.audio) if options.audio else [make_signal(options.seconds)]
    except GenreError as error:
        print(error, file=sys.stderr)
        return 1
    minutes = sum(map(len, signals)) / SAMPLE_RATE / 60
    print(f"{len(signals)} signals, {minutes:.2f} minutes at {SAMPLE_RATE} Hz, median of {options.repeat}, one thread")
    with tempfile.TemporaryDirectory(prefix="benchmark-") as name, threadpoolctl.threadpool_limits(1):
        folder = Path(name)
        _print_extraction(measure(extraction(signals, folder), options.repeat), minutes)
        _print_reading(measure(reading(signals, folder), options.repeat), signals)
    return 0


def make_signal(seconds: float) -> Signal:
    """Return noise that fades in and out every second over three steady tones [shape=(n,)]."""
    n = round(seconds * SAMPLE_RATE)
    time_s = np.arange(n) / SAMPLE_RATE
    tones = sum(np.sin(2 * np.pi * hz * time_s) for hz in (110.0, 554.4, 3520.0))
    noise = np.random.default_rng(0).normal(0, 1, n) * np.sin(np.pi * time_s) ** 2
    signal: Signal = np.rint(4000 * (tones + noise)).astype(np.int16)
    return signal


def measure(contenders: Sequence[Contender], repeat: int) -> dict[str, float | str]:
    """Return the median CPU seconds of each contender, or why it is missing; they take turns."""
    present = [c for c in contenders if not c.missing]
    for contender in present:
        contender.run()
    times: dict[str, list[float]] = {c.name: [] for c in present}
    for _ in range(repeat):
        for contender in present:
            start = _cpu_seconds()
            contender.run()
            times[contender.name].append(_cpu_seconds() - start)
    return {c.name: c.missing or statistics.median(times[c.name]) for c in contenders}


def extraction(signals: Sequence[Signal], folder: Path) -> list[Contender]:
    """Return all ways to compute the features of the signals; what they write goes below `folder`."""
    audio = [folder / f"{number:04d}.wav" for number in range(len(signals))]
    for path, signal in zip(audio, signals, strict=True):
        chunks.write(path, signal, sample_rate=SAMPLE_RATE)
    ids = [t.vamp_id for t in TRANSFORMS.values()]
    mfcc = {"n_fft": MFCC.block, "hop_length": MFCC.step, "n_mels": 40}
    contrast = {"n_fft": CONTRAST_PEAKS.block, "hop_length": CONTRAST_PEAKS.step}
    no_librosa = "" if importlib.util.find_spec("librosa") else "librosa is not installed"
    no_vamp = ""
    try:
        engines.choose("vamp")
    except EngineError as error:
        no_vamp = str(error)
    no_tool = "" if shutil.which("sonic-annotator") else "sonic-annotator is not on PATH"
    return [
        Contender(BARE, partial(_bare_ffts, signals)),
        Contender("numpy engine", partial(_engine, signals)),
        Contender("numpy engine and CSV", partial(_engine_and_csv, signals, folder)),
        Contender(LIBROSA, partial(_librosa, signals, mfcc={}, contrast={}), no_librosa),
        Contender(
            "librosa, our blocks and steps", partial(_librosa, signals, mfcc=mfcc, contrast=contrast), no_librosa
        ),
        Contender("vamp engine", partial(_vamp_engine, signals), no_vamp),
        Contender("vamp.collect, three runs", partial(_vamp_collect, signals), no_vamp),
        Contender("sonic-annotator, one run", partial(_sonic_annotator, [ids], audio, folder), no_tool),
        Contender("sonic-annotator, three runs", partial(_sonic_annotator, [[i] for i in ids], audio, folder), no_tool),
    ]


def reading(signals: Sequence[Signal], folder: Path) -> list[Contender]:
    """Return the ways to read back the CSV files that `extraction` left in `folder`."""
    _engine_and_csv(signals, folder)
    paths = sorted(folder.glob("*.csv"))
    columns = [t.columns for path in paths for t in TRANSFORMS.values() if path.name.endswith(t.csv_name(""))]
    return [
        Contender("csv.read", lambda: list(map(csv.read, paths, columns))),
        Contender("numpy.loadtxt", lambda: [np.loadtxt(path, np.float32, delimiter=",") for path in paths]),
        Contender("numpy.genfromtxt", lambda: [np.genfromtxt(path, np.float32, delimiter=",") for path in paths]),
    ]


def _decode(given: Sequence[Path]) -> list[Signal]:
    paths = [file for path in given for file in (dataset.walk(path, follow_links=True)[0] if path.is_dir() else [path])]
    return [np.concatenate(list(ffmpeg.stream_pcm(path, sample_rate=SAMPLE_RATE))) for path in paths]


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + usage.ru_utime + usage.ru_stime


def _bare_ffts(signals: Sequence[Signal]) -> None:
    for transform in (MFCC, CONTRAST_PEAKS):
        frames = np.ones((FFT_BATCH, transform.block))
        n_frames = sum(transform.n_frames(len(signal)) for signal in signals)
        for _ in range(round(n_frames / FFT_BATCH)):
            scipy.fft.rfft(frames, axis=1)


def _engine(signals: Sequence[Signal]) -> None:
    for signal in signals:
        numpy_engine.compute(signal, SAMPLE_RATE)


def _engine_and_csv(signals: Sequence[Signal], folder: Path) -> None:
    for number, signal in enumerate(signals):
        features = numpy_engine.compute(signal, SAMPLE_RATE)
        for transform in TRANSFORMS.values():
            path = folder / transform.csv_name(f"{number:04d}")
            path.write_bytes(csv.format_rows(features[transform.feature], SAMPLE_RATE, transform.step))


def _librosa(signals: Sequence[Signal], *, mfcc: dict[str, int], contrast: dict[str, int]) -> None:
    import librosa

    for signal in signals:
        y = (signal / 32768).astype(np.float32)
        librosa.feature.mfcc(y=y, sr=SAMPLE_RATE, n_mfcc=20, **mfcc)
        librosa.feature.spectral_contrast(y=y, sr=SAMPLE_RATE, **contrast)


def _vamp_engine(signals: Sequence[Signal]) -> None:
    for signal in signals:
        for _ in vamp_engine.compute_blocks([signal], SAMPLE_RATE):
            pass


def _vamp_collect(signals: Sequence[Signal]) -> None:
    """Run the host of the package vamp, whose first frame starts at sample 0."""
    import vamp

    for signal in signals:
        data = (signal / 32768).astype(np.float32)
        for transform in TRANSFORMS.values():
            output = transform.vamp_id.split(":")[3]
            vamp.collect(data, SAMPLE_RATE, transform.plugin, output=output)


def _sonic_annotator(runs: Sequence[Sequence[str]], audio: Sequence[Path], folder: Path) -> None:
    target = folder / "sonic-annotator"
    target.mkdir(exist_ok=True)
    for ids in runs:
        transforms = [argument for i in ids for argument in ("-d", i)]
        command = ["sonic-annotator", "-q", *transforms, "-w", "csv", "--csv-force", "--csv-basedir", str(target)]
        subprocess.run([*command, *map(str, audio)], check=True, capture_output=True)


def _print_extraction(costs: dict[str, float | str], minutes: float) -> None:
    bare, librosa = costs[BARE], costs[LIBROSA]
    print(f"\n{'features':<32}{'CPU-s per minute':>18}{'x FFTs':>10}{'x librosa':>12}")
    for name, seconds in costs.items():
        if isinstance(seconds, str):
            print(f"{name:<32}  not measured: {seconds}")
        else:
            print(f"{name:<32}{seconds / minutes:>18.4f}{_ratio(seconds, bare):>10}{_ratio(seconds, librosa):>12}")


def _print_reading(costs: dict[str, float | str], signals: Sequence[Signal]) -> None:
    n_values = sum(t.n_frames(len(s)) * (t.columns + 1) for t in TRANSFORMS.values() for s in signals)
    print(f"\n{'reading the CSV files back':<32}{'ns per number':>18}{'x csv.read':>12}")
    for name, seconds in costs.items():
        if isinstance(seconds, float):
            print(f"{name:<32}{1e9 * seconds / n_values:>18.1f}{_ratio(seconds, costs['csv.read']):>12}")


def _ratio(seconds: float, base: float | str) -> str:
    return "-" if isinstance(base, str) else f"{seconds / base:.2f}"


if __name__ == "__main__":
    sys.exit(main())
