"""What genre is this song? An answer per chunk, and the vote.

python -m stages.query song.mp3
python -m stages.query --format jsonl *.flac albums/
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from stages.answers import FORMATS, Answer, Table, add_song_options, answer_all
from stages.commands import run_command


def main(argv: Sequence[str] | None = None) -> int:
    """Answer about the songs that are named; return 1 if any could not be answered."""
    arguments = _parser().parse_args(argv)
    from stages.models.answer import answer
    from stages.models.predict import load

    predictor = load(arguments.model)

    def of_song(path: Path) -> Answer:
        return answer(
            path,
            predictor,
            start=arguments.start,
            duration=arguments.duration,
            min_confidence=arguments.min_confidence,
        )

    header = ["file", "song_genre", "song_confidence", "start", "end", "genre", *predictor.card.genres]
    return answer_all(arguments.songs, of_song, _text, arguments.format, Table(header, _rows))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.query", description="Tell the genre of songs: one answer per chunk, and the vote."
    )
    add_song_options(parser, "SONG", (*FORMATS, "csv"))
    parser.add_argument(
        "--model",
        metavar="NAME",
        help="mfcc, spectral_contrast, merged, ensemble or a baseline (default: the ensemble's choice)",
    )
    parser.add_argument(
        "--min-confidence", type=_probability, default=0.0, metavar="P", help='below this the genre is "unknown"'
    )
    return parser


def _text(answer: Answer) -> str:
    lines = [answer["file"], f"{'start':>8} {'end':>8}  {'genre':<16} probabilities"]
    for chunk in answer["chunks"]:
        best = sorted(chunk["probabilities"].items(), key=lambda item: -item[1])[:3]
        shown = ", ".join(f"{genre} {100 * p:.0f} %" for genre, p in best)
        lines.append(f"{_clock(chunk['start']):>8} {_clock(chunk['end']):>8}  {chunk['genre']:<16} {shown}")
    return "\n".join([*lines, _verdict(answer)])


def _verdict(answer: Answer) -> str:
    n_chunks = len(answer["chunks"])
    n_votes = answer["votes"].get(answer["genre"], max(answer["votes"].values()))
    chunks = f"{n_votes} of {n_chunks} chunk" + ("s" if n_chunks > 1 else "")
    return f"genre: {answer['genre']} ({chunks}, {100 * answer['confidence']:.0f} %)"


def _rows(answer: Answer) -> Iterator[Sequence[object]]:
    """One row per chunk, with the answer of its song."""
    for chunk in answer["chunks"]:
        song = [answer["file"], answer["genre"], answer["confidence"]]
        yield [*song, chunk["start"], chunk["end"], chunk["genre"], *chunk["probabilities"].values()]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"


def _probability(text: str) -> float:
    value = float(text)
    if not 0.0 <= value <= 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return value


if __name__ == "__main__":
    run_command(main)
