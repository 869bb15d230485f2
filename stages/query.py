"""What genre is this song? An answer per chunk, and the vote.

python -m stages.query song.mp3
python -m stages.query --format jsonl *.flac albums/
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from stages.commands import run_command
from stages.errors import AudioError, GenreError

FORMATS = ("text", "json", "jsonl", "csv")


def main(argv: Sequence[str] | None = None) -> int:
    """Answer about the songs that are named; return 1 if any could not be answered."""
    arguments = _parser().parse_args(argv)
    from stages.models.predict import load

    songs, failed = _songs(arguments.songs)
    predictor = load(arguments.model)
    answers = _answers(songs, predictor, arguments, failed)
    one = len(arguments.songs) == 1 and not Path(arguments.songs[0]).is_dir()
    _PRINTERS[arguments.format](answers, predictor.card.genres, one)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.query", description="Tell the genre of songs: one answer per chunk, and the vote."
    )
    parser.add_argument("songs", nargs="+", metavar="SONG", help="an audio file of any format, or a folder of them")
    parser.add_argument(
        "--model",
        help="mfcc, spectral_contrast, merged, ensemble or a baseline (default: the ensemble's choice)",
    )
    parser.add_argument("--format", choices=FORMATS, default="text", help="default: %(default)s")
    parser.add_argument("--start", type=_seconds, default=0.0, metavar="S", help="begin at this second of the song")
    parser.add_argument("--duration", type=_seconds, metavar="S", help="take this many seconds (default: to the end)")
    parser.add_argument(
        "--min-confidence", type=_probability, default=0.0, metavar="P", help='below this the genre is "unknown"'
    )
    return parser


def _songs(names: Sequence[str]) -> tuple[list[Path], list[str]]:
    """Return the files to answer about, folders searched, and the names that lead to none."""
    from stages.audio.collection import audio_files

    songs: list[Path] = []
    failed: list[str] = []
    for name in names:
        found = audio_files(Path(name)) if Path(name).is_dir() else [Path(name)]
        if not found:
            _report(failed, AudioError(f"{name}: there is no audio file in this folder"))
        songs += found
    return songs, failed


def _answers(
    songs: Iterable[Path], predictor: Any, arguments: argparse.Namespace, failed: list[str]
) -> Iterator[dict[str, Any]]:
    from tqdm import tqdm

    from stages.models.answer import answer

    songs = list(songs)
    quiet = len(songs) < 2 or not sys.stderr.isatty()
    for song in tqdm(songs, desc="query", unit="song", disable=quiet):
        try:
            yield answer(
                song,
                predictor,
                start=arguments.start,
                duration=arguments.duration,
                min_confidence=arguments.min_confidence,
            )
        except GenreError as error:
            _report(failed, error)


def _report(failed: list[str], error: GenreError) -> None:
    failed.append(str(error))
    print(f"error: {error}", file=sys.stderr)


def _print_text(answers: Iterable[dict[str, Any]], _genres: Sequence[str], one: bool) -> None:
    for answer in answers:
        if not one:
            print(f"{answer['file']}")
        print(f"{'start':>8} {'end':>8}  {'genre':<16} probabilities")
        for chunk in answer["chunks"]:
            best = sorted(chunk["probabilities"].items(), key=lambda item: -item[1])[:3]
            shown = ", ".join(f"{genre} {p:.0%}" for genre, p in best)
            print(f"{_clock(chunk['start']):>8} {_clock(chunk['end']):>8}  {chunk['genre']:<16} {shown}")
        print(_verdict(answer), flush=True)
        if not one:
            print()


def _verdict(answer: dict[str, Any]) -> str:
    n_chunks = len(answer["chunks"])
    n_votes = answer["votes"].get(answer["genre"], max(answer["votes"].values()))
    chunks = f"{n_votes} of {n_chunks} chunk" + ("s" if n_chunks > 1 else "")
    return f"genre: {answer['genre']} ({chunks}, {answer['confidence']:.0%})".replace("%)", " %)")


def _print_json(answers: Iterable[dict[str, Any]], _genres: Sequence[str], one: bool) -> None:
    """One song: an object. Several songs or a folder: a list of objects."""
    found = list(answers)
    if found or not one:
        print(json.dumps(found[0] if one else found, indent=2, ensure_ascii=False))


def _print_jsonl(answers: Iterable[dict[str, Any]], _genres: Sequence[str], _one: bool) -> None:
    for answer in answers:
        print(json.dumps(answer, ensure_ascii=False), flush=True)


def _print_csv(answers: Iterable[dict[str, Any]], genres: Sequence[str], _one: bool) -> None:
    """One row per chunk, with the answer of its song."""
    writer = csv.writer(sys.stdout, lineterminator="\n")
    writer.writerow(["file", "song_genre", "song_confidence", "start", "end", "genre", *genres])
    for answer in answers:
        for chunk in answer["chunks"]:
            song = [answer["file"], answer["genre"], answer["confidence"]]
            writer.writerow([*song, chunk["start"], chunk["end"], chunk["genre"], *chunk["probabilities"].values()])
        sys.stdout.flush()


_PRINTERS = {"text": _print_text, "json": _print_json, "jsonl": _print_jsonl, "csv": _print_csv}


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _seconds(text: str) -> float:
    value = float(text)
    if not 0.0 <= value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a number of seconds")
    return value


def _probability(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


if __name__ == "__main__":
    run_command(main)
