"""Tables of predictions and scores as pandas data frames, and their CSV files."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from genre import files
from genre.evaluation.metrics import SongPrediction

if TYPE_CHECKING:
    import pandas as pd

SPLITS = {"train": "training", "eval": "validation"}  # names in the logs of training


def of_songs(predictions: Sequence[SongPrediction], genres: Sequence[str]) -> pd.DataFrame:
    """Return one row per song: true and predicted genre, confidence, chunks, mean probability of each genre."""
    import pandas as pd

    names = np.array(genres, dtype=object)
    table = pd.DataFrame(np.stack([p.probabilities for p in predictions]), columns=list(genres))
    columns: dict[str, Any] = {
        "song": [p.song for p in predictions],
        "actual": names[[p.actual for p in predictions]],
        "predicted": names[[p.predicted for p in predictions]],
        "confidence": [p.confidence for p in predictions],
        "chunks": [p.n_chunks for p in predictions],
    }
    return pd.concat([pd.DataFrame(columns), table], axis=1)


def of_chunks(
    probabilities: npt.NDArray[np.float32], labels: npt.NDArray[np.int64], songs: Sequence[str], genres: Sequence[str]
) -> pd.DataFrame:
    """Return one row per chunk: song, true and predicted genre, probability of each genre."""
    import pandas as pd

    names = np.array(genres, dtype=object)
    columns = {"song": list(songs), "actual": names[labels], "predicted": names[probabilities.argmax(axis=1)]}
    return pd.concat([pd.DataFrame(columns), pd.DataFrame(probabilities, columns=list(genres))], axis=1)


def of_genres(
    rows: Sequence[Mapping[str, float]] | npt.NDArray[np.int64],
    genres: Sequence[str],
    columns: list[str] | None = None,
) -> pd.DataFrame:
    """Return a table with one row per true genre; `columns` None: the keys of the rows."""
    import pandas as pd

    return pd.DataFrame(rows, columns=columns, index=pd.Index(genres, name="genre"))


def stacked(parts: Mapping[Any, pd.DataFrame], names: list[str]) -> pd.DataFrame:
    """Return several tables as one; their keys become an index with the given names."""
    import pandas as pd

    table: pd.DataFrame = pd.concat(parts, names=names).droplevel(len(names))
    return table


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


def write(path: Path, table: pd.DataFrame, float_format: str = "%.6f") -> None:
    """Write a table as CSV, the index if it has names; equal tables give equal bytes."""
    text = table.to_csv(float_format=float_format, lineterminator="\n", index=any(table.index.names))
    files.write_text(path, text)
