"""Measure how well `identify` recognises the songs of the data set from spoiled snippets.

python -m stages.evaluate_identify landmarks
python -m stages.evaluate_identify network
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from genre import params
from genre.audio import manifest
from genre.cli import run_command
from genre.search import engines, identify_eval
from genre.search.degradations import SAMPLE_RATE
from genre.search.identify_eval import Recording, Row
from genre.search.settings import ENGINES, index_settings, search_settings
from genre.search.songs import Song, of_rows

CHUNKS = Path("chunks")
FOLDER = Path("identify")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: the songs and what `index` made of them -> identify/<engine>."""
    parser = argparse.ArgumentParser(prog="python -m stages.evaluate_identify", description=__doc__.splitlines()[0])
    parser.add_argument("engine", choices=ENGINES)
    engine_name = parser.parse_args(argv).engine
    everything = params.load()
    chosen, searched = everything.evaluate_identify, search_settings(everything)
    learns = engine_name == "network"
    songs = [_recording(song, learns) for song in of_rows(manifest.read(CHUNKS))]
    with engines.opened(engine_name, index_settings(everything), max_speed_change=searched.max_speed_change) as engine:
        trials = dict(
            identify_eval.measure(
                songs,
                engine,
                conditions=identify_eval.STANDARD,
                seconds=chosen.seconds,
                n_snippets=chosen.snippets,
                seed=chosen.seed,
            )
        )
    table = identify_eval.rows(trials, searched.min_score)
    identify_eval.write(FOLDER / engine_name, table, timed=False)  # times differ from run to run
    for row in table:
        if row.condition == "all":
            print(_line(engine_name, row))
    return 0


def _recording(song: Song, learns: bool) -> Recording:
    last = song.rows[-1]
    n_samples = int((last.start_s + last.seconds) * SAMPLE_RATE)
    return Recording(last.source_sha256, Path(last.source), n_samples, trained_on=learns and last.split == "train")


def _line(engine: str, row: Row) -> str:
    unseen = "" if row.unseen == row.top1 else f" ({row.unseen:.1f} % of the songs not trained on)"
    return (
        f"evaluate_identify: {engine}: {row.seconds:g} s: {row.top1:.1f} % recognised{unseen},"
        f" {row.false_acceptance:.1f} % of the others taken for a song (n = {row.snippets}), {row.ms:.0f} ms"
    )


if __name__ == "__main__":
    run_command(main)
