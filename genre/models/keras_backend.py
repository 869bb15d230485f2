"""Keras on TensorFlow, set up before its first import: quiet, reproducible, on a GPU where there is one."""

from __future__ import annotations

import logging
import os
import warnings

from genre import terminal


def prepare() -> None:
    """Import TensorFlow as the backend of Keras, without its start-up chatter. Call it before `keras` is imported."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # processes share a GPU
    warnings.filterwarnings("ignore", message=".*np.object.*", category=FutureWarning)
    with terminal.quiet():
        import tensorflow

        tensorflow.constant(0)
    for name in ("tensorflow", "tf2onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)
