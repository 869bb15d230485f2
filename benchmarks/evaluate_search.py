"""Measure identify and similar on the songs of a project, with its own index.

    python -m benchmarks.evaluate_search [--snippets 20] [--seconds 5 10] [--out FILE]

Run it in the project's root folder after `dvc repro`. See `benchmarks.recognition` for the measures.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks import recognition
from benchmarks.degradations import CONDITIONS, SAMPLE_RATE
from benchmarks.recognition import Recording
from genre import files, params
from genre.audio import manifest
from genre.cli import integer, positive, run_command
from genre.params import Params
from genre.paths import Paths
from genre.search import landmark_index
from genre.search.identify import open_engine
from genre.search.similar import open_neighbours

Song = list[manifest.Row]  # the chunks of a song


def main(argv: Sequence[str] | None = None) -> int:
    """Print the measures; write them to a JSON file with --out."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evaluate_search", description=__doc__.splitlines()[0])
    parser.add_argument("--snippets", type=integer(1, 10**8), default=20, help="snippets of each condition and length")
    parser.add_argument("--seconds", type=positive, nargs="+", default=[5.0, 10.0], help="lengths of the snippets")
    parser.add_argument(
        "--seed", type=integer(0, 2**32 - 1), default=2016, help="random seed of songs, positions and noise"
    )
    parser.add_argument("--out", type=Path, help="JSON file for the measures")
    options = parser.parse_args(argv)
    paths = Paths()
    settings = params.load(paths.params)
    songs = list(landmark_index.group_songs(manifest.read(paths.chunks)).values())
    engines = ["landmarks", "embeddings"] if settings.index.windows else ["landmarks"]
    metrics = {engine: evaluate_identify(engine, songs, settings, paths, options) for engine in engines}
    metrics["similar"] = evaluate_similar(songs, settings, paths)
    if options.out:
        files.write_json(options.out, metrics)
    return 0


def evaluate_identify(
    name: str, songs: Sequence[Song], settings: Params, paths: Paths, options: argparse.Namespace
) -> dict[str, dict[str, float]]:
    """Print the table of an engine; return its rates over all conditions by length of the snippet."""
    recordings = [
        Recording(
            sha256=song[-1].source_sha256,
            path=paths.root / song[-1].source,
            n_samples=int((song[-1].start_s + song[-1].seconds) * SAMPLE_RATE),
        )
        for song in songs
    ]
    with open_engine(settings, paths, name) as engine:
        outcomes = recognition.measure(
            recordings,
            engine,
            conditions=CONDITIONS,
            seconds=options.seconds,
            n_snippets=options.snippets,
            seed=options.seed,
        )
    table = recognition.summary(outcomes, settings.search.min_score)
    print(table.to_string(index=False))
    metrics = {}
    for row in table[table["condition"] == "all"].to_dict("records"):
        rates = {key: float(row[key]) for key in ("top1", "wrong", "false_acceptance", "offset_error_s")}
        metrics[f"{row['seconds']:g} s"] = rates
        print(
            f"identify, {name}, {row['seconds']:g} s: {row['top1']:.1f} % recognised, {row['false_acceptance']:.1f} %"
            f" false acceptance (n = {row['snippets']}), {row['ms']:.0f} ms"
        )
    return metrics


def evaluate_similar(songs: Sequence[Song], settings: Params, paths: Paths) -> dict[str, dict[str, float]]:
    """Return the percentage of songs whose genre the vote of their neighbours names."""
    with open_neighbours(settings, paths) as neighbours:
        answers = [neighbours.similar(paths.root / Path(song[0].source), top=1) for song in songs]
    correct = {
        vote: 100 * sum(answer[vote] == song[0].genre for answer, song in zip(answers, songs, strict=True)) / len(songs)
        for vote in ("genre", "weighted_genre")
    }
    print(f"similar: genre of {correct['genre']:.1f} % of {len(songs)} songs")
    return {"leave one song out": correct}


if __name__ == "__main__":
    run_command(main)
