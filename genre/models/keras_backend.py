"""Keras on TensorFlow, set up before its first import: quiet, reproducible, on a GPU where there is one."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import tempfile
import warnings
from collections.abc import Iterator
from typing import TextIO


def prepare() -> None:
    """Import TensorFlow as the backend of Keras, without its start-up chatter. Call it before `keras` is imported."""
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    os.environ.setdefault("TF_DETERMINISTIC_OPS", "1")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # processes share a GPU
    warnings.filterwarnings("ignore", message=".*np.object.*", category=FutureWarning)
    with quiet():
        import tensorflow

        tensorflow.constant(0)
    for name in ("tensorflow", "tf2onnx"):
        logging.getLogger(name).setLevel(logging.ERROR)


@contextlib.contextmanager
def quiet() -> Iterator[TextIO]:
    """Hold back the output of native code to stderr, and print it only after an exception; yield the real stderr.

    KeyboardInterrupt does not count as an exception.
    """
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held, open(kept, "w", closefd=False) as real:
        os.dup2(held.fileno(), 2)
        try:
            yield real
        except Exception:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
