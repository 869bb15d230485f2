"""ONNX Runtime as every model here uses it: on the CPU, on as many threads as it is told."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from stages.errors import ModelError


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
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", "0"))
    try:
        source = model if isinstance(model, bytes) else str(model)
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime raises many kinds
        raise ModelError(str(error)) from error
