"""Composer of the demo songs in five styles.

Styles share instruments, tempi, rhythms and recording conditions in different proportions: no single feature separates
them, and a few songs are hard to classify.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import numpy as np
import yaml

from genre import files
from genre.audio import ffmpeg
from genre.demo import synth
from genre.errors import DatasetError
from genre.parallel import run
from genre.paths import SYNTHETIC


class DemoSong(NamedTuple):
    """A song of the demo data set."""

    style: str
    title: str
    suffix: str  # audio format, a key of FORMATS
    seed: tuple[int, int, int]  # data set, style, song

    @property
    def file(self) -> str:
        """Path in the data set: ``style/title.suffix``."""
        return f"{self.style}/{self.title}.{self.suffix}"


_DATA: Final = yaml.safe_load(Path(__file__).with_name("styles.yaml").read_text(encoding="utf-8"))
STYLES: Final[dict[str, dict[str, Any]]] = _DATA["styles"]
FORMATS: Final[dict[str, ffmpeg.Options]] = _DATA["formats"]  # output options of ffmpeg
SUFFIXES: Final[list[str]] = _DATA["suffixes"].split()  # of the songs of a style, in blocks
_DRUM_PITCHES: Final = {"kick": 30, "snare": 54, "hat": 80}


def plan(seed: int, songs: int) -> list[DemoSong]:
    """Return `songs` songs of each style, with unique titles and with formats in the proportions of `SUFFIXES`.

    The first songs of a style do not depend on `songs`.
    """
    planned = []
    words = _DATA["titles"]
    titles = [f"{adjective} {noun}" for adjective in words["adjectives"] for noun in words["nouns"]]
    titles += [f"{noun} at {time}" for noun in words["nouns"] for time in words["times"]]
    titles += [f"{owner}'s {noun}" for owner in words["owners"] for noun in words["nouns"]]
    order = np.random.default_rng((seed, 1)).permutation(len(titles))
    for number, (index, style) in itertools.product(range(songs), enumerate(STYLES)):
        volume, position = divmod(number * len(STYLES) + index, len(titles))
        title = titles[order[position]] + (f" No. {volume + 1}" if volume else "")
        block, place = divmod(number, len(SUFFIXES))
        suffix = SUFFIXES[np.random.default_rng((seed, index, block, 0)).permutation(len(SUFFIXES))[place]]
        planned.append(DemoSong(style, title, suffix, (seed, index, number)))
    return planned


def write(songs: Sequence[DemoSong], out: Path) -> float:
    """Write songs into a new or empty folder, in parallel, and return their total duration in seconds.

    Raises DatasetError if the folder has other files.
    """
    if out.is_dir() and any(out.iterdir()):
        raise DatasetError(f"{out}/ is not empty: remove it, or name another folder with --out")
    files.write_text(out / SYNTHETIC, "The songs are synthetic: models trained on them say nothing about real music.\n")
    return float(sum(run(functools.partial(_write_song, out=out), songs, description="demo")))


def _write_song(song: DemoSong, *, out: Path) -> float:
    rng = np.random.default_rng(song.seed)
    tracks, recording = compose(song, rng)
    samples = synth.render(tracks, recording, rng)
    ffmpeg.encode(out / song.file, samples, sample_rate=recording.sample_rate, **FORMATS[song.suffix])
    return recording.seconds


def compose(song: DemoSong, rng: np.random.Generator) -> tuple[list[synth.Track], synth.Recording]:
    """Return the parts of a song and its recording, drawn from `rng` as styles.yaml states for its style."""
    style = STYLES[song.style]

    def pick(part: str) -> str:
        weights = np.array(list(style[part].values()))
        return str(rng.choice(list(style[part]), p=weights / weights.sum()))

    def swung_s(beat: float) -> float:
        whole, part = divmod(beat, 1.0)
        late = part * 2 * off_beat if part < 0.5 else 1 - (1 - part) * 2 * (1 - off_beat)
        return (whole + late) * beat_s

    def perform(events: Iterable[_Event], resting: set[int]) -> Iterator[synth.Note]:
        """Yield the notes of a part, with random deviations of level and time."""
        looseness_s = rng.uniform(0.0, 0.012)
        for bar, beat, length, pitch, level in events:
            if bar not in resting:
                start_s, end_s = swung_s(bar * meter + beat), swung_s(bar * meter + beat + length)
                late_s = looseness_s * rng.standard_normal()
                yield synth.Note(start_s + late_s, end_s - start_s, pitch, level * rng.uniform(0.6, 1.0))

    seconds = rng.uniform(60, 100)
    meter = int(pick("meter"))
    beat_s, off_beat = 60 / _log_uniform(style["tempo"], rng), float(rng.uniform(*style["swing"]))
    scale, *chords = style["changes"][rng.integers(len(style["changes"]))].split()
    key = int(rng.integers(-5, 7))
    tones = [key + tone for tone in _DATA["scales"][scale]]
    bars = int(seconds / (beat_s * meter)) + 1
    harmony = [[key + tone for tone in _DATA["chords"][chords[bar % len(chords)]]] for bar in range(bars)]
    parts: list[tuple[str, float, Iterable[_Event]]] = [
        (pick("chord_instruments"), 0.30, _chord_part(pick("comping"), harmony, meter, rng)),
        (pick("bass_instruments"), 0.45, _bass_part(pick("bass"), harmony, meter, rng)),
        (pick("lead_instruments"), 0.45, _lead_part(pick("melody"), tones, harmony, meter, rng)),
    ]
    for drum, hits in _DATA["drums"][pick("drums")].items():
        beats = [beat for beat in hits if beat < meter]
        parts.append((drum, 0.5, [(bar, beat, 0.4, _DRUM_PITCHES[drum], 1.0) for bar in range(bars) for beat in beats]))
    width = rng.uniform(0, 0.9)
    tracks = []
    for instrument, gain, events in parts:
        notes = list(perform(events, _rests(bars, instrument in _DRUM_PITCHES, rng)))
        voice = synth.draw_voice(instrument, rng)
        tracks.append(synth.Track(voice, gain * 10 ** rng.uniform(-0.15, 0.15), rng.uniform(-width, width), notes))
    return tracks, _draw_recording(seconds, style, rng)


_Harmony = Sequence[Sequence[int]]  # chord of each bar
_Event = tuple[int, float, float, int, float]  # bar, beat, beats, pitch, level


def _chord_part(pattern: str, harmony: _Harmony, meter: int, rng: np.random.Generator) -> Iterator[_Event]:
    """Yield chords in close position around middle C, or their notes in sequence."""
    lowest = int(rng.integers(50, 60))
    for bar, chord in enumerate(harmony):
        pitches = sorted(lowest + (tone - lowest) % 12 for tone in chord)
        ladder = [*pitches, pitches[0] + 12, *pitches[:0:-1]]
        for step, (beat, length) in enumerate(_DATA["comping"][pattern]):
            if beat < meter:
                notes = [ladder[step % len(ladder)]] if "arpeggio" in pattern else pitches
                length = min(length, meter - beat) if length > 1 else length
                for pitch in notes:
                    yield bar, beat, length, pitch, 1.6 if "arpeggio" in pattern else 1.0


def _bass_part(pattern: str, harmony: _Harmony, meter: int, rng: np.random.Generator) -> Iterator[_Event]:
    """Yield the root on the first beat, then roots, fifths or other notes of the chord."""
    lowest = int(rng.integers(29, 37))
    for bar, chord in enumerate(harmony):
        root = lowest + (chord[0] - lowest) % 12
        tones = [root, *(root + (tone - chord[0]) % 12 for tone in chord[1:]), root + 12]
        for beat, length in _DATA["bass"][pattern]:
            if beat < meter:
                first = beat == 0 or pattern in ("oom", "offbeats", "sixteenths")
                pitch = root if first else int(rng.choice(tones if pattern == "walk" else [root, root, tones[2]]))
                if pattern == "oom" and bar % 2:
                    pitch = tones[2] - 12
                yield bar, beat, min(length, meter - beat), pitch, 1.0


def _lead_part(
    pattern: str, scale: Sequence[int], harmony: _Harmony, meter: int, rng: np.random.Generator
) -> Iterator[_Event]:
    """Yield a phrase of four bars, repeated with variations and fitted to the chords."""
    lowest = int(rng.integers(58, 70))
    ladder = sorted({lowest + (tone - lowest) % 12 + octave for tone in scale for octave in (0, 12)})
    phrase = [_melody_bar(pattern, meter, rng) for _ in range(4)]
    place = len(ladder) // 2
    for bar, chord in enumerate(harmony):
        if rng.random() < 0.2:
            phrase[bar % 4] = _melody_bar(pattern, meter, rng)
        for beat, length, step in phrase[bar % 4]:
            place = int(np.clip(place + step, 0, len(ladder) - 1))
            pitch = ladder[place]
            if beat == 0:
                pitch += min(((tone - pitch + 6) % 12 - 6 for tone in chord), key=abs)
            yield bar, beat, length * 0.92, pitch, 1.0
        place = round(0.7 * place + 0.3 * len(ladder) / 2)


def _melody_bar(pattern: str, meter: int, rng: np.random.Generator) -> list[tuple[float, float, int]]:
    """Return (beat, beats, steps up or down the scale) of each note of a bar."""
    notes, beat = [], 0.0
    while beat < meter:
        length = min(float(rng.choice(_DATA["rhythms"][pattern])), meter - beat)
        if rng.random() < 0.85:
            notes.append((beat, length, int(rng.choice([-3, -2, -1, -1, 0, 1, 1, 2, 3]))))
        beat += length
    return notes


def _rests(bars: int, drums: bool, rng: np.random.Generator) -> set[int]:
    """Return the bars in which a part is silent: random rests of four bars, and a late entry of drums."""
    resting = set(range(4)) if drums and rng.random() < 0.5 else set()
    for section in range(4, bars, 4):
        if rng.random() < 0.15:
            resting |= set(range(section, section + 4))
    return resting


def _draw_recording(seconds: float, style: dict[str, Any], rng: np.random.Generator) -> synth.Recording:
    drawn = {}
    for name, (how, *values) in (_DATA["recording"] | {"reverb_s": ["log", *style["reverb_s"]]}).items():
        if how == "choice":
            drawn[name] = rng.choice(values).item()
        else:
            drawn[name] = _log_uniform(values, rng) if how == "log" else rng.uniform(*values)
    return synth.Recording(seconds, **drawn)


def _log_uniform(bounds: Sequence[float], rng: np.random.Generator) -> float:
    return float(np.exp(rng.uniform(*np.log(bounds))))
