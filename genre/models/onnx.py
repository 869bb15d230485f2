"""From a Keras model to ONNX, the form in which models answer."""

from __future__ import annotations

import contextlib
import io
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import keras

BATCH = "batch"  # name of the free dimension
OUTPUT = "probabilities"


def to_onnx(model: keras.Model) -> bytes:
    """Return the ONNX file of a model (through tf2onnx).

    Its inputs are named as the model's, its output is `probabilities`, and the batch is free.
    """
    import numpy as np
    import onnx

    model({tensor.name: np.zeros((1, *tensor.shape[1:]), np.float32) for tensor in model.inputs})  # Keras wants a call
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder, "model.onnx")
        model.export(str(path), format="onnx", verbose=False)
        exported = onnx.load(str(path))
    graph = exported.graph
    for value in (*graph.input, *graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = BATCH  # tf2onnx counts: the name would differ from run to run
    for node in graph.node:
        node.output[:] = [OUTPUT if name == graph.output[0].name else name for name in node.output]
        node.input[:] = [OUTPUT if name == graph.output[0].name else name for name in node.input]
    graph.output[0].name = OUTPUT
    graph.doc_string = ""  # holds another counter
    del graph.value_info[:]
    onnx.checker.check_model(exported)
    return bytes(exported.SerializeToString(deterministic=True))
