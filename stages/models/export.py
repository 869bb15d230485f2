"""From a Keras model to ONNX, the form in which models answer."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras


def to_onnx(model: keras.Model) -> bytes:
    """Return the ONNX file of a model (through tf2onnx); its inputs are named as the model's, the batch is free."""
    logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder, "model.onnx")
        model.export(str(path), format="onnx", verbose=False)
        return path.read_bytes()
