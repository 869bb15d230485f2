"""How well and how fast a song is recognised from a short snippet of it, spoiled in the ways of the world.

    python -m benchmarks.identify FOLDER [--snippets 100] [--seconds 5 10 15] [--out DIR] [--fit]

All songs below FOLDER are indexed. Each snippet is written to a file and asked for twice: against all songs, and
against all but its own, which is how often a song that is not in the index is taken for another. The noise of the
music conditions is another song of the folder, which then does not count. The time includes the decoding.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from stages import files
from stages.audio import chunks, collection, ffmpeg
from stages.errors import GenreError
from stages.search import landmarks, recognition
from stages.search.fingerprints import Index, Song, fingerprint
from stages.search.settings import SearchSettings

SAMPLE_RATE = 22_050  # Hz of the snippets
ROOM_S = 0.4  # reverberation time; direct and reverberated sound are equally loud
TELEPHONE_HZ = (300, 3400)
MARGIN = 1.04  # a snippet that is played faster takes more of the song

Signal = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Condition:
    """A way to spoil a snippet."""

    name: str
    apply: Callable[[Signal, Signal, np.random.Generator], Signal]  # of the snippet, a piece of another song
    speed: float = 1.0
    codec: tuple[str, ...] = ("-f", "wav")  # how ffmpeg writes the file


@dataclass(frozen=True, slots=True)
class Trial:
    """What came out for one snippet."""

    song: int
    evidence: float  # of the right song
    others: float  # best evidence of a wrong one, with the right one not in the index
    right: bool  # the right song came first
    score: float  # of the song that came first
    false_score: float  # as `others`
    offset_error_s: float
    ms: float


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; rates are in per cent."""

    condition: str
    seconds: float
    snippets: int
    top1: float  # right song, at or above the threshold
    first: float  # right song, whatever its score
    wrong: float  # another song, at or above the threshold
    false_acceptance: float
    offset_error_s: float  # median
    ms: float  # median
    ms_p95: float


