"""How well an engine of `identify` recognises songs: snippets of them, spoiled in the ways of the world, are asked for.

Each snippet is asked for twice: against all songs, and against all but its own, which is how often a song that is not
indexed is taken for another. The noise of the music conditions is another song, which then does not count.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from tqdm import tqdm

from genre import files
from genre.audio.ffmpeg import stream_pcm
from genre.errors import SearchError
from genre.search import degradations
from genre.search.degradations import BEYOND, CONDITIONS, SAMPLE_RATE, Condition, Generator, Signal
from genre.search.engines import Engine

STANDARD = [condition for condition in CONDITIONS if condition.name not in BEYOND]
MARGIN = 1.04  # a snippet that is played faster takes more of the song
DRAWN = 100  # snippets; fewer are the first of so many, and the same in a shorter run
NOTHING = -1e3  # evidence where no song was found


@dataclass(frozen=True, slots=True)
class Recording:
    """An indexed song that snippets are cut from."""

    sha256: str  # that it is indexed by
    path: Path
    n_samples: int  # at `degradations.SAMPLE_RATE`
    trained_on: bool = False  # whether the engine learned from it

    def piece(self, start: int, n_samples: int) -> Signal:
        """Decode a part of it [shape=(n_samples,)]; what it lacks is silence."""
        second, first = divmod(start, SAMPLE_RATE)  # a whole second is a place that every decoder finds alike
        duration = (first + n_samples + 1) / SAMPLE_RATE
        blocks = stream_pcm(self.path, sample_rate=SAMPLE_RATE, start=float(second), duration=duration)
        samples = np.concatenate(list(blocks))[first : first + n_samples].astype(np.float32) / np.float32(32768)
        return np.pad(samples, (0, n_samples - len(samples)))


@dataclass(frozen=True, slots=True)
class Trial:
    """What came out for one snippet."""

    song: int
    trained_on: bool
    evidence: float  # of the right song
    others: float  # best evidence of a wrong one, with the right one not in the index
    right: bool  # the right song came first
    score: float  # of the song that came first
    false_score: float  # as `others`
    offset_error_s: float  # nan if the right song did not come first
    ms: float  # of decoding and recognising


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table; rates are in per cent, None where there is nothing to take them of."""

    condition: str
    seconds: float
    snippets: int
    top1: float | None  # right song, at or above the threshold
    unseen: float | None  # the same, of the songs that the engine did not learn from
    first: float | None  # right song, whatever its score
    wrong: float | None  # another song, at or above the threshold
    false_acceptance: float | None
    offset_error_s: float | None  # median
    ms: float  # median
    ms_p95: float


def measure(
    songs: Sequence[Recording],
    engine: Engine,
    *,
    conditions: Sequence[Condition],
    seconds: Sequence[float],
    n_snippets: int,
    seed: int,
) -> Iterator[tuple[tuple[str, float], list[Trial]]]:
    """Yield what came out under each condition and for each length of snippet; the same seed asks for the same.

    Raises
    ------
    SearchError
        If there are fewer than two songs, or none is as long as the snippets.
    AudioError
        If a song cannot be decoded.
    """
    with tempfile.TemporaryDirectory(prefix="identify-") as folder:
        for condition in conditions:
            for length in seconds:
                long_enough = [song for song in songs if song.n_samples >= length * SAMPLE_RATE]
                if len(long_enough) < 2:
                    raise SearchError(f"two songs of {length:g} s or more are needed to cut snippets from")
                rng = np.random.default_rng([seed, round(length * 1000), *condition.name.encode()])
                drawn = rng.permutation(np.arange(max(n_snippets, DRAWN)) % len(long_enough))[:n_snippets]
                bar = tqdm(
                    drawn,
                    desc=f"{condition.name}, {length:g} s",
                    unit="snippet",
                    leave=False,
                    disable=not sys.stderr.isatty(),
                )
                path = Path(folder) / "snippet"
                trials = [_try(int(i), long_enough, engine, condition, length, rng, path) for i in bar]
                yield (condition.name, length), trials


def rows(trials: Mapping[tuple[str, float], Sequence[Trial]], min_score: float) -> list[Row]:
    """Return the table: a line for each condition and length, and one over all conditions for each length."""
    table = [_row(name, length, found, min_score) for (name, length), found in trials.items()]
    for length in sorted({length for _, length in trials}):
        of_length = [trial for (_, other), found in trials.items() if other == length for trial in found]
        table.append(_row("all", length, of_length, min_score))
    return table


