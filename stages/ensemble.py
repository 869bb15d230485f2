"""Average the trained models into one, and choose on validation songs what query answers with.

python -m stages.ensemble
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from genre import params
from genre.cli import run_command
from genre.errors import ModelError
from genre.features import arrays
from genre.models import baselines, ensemble, networks, unknown

VECTORS = Path("pickled_vectors")
TRAINING = Path("training")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: training/*/validation.csv -> model_architecture/ensemble_model_card.json."""
    parser = argparse.ArgumentParser(prog="python -m stages.ensemble", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    asked = params.load()
    names = asked.ensemble.models
    training = arrays.read(VECTORS, "train")
    made = ensemble.fit(
        {name: ensemble.read_validation(_validation_path(name)) for name in names},
        training.labels,
        training.songs,
        genres=training.genres,
        settings=arrays.read_settings(VECTORS),
        unknown_far=asked.query.unknown_far,
    )
    ensemble.write(made)
    for name, scored in made.scores.items():
        print(
            f"ensemble: {name}: {scored['song_accuracy']:.1%} of {scored['n_songs']:.0f} validation songs right,"
            f" log loss {scored['log_loss']:.3f}"
        )
    print(f"ensemble: query answers with {made.default}")
    if made.unknown_far is not None:
        least = unknown.threshold(made.unknown, made.unknown_far)
        print(
            "ensemble: too few genres or validation songs to say unknown"
            if least is None
            else f"ensemble: its answer is unknown below a confidence of {least:.1%}"
        )
    return 0


def _validation_path(name: str) -> Path:
    if name in networks.MODELS:
        return TRAINING / name / "validation.csv"
    if name in baselines.BASELINES:
        return TRAINING / "baselines" / name / "validation.csv"
    known = ", ".join([*networks.MODELS, *baselines.BASELINES])
    raise ModelError(f"ensemble.models names {name}, which there is not: choose from {known}")


if __name__ == "__main__":
    run_command(main)
