"""Tables of predictions and scores as pandas data frames, and their CSV files."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre import files
from genre.evaluation import metrics
from genre.evaluation.metrics import Result

if TYPE_CHECKING:
    import pandas as pd

SPLITS = {"train": "training", "eval": "validation"}  # names in the logs of training


def write_results(
    folder: Path, results: Sequence[Result], genres: list[str], /, **tables: pd.DataFrame | Sequence[Any]
) -> None:
    """Write predictions.csv, per_genre.csv and confusion_matrix.csv of all models, and other tables by name.

    predictions.csv has a row per model, repeat and song with the columns of `metrics.by_song`; rows of the confusion
    matrix are true genres, columns predicted ones.
    """
    import pandas as pd

    names, n = dict(enumerate(genres)), len(genres)
    repeats = {(result.model, i): table for result in results for i, table in enumerate(result.predictions)}
    songs = pd.concat(repeats, names=["model", "repeat"]).replace({"actual": names, "predicted": names})
    by_genre = {r.model: pd.DataFrame(metrics.per_genre(r.predictions, n), genres) for r in results}
    matrices = {r.model: pd.DataFrame(metrics.confusion_matrix(r.predictions, n), genres, genres) for r in results}
    _write(folder / "predictions.csv", songs.rename(columns=names))
    _write(folder / "per_genre.csv", pd.concat(by_genre, names=["model", "genre"]))
    _write(folder / "confusion_matrix.csv", pd.concat(matrices, names=["model", "genre"]))
    for name, table in tables.items():
        _write(folder / f"{name}.csv", pd.DataFrame(table))


def learning_curves(folders: Mapping[str, Path]) -> pd.DataFrame:
    """Return the learning curves of several models: model, measure, split, epoch (from 1), value.

    Parameters
    ----------
    folders : mapping of str to Path
        For each model, the folder that its training logged to.
    """
    import pandas as pd

    curves = []
    for model, folder in folders.items():
        for measure, (logged, split) in itertools.product(("loss", "accuracy"), SPLITS.items()):
            path = folder / "plots" / "metrics" / logged / f"{measure}.tsv"
            if path.is_file():
                log = pd.read_csv(path, sep="\t")
                columns = {"model": model, "measure": measure, "split": split, "epoch": log["step"] + 1}
                curves.append(pd.DataFrame({**columns, "value": log[measure]}))
    return pd.concat(curves) if curves else pd.DataFrame(columns=["model", "measure", "split", "epoch", "value"])


def _write(path: Path, table: pd.DataFrame) -> None:
    """Write a table as CSV, the index if it has names; equal tables give equal bytes."""
    files.write_text(path, table.to_csv(float_format="%.6g", lineterminator="\n", index=any(table.index.names)))
