"""Decode, analyse and query mutated audio files: each is answered or refused, and no file remains.

    python -m tests.fuzz [--inputs 2000] [--seed 0] [--workers 2]

Every input is a made-up song in one of eight formats, or a file with a fault that collections have (several streams, a
chain, an edit list, tags around the audio, a false length, nothing to hear, an absurd sample rate, days of audio in few
bytes), with bits flipped, parts cut out, doubled, moved or zeroed, or numbers overwritten by extreme ones. Each must be
answered, or refused by a GenreError that names the file, within the time limit. Where the current folder holds trained
models, `query`'s answer is part of it. Prints a table by file; exits with 1 after any other outcome.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genre.audio import chunks, tags
from genre.errors import GenreError
from genre.features import numpy_engine
from genre.paths import Paths
from tests.made import make_song_file, write_field_files

FORMATS = ("mp3", "flac", "wav", "ogg", "opus", "m4a", "aiff", "wma")
LIMIT_S = 60.0  # of one input: the limit of processor time is 10 s, and the machine may be busy
MAX_SECONDS = 3600.0  # of audio from one input of some seconds
EXTREMES = (b"\x00\x00\x00\x00", b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff\xff\xff\x7f")
Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Outcome:
    """The outcome of one input."""

    seed: str  # name of the file that was mutated
    kind: str  # answered, refused, or an error
    seconds: float  # wall time
    detail: str = ""


def run(count: int, seed: int, workers: int = 2, answer: Callable[[Path], object] | None = None) -> list[Outcome]:
    """Return the outcomes of `count` inputs, which depend on the seed; `answer` is called with each decoded one."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name)
        for suffix in FORMATS:
            make_song_file(folder / f"song.{suffix}", seconds=2.0, sample_rate=48_000, noise=0.05)
        write_field_files(folder)
        seeds = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        for path in folder.iterdir():
            path.unlink()

        def attempt(number: int) -> Outcome:
            name = list(seeds)[number % len(seeds)]
            path = folder / f"input-{number}{Path(name).suffix}"
            rng = np.random.default_rng([seed, number])
            path.write_bytes(mutate(seeds[name], rng))
            try:
                return _attempt(path, name, answer)
            finally:
                path.unlink()

        with ThreadPoolExecutor(workers) as pool:
            outcomes = list(pool.map(attempt, range(count)))
        remaining = [path.name for path in folder.iterdir()]
    if remaining:
        outcomes.append(Outcome("all", "file remains", 0.0, ", ".join(remaining)))
    return outcomes


def mutate(data: bytes, rng: Random) -> bytes:
    """Return the file with up to eight mutations, more of them near its start, where the headers are."""
    mutated = bytearray(data)
    for _ in range(int(rng.integers(9))):
        if len(mutated) < 16:
            break
        MUTATIONS[int(rng.integers(len(MUTATIONS)))](mutated, rng)
    return bytes(mutated)


def _attempt(path: Path, seed: str, answer: Callable[[Path], object] | None) -> Outcome:
    started = time.monotonic()
    kind, detail = "answered", ""
    try:
        seconds = 0.0
        pieces = chunks.iterate(path, sample_rate=8000, chunk_seconds=3.0, min_seconds=1.0)
        for chunk in chunks.audible(pieces, path):
            values = numpy_engine.compute(chunk.samples, 8000)
            seconds += chunk.seconds
            if not all(np.isfinite(array).all() for array in values.values()):
                kind, detail = "not finite", path.name
            if seconds > MAX_SECONDS:
                kind, detail = "too much audio", path.name
                break
        if answer:
            answer(path)
        with contextlib.suppress(GenreError):  # other formats, and other damage than that of the audio
            tags.write_genre(path, "jazz")
    except GenreError as error:
        kind = "refused"
        if path.name not in str(error) or "\n" in str(error):
            kind, detail = "unclear refusal", str(error)
    except Exception:
        kind, detail = "crash", traceback.format_exc()
    took = time.monotonic() - started
    if took > LIMIT_S:
        kind, detail = "too slow", path.name
    return Outcome(seed, kind, took, detail)


def _position(data: bytearray, rng: Random) -> int:
    """Return a position: half of the time in the first 256 bytes."""
    end = min(256, len(data)) if rng.random() < 0.5 else len(data)
    return int(rng.integers(end))


def _flip(data: bytearray, rng: Random) -> None:
    data[_position(data, rng)] ^= 1 << int(rng.integers(8))


def _extreme(data: bytearray, rng: Random) -> None:
    position = _position(data, rng)
    data[position : position + 4] = EXTREMES[int(rng.integers(len(EXTREMES)))]


def _cut(data: bytearray, rng: Random) -> None:
    position = _position(data, rng)
    del data[position : position + int(rng.integers(1, max(2, len(data) // 4)))]


def _end(data: bytearray, rng: Random) -> None:
    del data[max(1, _position(data, rng)) :]


def _double(data: bytearray, rng: Random) -> None:
    position = _position(data, rng)
    data[position:position] = data[position : position + int(rng.integers(1, 4096))]


def _zero(data: bytearray, rng: Random) -> None:
    position = _position(data, rng)
    data[position : position + 64] = bytes(len(data[position : position + 64]))


def _swap(data: bytearray, rng: Random) -> None:
    one, other = sorted((_position(data, rng), _position(data, rng)))
    size = int(rng.integers(1, 512))
    first, second = data[one : one + size], data[other : other + size]
    data[other : other + size] = first
    data[one : one + size] = second


MUTATIONS: Sequence[Callable[[bytearray, Random], None]] = (
    _flip, _extreme, _cut, _end, _double, _zero, _swap,
)  # fmt: skip


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 1 if an input was neither answered nor refused."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 2)
    options = parser.parse_args(argv)
    logging.disable()  # one warning for each damaged file
    outcomes = run(options.inputs, options.seed, options.workers, _query())
    for line in _table(outcomes):
        print(line)
    bad = [outcome for outcome in outcomes if outcome.kind not in ("answered", "refused")]
    for outcome in bad[:20]:
        print(f"{outcome.kind}: {outcome.seed}: {outcome.detail}", file=sys.stderr)
    return 1 if bad else 0


def _query() -> Callable[[Path], object] | None:
    """Return the function that query calls, or None without a model."""
    from genre.models import cards, predict
    from genre.models.query import answer

    paths = Paths()
    if "merged" not in cards.available(paths):
        return None
    predictor = predict.load("merged", paths)
    return lambda path: answer(path, predictor)


def _table(outcomes: Sequence[Outcome]) -> Iterator[str]:
    kinds = sorted({outcome.kind for outcome in outcomes})
    yield f"{'file':<16}{'inputs':>8}" + "".join(f"{kind:>16}" for kind in kinds) + f"{'longest s':>12}"
    for seed in (*sorted({outcome.seed for outcome in outcomes}), "all"):
        of_seed = [outcome for outcome in outcomes if seed in (outcome.seed, "all")]
        counts = Counter(outcome.kind for outcome in of_seed)
        longest = max((outcome.seconds for outcome in of_seed), default=0.0)
        yield f"{seed:<16}{len(of_seed):>8}" + "".join(f"{counts[k]:>16}" for k in kinds) + f"{longest:>12.2f}"


if __name__ == "__main__":
    sys.exit(main())
