"""Train networks on the training songs.

python -m stages.train
python -m stages.train merged
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from genre import files, params, terminal
from genre.cli import argument_parser, run_command
from genre.features import arrays
from genre.features.arrays import VectorSet
from genre.models import calibration, cards, keras_backend, networks, onnx, training
from genre.models.training import Trained
from genre.parallel import one_thread_each, run
from genre.paths import Paths

PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "onnx", "tf2onnx")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: pickled_vectors/ -> model_architecture/, model_weights/, training/<model>/."""
    parser = argument_parser(__doc__)
    parser.add_argument("models", nargs="*", choices=[*networks.MODELS, "all"], default="all", help="default: all")
    models = parser.parse_args(argv).models
    longest_first = [model for model in reversed(networks.MODELS) if "all" in models or model in models]
    settings = params.load()
    one_thread_each()  # the number of threads changes the last digits of the weights
    train = functools.partial(_train, settings=settings, paths=Paths())
    results = run(train, longest_first, description="train", unit="network", workers=settings.parallel.workers)
    print("\n".join(results))
    return 0


def _train(model: str, settings: params.Params, paths: Paths) -> str:
    """Train a network and write its files; return a line about it."""
    keras_backend.prepare()
    data = arrays.read(paths.vectors, "train", networks.MODELS[model])
    n_epochs, _ = training.schedule(len(data.labels), settings.train)
    row = 1 + list(networks.MODELS).index(model)  # of the terminal; 0 has the bar of all networks
    with (
        terminal.quiet() as stderr,
        tqdm(total=n_epochs, desc=model, unit="epoch", position=row, leave=False, file=stderr, disable=None) as bar,
    ):
        trained = training.fit(data, settings.train, model=model, on_epoch=bar.update)
    _log_curves(paths.training(model), trained.history)
    calibration.write_validation(paths.validation(model), trained.validation, data.genres)
    _write(model, trained, data, settings, paths)
    accuracy = trained.validation_accuracy
    validated = "no validation songs" if accuracy is None else f"validation accuracy {accuracy:.1%}"
    return f"train: {model}: {len(data.labels)} chunks of {len(set(data.songs))} songs, {validated}"


def _log_curves(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write the learning curves for `dvc plots show`."""
    from dvclive import Live

    with Live(str(folder), save_dvc_exp=False, dvcyaml=None) as live:
        for scores in history:
            for name, value in scores.items():
                folds = "eval" if name.startswith("val_") else "train"
                live.log_metric(f"{folds}/{name.removeprefix('val_')}", value)
            live.next_step()


def _write(model: str, trained: Trained, data: VectorSet, settings: params.Params, paths: Paths) -> None:
    """Write architecture, weights, ONNX and card."""
    accuracy = trained.validation_accuracy
    files.write_text(paths.architecture(model), trained.model.to_json(indent=2) + "\n")
    with files.atomic_path(paths.keras_weights(model)) as temporary:
        weights = temporary.with_name(temporary.name + ".weights.h5")  # Keras insists on the suffix
        trained.model.save_weights(weights)
        weights.replace(temporary)
    card = cards.ModelCard(
        model=model,
        kind=settings.train.architecture,
        genres=data.genres,
        inputs={feature: list(array.shape[1:]) for feature, array in data.inputs.items()},
        settings=arrays.read_settings(paths.vectors),
        calibration=trained.calibration,
        dataset=cards.describe_dataset(settings.dataset.name, data.songs, paths),
        training=settings.train.model_dump(),
        scores={} if accuracy is None else {"validation_accuracy": accuracy},
        versions=cards.installed_versions(PACKAGES),
    )
    cards.write(card, paths, onnx.from_keras(trained.model))


if __name__ == "__main__":
    run_command(main)
