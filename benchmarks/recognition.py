"""Measure an identification engine: recognition rate, false acceptance, offset error and time of degraded snippets.

Each snippet is identified twice: against all songs, and against all but its own, which gives the false acceptance rate
of songs that are not indexed. The noise of the music conditions is another song, which is then left out too.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from benchmarks import degradations
from benchmarks.degradations import SAMPLE_RATE, Condition, Generator, Signal
from genre.audio.ffmpeg import stream_pcm
from genre.errors import SearchError
from genre.search.identify import Engine

if TYPE_CHECKING:
    import pandas as pd

MARGIN = 1.04  # a snippet that is played faster needs more of the song: at least this times its length
N_DRAWN = 100  # snippets drawn at least, and truncated: a shorter run is a prefix of a longer one
NO_EVIDENCE = -1e3  # without a candidate


@dataclass(frozen=True, slots=True)
class Recording:
    """An indexed song that snippets are cut from."""

    sha256: str  # in the index
    path: Path
    n_samples: int  # at `degradations.SAMPLE_RATE`

    def cut(self, n_samples: int, rng: Generator) -> tuple[int, Signal]:
        """Return the start, in samples, and the samples of a random part of at most `n_samples`."""
        n_cut = min(self.n_samples, n_samples)
        start = int(rng.integers(0, self.n_samples - n_cut + 1))
        second, first = divmod(start, SAMPLE_RATE)  # decoders are exact at whole seconds
        duration = (first + n_cut + 1) / SAMPLE_RATE
        blocks = stream_pcm(self.path, sample_rate=SAMPLE_RATE, start=float(second), duration=duration)
        samples = np.concatenate(list(blocks))[first : first + n_cut].astype(np.float32) / np.float32(32768)
        return start, np.pad(samples, (0, n_cut - len(samples)))


def measure(
    songs: Sequence[Recording],
    engine: Engine,
    *,
    conditions: Sequence[Condition],
    seconds: Sequence[float],
    n_snippets: int,
    seed: int,
) -> pd.DataFrame:
    """Return the outcome of each snippet; the same seed gives the same snippets.

    Parameters
    ----------
    songs : sequence of Recording
    engine : Engine
        With these songs.
    conditions : sequence of Condition
    seconds : sequence of float
        Lengths of the snippets.
    n_snippets : int
        Of each condition and length.
    seed : int

    Returns
    -------
    pandas.DataFrame
        condition, seconds, song (index in `songs`), correct (whether the right song is first; of a crossfade, whether
        both songs are), score (of the first; of a crossfade, of the second), evidence (of the right song),
        offset_error_s (NaN if not correct), ms; without the right songs: false_score and false_evidence (of the first).

    Raises
    ------
    SearchError
        If fewer than two songs are as long as the snippets.
    AudioError
        If a song cannot be decoded.
    """
    import pandas as pd

    rows = []
    with tempfile.TemporaryDirectory(prefix="identify-") as folder:
        for condition in conditions:
            for length in seconds:
                usable = [i for i, song in enumerate(songs) if song.n_samples >= length * SAMPLE_RATE]
                if len(usable) < 2:
                    raise SearchError(f"two songs of {length:g} s or more are needed to cut snippets from")
                rng = np.random.default_rng([seed, round(length * 1000), *condition.name.encode()])
                drawn = rng.permutation(np.arange(max(n_snippets, N_DRAWN)) % len(usable))[:n_snippets]
                label = f"{condition.name}, {length:g} s"
                for i in tqdm(drawn, desc=label, unit="snippet", leave=False, disable=not sys.stderr.isatty()):
                    song = songs[usable[i]]
                    other = songs[usable[int(rng.choice([k for k in range(len(usable)) if k != i]))]]
                    path = Path(folder) / "snippet"
                    start = _write(path, song, other, condition, round(length * SAMPLE_RATE), rng)
                    right = {song.sha256, other.sha256} if condition.is_crossfade else {song.sha256}
                    left_out = {other.sha256} - right if condition.with_music else set()
                    outcome = _identify(path, song.sha256, right, start / SAMPLE_RATE, engine, left_out)
                    rows.append({"condition": condition.name, "seconds": length, "song": usable[i], **outcome})
    return pd.DataFrame(rows)


def summary(outcomes: pd.DataFrame, min_score: float) -> pd.DataFrame:
    """Return a table of outcomes of `measure`; a song is named from the score `min_score`.

    Returns
    -------
    pandas.DataFrame
        A row for each condition and length, and rows "all" over all conditions: condition, seconds, snippets; in per
        cent: top1 (the right song is named), wrong (another song is named), false_acceptance (a song is named, if the
        right one is not indexed); offset_error_s and ms (medians).
    """
    import pandas as pd

    named = outcomes["score"] >= min_score
    table = outcomes.assign(
        snippets=1,
        top1=100.0 * (outcomes["correct"] & named),
        wrong=100.0 * (~outcomes["correct"] & named),
        false_acceptance=100.0 * (outcomes["false_score"] >= min_score),
    )
    both = pd.concat([table, table.assign(condition="all")])
    statistics = {"snippets": "sum", "top1": "mean", "wrong": "mean", "false_acceptance": "mean"}
    statistics |= {"offset_error_s": "median", "ms": "median"}
    digits = {"top1": 2, "wrong": 2, "false_acceptance": 2, "offset_error_s": 4, "ms": 1}
    return both.groupby(["condition", "seconds"], sort=False).agg(statistics).round(digits).reset_index()


def _write(path: Path, song: Recording, other: Recording, condition: Condition, n_samples: int, rng: Generator) -> int:
    """Write a degraded snippet of a song; return its start in samples."""
    n_cut = int(n_samples * max(MARGIN, condition.speed * condition.tempo)) + 1
    start, samples = song.cut(n_cut, rng)
    noise = other.cut(n_cut, rng)[1][:n_samples] if condition.with_music else np.zeros(0, np.float32)
    clean = degradations.change_speed(samples, condition.speed)[: round(n_samples * condition.tempo)]
    degradations.write_snippet(path, condition.apply(clean, noise, rng), condition.options)
    return start


def _identify(
    path: Path, sha256: str, right: set[str], start_s: float, engine: Engine, left_out: set[str]
) -> dict[str, float | bool]:
    began = time.perf_counter()
    snippet = engine.load(path)
    candidates = engine.recognise(snippet, without=left_out)
    ms = 1000 * (time.perf_counter() - began)
    false = engine.recognise(snippet, without=right | left_out)
    own = next((candidate for candidate in candidates if candidate.song.sha256 == sha256), None)
    best = candidates[: len(right)]
    correct = {candidate.song.sha256 for candidate in best} == right
    return {
        "correct": correct,
        "score": best[-1].score if len(best) == len(right) else 0.0,
        "evidence": own.evidence if own else NO_EVIDENCE,
        "offset_error_s": abs(own.offset_s - start_s) if own and correct else float("nan"),
        "ms": ms,
        "false_score": false[0].score if false else 0.0,
        "false_evidence": false[0].evidence if false else NO_EVIDENCE,
    }
