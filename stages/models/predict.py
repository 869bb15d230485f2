"""Genre probabilities of chunks, through ONNX Runtime; what `query` and `evaluate` share."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from stages.errors import ModelError
from stages.models import card as cards

BATCH = 32  # chunks at once


class Predictor:
    """A model ready to answer."""

    def __init__(self, model: str, root: Path = Path()) -> None:
        """Load a model by name.

        Raises
        ------
        ModelError
            As `card.read`, or if ONNX Runtime cannot load the file.
        """
        import onnxruntime

        self.card = cards.read(model, root)
        path = cards.model_files(model, root).onnx
        try:
            self._session: Any = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime raises many kinds
            raise ModelError(f"{path} cannot be loaded: {error}") from error

    def predict(self, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
        """Return genre probabilities.

        Parameters
        ----------
        inputs : mapping of npt.NDArray[np.float32] [shape=(chunks, frames, columns)]
            By feature; features the model does not take are ignored.

        Returns
        -------
        npt.NDArray[np.float32] [shape=(chunks, genres)]

        Raises
        ------
        ModelError
            If a feature is missing or of another shape than the model was trained with.
        """
        for feature, shape in self.card.inputs.items():
            if feature not in inputs:
                raise ModelError(f"the model {self.card.model} needs the feature {feature}")
            if list(inputs[feature].shape[1:]) != shape:
                raise ModelError(
                    f"the model {self.card.model} takes {feature} of {shape[0]} frames and {shape[1]} columns,"
                    f" not {inputs[feature].shape[1:]}"
                )
        taken = {feature: inputs[feature] for feature in self.card.inputs}
        n_chunks = len(next(iter(taken.values())))
        parts = [
            self._session.run(None, {feature: values[first : first + BATCH] for feature, values in taken.items()})[0]
            for first in range(0, n_chunks, BATCH)
        ]
        return np.concatenate(parts)
