"""ONNX Runtime as every model here uses it: on the CPU, on as many threads as it is told."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre.errors import ModelError

EXTERNAL = b"location"  # the key in an ONNX file that another file's path follows; no model here has it for a name


def session(model: Path | bytes) -> Any:
    """Return an `onnxruntime.InferenceSession` of an ONNX file or of its bytes; several threads may use it at once.

    Raises
    ------
    ModelError
        If ONNX Runtime cannot load it. The message says why, not which file.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    # ONNX Runtime does not look at it by itself, and a worker process must not take all cores. 0: one per core.
    options.log_severity_level = 4  # what it says of a file it raises too; a terminal would obey the names in it
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    try:
        data = model if isinstance(model, bytes) else model.read_bytes()
    except OSError as error:
        raise ModelError(f"it cannot be read ({error.strerror})") from error
    if EXTERNAL in data:  # what is not in the file is not what its SHA-256 was taken of
        raise ModelError("it has its weights in another file")
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many kinds
        raise ModelError(str(error)) from error


def run(session: Any, inputs: Mapping[str, npt.NDArray[np.float32]]) -> npt.NDArray[np.float32]:
    """Return the first output of a session for inputs by name.

    Raises
    ------
    ModelError
        If the network does not take them, or gives values that are not finite. The message does not say which file.
    """
    try:
        output: npt.NDArray[np.float32] = np.asarray(session.run(None, dict(inputs))[0], np.float32)
    except Exception as error:  # onnxruntime raises many kinds
        raise ModelError(f"cannot answer: {error}") from error
    if not np.isfinite(output).all():
        raise ModelError("gives values that are no numbers")
    return output