def write(folder: Path, table: Sequence[Row], *, timed: bool = True) -> None:
    """Write the table as identify.csv, and its last lines as metrics.json, and identify.png; without times if asked."""
    names = [field.name for field in fields(Row) if timed or not field.name.startswith("ms")]
    as_dicts = [{name: value for name, value in asdict(row).items() if name in names} for row in table]
    files.write_table(folder / "identify.csv", names, (row.values() for row in as_dicts))
    total = {f"{row['seconds']:g} s": row for row in as_dicts if row.pop("condition") == "all"}
    files.write_json(folder / "metrics.json", total)
    _draw(folder / "identify.png", table)


def _try(
    i: int,
    songs: Sequence[Recording],
    engine: Engine,
    condition: Condition,
    seconds: float,
    rng: Generator,
    path: Path,
) -> Trial:
    n_samples = round(seconds * SAMPLE_RATE)
    start, n_taken = _place(songs[i], n_samples, rng)
    other = songs[int(rng.choice([k for k in range(len(songs)) if k != i]))]
    other_start, _ = _place(other, n_samples, rng)
    noise = other.piece(other_start, n_samples) if condition.of_music else np.zeros(0, np.float32)
    piece = songs[i].piece(start, n_taken)
    degradations.write_snippet(
        path, condition.apply(degradations.played(piece, condition.speed)[:n_samples], noise, rng), condition.codec
    )
    barred = {other.sha256} if condition.of_music else set()

    began = time.perf_counter()
    samples = engine.load(path)
    found = engine.recognise(samples, without=barred)
    ms = 1000 * (time.perf_counter() - began)

    absent = engine.recognise(samples, without={songs[i].sha256, *barred})
    own = next((match for match in found if match.song.sha256 == songs[i].sha256), None)
    right = bool(found) and found[0] is own
    return Trial(
        i,
        songs[i].trained_on,
        own.evidence if own else NOTHING,
        absent[0].evidence if absent else NOTHING,
        right,
        found[0].score if found else 0.0,
        absent[0].score if absent else 0.0,
        abs(own.offset_s - start / SAMPLE_RATE) if own and right else float("nan"),
        ms,
    )


def _place(song: Recording, n_samples: int, rng: Generator) -> tuple[int, int]:
    """Return where a random piece starts, and its length, a little longer than asked for."""
    n = min(song.n_samples, int(n_samples * MARGIN) + 1)
    return int(rng.integers(0, song.n_samples - n + 1)), n


def _row(condition: str, seconds: float, trials: Sequence[Trial], min_score: float) -> Row:
    taken = [trial.score >= min_score for trial in trials]
    recognised = [trial.right and accepted for trial, accepted in zip(trials, taken, strict=True)]
    errors = [trial.offset_error_s for trial in trials if trial.right]
    return Row(
        condition,
        seconds,
        len(trials),
        _percent(recognised),
        _percent(yes for trial, yes in zip(trials, recognised, strict=True) if not trial.trained_on),
        _percent(trial.right for trial in trials),
        _percent(not trial.right and accepted for trial, accepted in zip(trials, taken, strict=True)),
        _percent(trial.false_score >= min_score for trial in trials),
        round(float(np.median(errors)), 4) if errors else None,
        round(float(np.median([trial.ms for trial in trials])), 1),
        round(float(np.quantile([trial.ms for trial in trials], 0.95)), 1),
    )


def _percent(outcomes: Iterable[bool]) -> float | None:
    counted = list(outcomes)
    return round(100 * float(np.mean(counted)), 2) if counted else None


def _draw(path: Path, table: Sequence[Row]) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    names = list(dict.fromkeys(row.condition for row in table))
    figure, axes = pyplot.subplots(figsize=(9, 4), layout="constrained")
    lengths = sorted({row.seconds for row in table})
    for position, seconds in enumerate(lengths):
        of_length = {row.condition: row.top1 or 0.0 for row in table if row.seconds == seconds}
        width = 0.8 / len(lengths)
        places = np.arange(len(names)) + (position - (len(lengths) - 1) / 2) * width
        axes.bar(places, [of_length[name] for name in names], width, label=f"{seconds:g} s")
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right")
    axes.set_ylabel("recognised, %")
    axes.set_ylim(min(90.0, *(row.top1 or 0.0 for row in table)) - 1, 100.5)
    figure.legend(title="snippet", loc="outside right upper")
    with files.atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", dpi=120, metadata={"Software": None})
    pyplot.close(figure)
