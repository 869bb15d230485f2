"""The parts of the page as HTML: the answer, the timeline, the song it is, and songs like it. Every name is escaped."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import numpy.typing as npt

from genre.audio import ffmpeg
from genre.evaluation import plots
from genre.web.page_songs import Library

FOLDER = Path(__file__).parent
WAVE_RATE = 8000  # Hz
N_BARS = 180  # of the waveform
N_SHOWN = 6  # genres of a chunk whose probabilities are listed
CERTAINTY = ((0.9, "almost certain"), (0.7, "quite sure"), (0.5, "probably"), (0.35, "not sure"), (0.0, "a guess"))

Answer = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Wave:
    """How loud a song is over time."""

    levels: npt.NDArray[np.float32]  # 0 to 1, shape (N_BARS,)
    seconds: float


def waveform(path: Path, *, duration: float) -> Wave:
    """Return the course of a song's level, of its first `duration` seconds.

    Raises
    ------
    AudioError
        If the song cannot be decoded.
    """
    blocks = list(ffmpeg.stream_pcm(path, sample_rate=WAVE_RATE, duration=duration))
    samples = np.concatenate(blocks).astype(np.float32)
    edges = np.linspace(0, len(samples), N_BARS + 1).astype(np.int64)
    levels = np.array([np.sqrt(np.mean(samples[a:b] ** 2)) if b > a else 0.0 for a, b in _spans(edges)], np.float32)
    return Wave(levels / max(float(levels.max()), 1.0), len(samples) / WAVE_RATE)


def render(part: str, **values: Any) -> str:
    """Return one of the parts in page.html as HTML; bytes of names that are not UTF-8 become signs."""
    html: str = getattr(_template().module, part)(**values)
    return str(html).encode("utf-8", errors="replace").decode("utf-8")


def render_answer(answer: Answer, wave: Wave, genres: Sequence[str], *, name: str, cut_short: bool) -> str:
    """Return the verdict and the timeline."""
    colours = plots.colours(genres)
    chunks = [_chunk(chunk, colours, wave.seconds) for chunk in answer["chunks"]]
    means = _means(answer["chunks"])
    return render(
        "answer",
        name=name,
        genre=answer["genre"],
        colour=colours.get(answer["genre"], plots.NEUTRAL),
        certainty=next(words for least, words in CERTAINTY if answer["confidence"] >= least),
        percent=_percent(answer["confidence"]),
        votes=[
            {"genre": genre, "n": n, "colour": colours.get(genre, plots.NEUTRAL)}
            for genre, n in sorted(answer["votes"].items(), key=lambda item: -item[1])
        ],
        n_chunks=len(chunks),
        chunks=chunks,
        bars=_bars(wave, answer["chunks"], colours),
        n_bars=N_BARS,
        seconds=wave.seconds,
        ticks=_ticks(wave.seconds),
        legend=[(genre, colours[genre]) for genre in sorted(means, key=lambda g: -means[g]) if means[genre] >= 0.005],
        cut_short=cut_short,
    )


def render_known(found: Answer, library: Library, genres: Sequence[str]) -> str:
    """Return which song it is."""
    song = _song(found["genre"], found["song"], library, genres) if found["song"] is not None else None
    return render("known", song=song, offset=max(found["offset"] or 0.0, 0.0), at=_clock(found["offset"] or 0.0))


def render_near(found: Answer, library: Library, genres: Sequence[str]) -> str:
    """Return the songs most like it."""
    songs = [{**_song(s["genre"], s["song"], library, genres), "score": s["score"]} for s in found["songs"]]
    return render("near", songs=songs)


def _song(genre: str, name: str, library: Library, genres: Sequence[str]) -> dict[str, Any]:
    known = library.find(genre, name)
    sha256 = known.sha256 if known and known.audio else None
    colour = plots.colours(genres).get(genre, plots.NEUTRAL)
    return {"song": name, "genre": genre, "colour": colour, "sha256": sha256}


def _chunk(chunk: Answer, colours: Mapping[str, str], seconds: float) -> dict[str, Any]:
    probabilities = chunk["probabilities"]
    ranked = sorted(probabilities.items(), key=lambda item: -item[1])
    left = 100 * chunk["start"] / seconds
    return {
        "when": f"{_clock(chunk['start'])}–{_clock(chunk['end'])}",
        "start": chunk["start"],
        "genre": chunk["genre"],
        "percent": _percent(probabilities[chunk["genre"]]),
        "text": plots.text_on(colours[chunk["genre"]]),
        "left": left,
        "width": min(100 * chunk["end"] / seconds, 100.0) - left,
        "stack": [(genre, colours[genre], 100 * p) for genre, p in probabilities.items() if p >= 0.005],
        "ranked": [(genre, colours[genre], 100 * p, _percent(p)) for genre, p in ranked[:N_SHOWN]],
    }


def _bars(wave: Wave, chunks: Sequence[Answer], colours: Mapping[str, str]) -> list[tuple[str, str]]:
    """Return for each colour an SVG path with the bars of the waveform, 100 high, one wide."""
    paths: defaultdict[str, list[str]] = defaultdict(list)
    for i, level in enumerate(wave.levels):
        at = (i + 0.5) / N_BARS * wave.seconds
        genre = next((chunk["genre"] for chunk in chunks if chunk["start"] <= at < chunk["end"]), None)
        half = max(1.0, 46 * float(level))
        paths[colours.get(genre or "", plots.NEUTRAL)].append(f"M{i + 0.5} {50 - half:.1f}V{50 + half:.1f}")
    return [(colour, "".join(parts)) for colour, parts in paths.items()]


def _ticks(seconds: float) -> list[tuple[float, str]]:
    step = next((s for s in (5, 10, 30, 60, 120, 300, 600) if seconds / s <= 6), 1800)
    return [(100 * at / seconds, _clock(at)) for at in range(0, int(seconds * 0.96) + 1, step)]


def _means(chunks: Sequence[Answer]) -> dict[str, float]:
    return {g: float(np.mean([chunk["probabilities"][g] for chunk in chunks])) for g in chunks[0]["probabilities"]}


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else "under 1 %"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    return f"{minutes}:{rest:02d}"


def _spans(edges: npt.NDArray[np.int64]) -> list[tuple[int, int]]:
    return list(zip(edges[:-1].tolist(), edges[1:].tolist(), strict=True))


@functools.cache
def _template() -> jinja2.Template:
    loader = jinja2.FileSystemLoader(FOLDER)
    environment = jinja2.Environment(
        loader=loader, autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    return environment.get_template("page.html")
