"""Train one model on the training songs and write its four files.

python -m stages.train merged
"""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tqdm import tqdm

from genre import files, params
from genre.cli import run_command
from genre.features import arrays
from genre.models import cards, ensemble, keras_backend, networks
from genre.models.cards import Card

if TYPE_CHECKING:
    import keras

    from genre.features.arrays import VectorSet
    from genre.models.training import Trained

VECTORS = Path("pickled_vectors")
LIVE = Path("training")
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "onnx", "tf2onnx")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: pickled_vectors/ -> model_architecture/, model_weights/, training/<model>."""
    parser = argparse.ArgumentParser(prog="python -m stages.train", description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=networks.MODELS)
    model = parser.parse_args(argv).model
    settings = params.load()
    training = arrays.read(VECTORS, "train", networks.MODELS[model])
    keras_backend.prepare()
    from genre.models.training import fit

    with keras_backend.quiet() as stderr, _progress(model, settings.train, stderr) as bar:
        trained = fit(
            training.inputs,
            training.labels,
            training.songs,
            model=model,
            n_genres=len(training.genres),
            callbacks=[bar],
            **params.flat(settings.train),
        )
    _log_curves(LIVE / model, trained.history)
    _write(model, trained, training, settings)
    ensemble.write_validation(LIVE / model / "validation.csv", trained.validation, training.genres)
    right = f"{trained.validation_accuracy:.1%} of the validation chunks right"
    print(f"train: {model}: {len(training.labels)} chunks of {len(set(training.songs))} songs, {right}")
    return 0


@contextlib.contextmanager
def _progress(model: str, settings: params.TrainParams, stderr: TextIO) -> Iterator[keras.callbacks.Callback]:
    """Yield a callback that moves a progress bar, one step per epoch and member."""
    import keras

    total = settings.epochs * settings.members
    with tqdm(total=total, desc=f"train {model}", unit="epoch", file=stderr, disable=not stderr.isatty()) as bar:
        yield keras.callbacks.LambdaCallback(on_epoch_end=lambda _epoch, _logs: bar.update())


def _log_curves(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write the learning curves for `dvc plots show`: of each epoch, the mean over the members."""
    from dvclive import Live

    names = {
        "loss": "train/loss",
        "accuracy": "train/accuracy",
        "val_loss": "eval/loss",
        "val_accuracy": "eval/accuracy",
    }
    with Live(str(folder), save_dvc_exp=False, dvcyaml=None) as live:
        for epoch in sorted({row["epoch"] for row in history}):
            rows = [row for row in history if row["epoch"] == epoch]
            for key, name in names.items():
                if values := [row[key] for row in rows if key in row]:
                    live.log_metric(name, sum(values) / len(values))
            live.next_step()


def _write(model: str, trained: Trained, training: VectorSet, settings: params.Params) -> None:
    """Write architecture, weights, ONNX and card."""
    paths = cards.model_files(model)
    files.write_text(paths.architecture, trained.model.to_json(indent=2) + "\n")
    with files.atomic_path(paths.weights) as temporary:
        whole = temporary.with_name(temporary.name + ".weights.h5")  # Keras insists on the suffix
        trained.model.save_weights(whole)
        whole.replace(temporary)
    from genre.models.onnx import to_onnx

    files.write_bytes(paths.onnx, to_onnx(trained.model))
    cards.write(
        Card(
            model=model,
            architecture=settings.train.architecture,
            genres=training.genres,
            inputs={feature: list(training.inputs[feature].shape[1:]) for feature in networks.MODELS[model]},
            settings=arrays.read_settings(VECTORS),
            dataset={
                "name": settings.dataset.name,
                "songs": len(set(training.songs)),
                "chunks": len(training.songs),
            },
            training=settings.train.model_dump(),
            scores={"validation_accuracy": trained.validation_accuracy, "temperature": trained.temperature},
            versions=cards.installed_versions(PACKAGES),
            onnx_sha256=files.sha256(paths.onnx),
            unknown=ensemble.fit_unknown([trained.validation], training.labels, training.songs),
        )
    )


if __name__ == "__main__":
    run_command(main)
