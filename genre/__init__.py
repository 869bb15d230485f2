"""The library: audio, features, models, evaluation, search and the web service. Nothing here is run by itself."""

import os

os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # ONNX Runtime reads it when it is imported; worker processes inherit it

from genre.project import Project

__all__ = ["Project"]