def main(argv: Sequence[str] | None = None) -> int:
    """Measure and print; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.identify", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="songs to index, 20 s or longer")
    parser.add_argument("--snippets", type=int, default=100, help="of each length and condition")
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 10.0, 15.0])
    parser.add_argument("--conditions", nargs="+", default=[c.name for c in CONDITIONS if c.name not in BEYOND])
    parser.add_argument("--min-score", type=float, default=SearchSettings().min_score, help="threshold")
    parser.add_argument("--out", type=Path, help="write identify.csv, .json and .png into this folder")
    parser.add_argument("--fit", action="store_true", help="fit evidence to score on half of the songs, check the rest")
    options = parser.parse_args(argv)
    try:
        songs = [(path, _decode(path)) for path in tqdm(collection.audio_files(options.folder), desc="decode")]
        index = _build(songs)
        trials = dict(_measure(songs, index, options))
    except GenreError as error:
        print(error, file=sys.stderr)
        return 1
    rows = [_row(name, seconds, found, options.min_score) for (name, seconds), found in trials.items()]
    for seconds in options.seconds:
        of_length = [t for (_, s), found in trials.items() if s == seconds for t in found]
        rows.append(_row("all", seconds, of_length, options.min_score))
    _print_table(rows)
    if options.fit:
        _print_fit([trial for found in trials.values() for trial in found])
    if options.out:
        _write(options.out, rows)
    return 0


def _white_to_pink(n: int, rng: np.random.Generator) -> Signal:
    spectrum = np.fft.rfft(rng.standard_normal(n))
    pink: Signal = np.fft.irfft(spectrum / np.sqrt(np.maximum(np.arange(len(spectrum)), 1)), n).astype(np.float32)
    return pink


def _mix(signal: Signal, noise: Signal, snr_db: float) -> Signal:
    power = float(np.mean(signal**2) / (np.mean(noise**2) + 1e-12))
    return signal + np.float32(np.sqrt(power) * 10 ** (-snr_db / 20)) * noise


def _with_pink(snr_db: float) -> Callable[[Signal, Signal, np.random.Generator], Signal]:
    return lambda signal, _, rng: _mix(signal, _white_to_pink(len(signal), rng), snr_db)


def _with_music(snr_db: float) -> Callable[[Signal, Signal, np.random.Generator], Signal]:
    return lambda signal, other, _: _mix(signal, other, snr_db)


def _as_it_is(signal: Signal, _other: Signal, _rng: np.random.Generator) -> Signal:
    return signal


def _telephone(signal: Signal, _other: Signal, _rng: np.random.Generator) -> Signal:
    from scipy.signal import butter, sosfilt

    band: Signal = sosfilt(butter(4, TELEPHONE_HZ, "bandpass", fs=SAMPLE_RATE, output="sos"), signal)
    return band


def _room(signal: Signal, _other: Signal, rng: np.random.Generator) -> Signal:
    from scipy.signal import oaconvolve

    n = round(ROOM_S * SAMPLE_RATE)
    response = rng.standard_normal(n) * 10.0 ** (-3 * np.arange(n) / n)
    response /= np.sqrt(np.sum(response**2))
    response[0] = 1.0
    echoed: Signal = oaconvolve(signal, response)[: len(signal)].astype(np.float32)
    return echoed


CONDITIONS = [
    Condition("clean", _as_it_is),
    Condition("mp3 64 kb/s", _as_it_is, codec=("-c:a", "libmp3lame", "-b:a", "64k", "-f", "mp3")),
    Condition("opus 32 kb/s", _as_it_is, codec=("-c:a", "libopus", "-b:a", "32k", "-f", "ogg")),
    Condition("telephone", _telephone),
    Condition("room", _room),
    *(Condition(f"pink {db} dB", _with_pink(db)) for db in (10, 5, 0, -5)),
    *(Condition(f"music {db} dB", _with_music(db)) for db in (10, 5, 0, -5)),
    *(Condition(f"speed {change:+g} %", _as_it_is, speed=1 + change / 100) for change in (2, -2, 1.5, -1.5, 3, -3)),
]
BEYOND = ["pink -5 dB", "music -5 dB", "speed +1.5 %", "speed -1.5 %", "speed +3 %", "speed -3 %"]


def _decode(path: Path) -> Signal:
    blocks = list(ffmpeg.stream_pcm(path, sample_rate=SAMPLE_RATE))
    return np.concatenate(blocks).astype(np.float32) / np.float32(32768)


def _build(songs: Sequence[tuple[Path, Signal]]) -> Index:
    began = time.perf_counter()
    items = [
        (Song(str(i), path.stem, path.parent.name), fingerprint(landmarks.load(path)))
        for i, (path, _) in enumerate(tqdm(songs, desc="index"))
    ]
    index = Index.empty().with_songs(items)
    took, hours = time.perf_counter() - began, index.total_frames * landmarks.FRAME_S / 3600
    print(f"{len(songs)} songs, {hours:.2f} h, {len(index.keys)} landmarks, indexed in {took:.1f} s")
    return index


def _measure(
    songs: Sequence[tuple[Path, Signal]], index: Index, options: argparse.Namespace
) -> Iterator[tuple[tuple[str, float], list[Trial]]]:
    chosen = [condition for condition in CONDITIONS if condition.name in options.conditions]
    with tempfile.TemporaryDirectory(prefix="benchmark-") as folder:
        for condition in chosen:
            for seconds in options.seconds:
                rng = np.random.default_rng([2016, round(seconds * 1000), *condition.name.encode()])
                drawn = rng.permutation(np.arange(options.snippets) % len(songs))
                trials = [
                    _try(int(i), songs, index, condition, seconds, rng, Path(folder) / "snippet")
                    for i in tqdm(drawn, desc=f"{condition.name}, {seconds:g} s", leave=False)
                ]
                yield (condition.name, seconds), trials


def _try(
    i: int,
    songs: Sequence[tuple[Path, Signal]],
    index: Index,
    condition: Condition,
    seconds: float,
    rng: np.random.Generator,
    path: Path,
) -> Trial:
    n_samples = round(seconds * SAMPLE_RATE)
    start, piece = _piece(songs[i][1], n_samples, rng)
    other = int(rng.choice([k for k in range(len(songs)) if k != i]))
    noise = _piece(songs[other][1], n_samples, rng)[1][:n_samples]
    snippet = condition.apply(_played(piece, condition.speed)[:n_samples], noise, rng)
    _write_snippet(path, snippet, condition.codec)
    barred = {str(other)} if condition.name.startswith("music") else set()

    began = time.perf_counter()
    samples = landmarks.load(path)
    found = recognition.recognise(samples, index, without=barred)
    ms = 1000 * (time.perf_counter() - began)

    absent = recognition.recognise(samples, index, without={str(i), *barred})
    own = next((match for match in found if match.song.sha256 == str(i)), None)
    right = bool(found) and found[0] is own
    return Trial(
        i,
        own.evidence if own else -np.log(index.total_frames),
        absent[0].evidence if absent else -np.log(index.total_frames),
        right,
        found[0].score if found else 0.0,
        absent[0].score if absent else 0.0,
        abs(own.offset_s - start / SAMPLE_RATE) if own and right else float("nan"),
        ms,
    )


def _piece(song: Signal, n_samples: int, rng: np.random.Generator) -> tuple[int, Signal]:
    """Return where a random piece starts, and the piece, a little longer than asked for."""
    n = min(len(song), int(n_samples * MARGIN) + 1)
    start = int(rng.integers(0, len(song) - n + 1))
    return start, song[start : start + n]


def _played(signal: Signal, speed: float) -> Signal:
    from scipy.signal import resample_poly

    played: Signal = signal if speed == 1.0 else resample_poly(signal, 1000, round(1000 * speed)).astype(np.float32)
    return played


def _write_snippet(path: Path, snippet: Signal, codec: tuple[str, ...]) -> None:
    loudest = max(1.0, float(np.abs(snippet).max()))
    samples: npt.NDArray[np.int16] = np.rint(snippet / loudest * 32767).astype(np.int16)
    wav = path.with_suffix(".wav")
    chunks.write(wav, samples, sample_rate=SAMPLE_RATE)
    command = [ffmpeg.executable(), "-v", "error", "-y", "-i", str(wav), *codec, str(path)]
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


def _row(condition: str, seconds: float, trials: Sequence[Trial], min_score: float) -> Row:
    accepted = [trial.score >= min_score for trial in trials]
    return Row(
        condition,
        seconds,
        len(trials),
        _percent(trial.right and taken for trial, taken in zip(trials, accepted, strict=True)),
        _percent(trial.right for trial in trials),
        _percent(not trial.right and taken for trial, taken in zip(trials, accepted, strict=True)),
        _percent(trial.false_score >= min_score for trial in trials),
        round(float(np.nanmedian([trial.offset_error_s for trial in trials])), 4),
        round(float(np.median([trial.ms for trial in trials])), 1),
        round(float(np.quantile([trial.ms for trial in trials], 0.95)), 1),
    )


def _percent(outcomes: Iterator[bool]) -> float:
    return round(100 * float(np.mean(list(outcomes))), 2)


def _print_table(rows: Sequence[Row]) -> None:
    head = ["condition", "s", "n", "top-1 %", "first %", "wrong %", "false acc. %", "offset s", "ms", "ms p95"]
    print(f"{head[0]:<14}{head[1]:>4}{head[2]:>6}" + "".join(f"{name:>14}" for name in head[3:]))
    for row in rows:
        values = list(asdict(row).values())
        print(f"{values[0]:<14}{values[1]:>4g}{values[2]:>6}" + "".join(f"{value:>14g}" for value in values[3:]))


def _print_fit(trials: Sequence[Trial]) -> None:
    """Fit the logistic curve on the songs of even number, and print how it does on the others."""
    from sklearn.linear_model import LogisticRegression

    def points(half: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
        of_half = [trial for trial in trials if trial.song % 2 == half]
        evidence = np.array([[t.evidence for t in of_half], [t.others for t in of_half]])
        return evidence.reshape(-1, 1), np.repeat([1, 0], len(of_half))

    evidence, known = points(0)
    fitted = LogisticRegression(C=1e6).fit(evidence, known)
    slope, centre = fitted.coef_[0, 0], -fitted.intercept_[0] / fitted.coef_[0, 0]
    print(f"\nlikeliest curve on half of the songs: CENTRE, SPREAD = {centre:.1f}, {1 / slope:.2f}")
    checked, truth = points(1)
    print("on the other half, by evidence: accepted of the right songs, and of the wrong ones")
    for limit in np.quantile(evidence[known == 0], [0.98, 0.99, 0.995, 0.998]):
        right, wrong = (np.mean(checked[truth == kind] >= limit) for kind in (1, 0))
        print(f"  {limit:6.2f}: {100 * right:6.2f} % {100 * wrong:6.2f} %")


def _write(folder: Path, rows: Sequence[Row]) -> None:
    files.write_table(folder / "identify.csv", [f.name for f in fields(Row)], (asdict(row).values() for row in rows))
    files.write_json(folder / "identify.json", [asdict(row) for row in rows])
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row.condition for row in rows))
    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    lengths = sorted({row.seconds for row in rows})
    for position, seconds in enumerate(lengths):
        of_length = {row.condition: row.top1 for row in rows if row.seconds == seconds}
        width = 0.8 / len(lengths)
        places = np.arange(len(names)) + (position - (len(lengths) - 1) / 2) * width
        axes.bar(places, [of_length[name] for name in names], width, label=f"{seconds:g} s")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_ylabel("recognised, %")
    axes.set_ylim(min(90.0, *(row.top1 for row in rows)) - 1, 100.5)
    axes.legend(title="snippet")
    with files.atomic_path(folder / "identify.png") as path:
        figure.savefig(path, format="png", dpi=120)
    pyplot.close(figure)


if __name__ == "__main__":
    sys.exit(main())
