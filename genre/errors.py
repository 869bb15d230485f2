"""Errors that a user can resolve; their messages are one sentence."""

from __future__ import annotations


class GenreError(Exception):
    """Base class; the message states what is wrong, with which file or key, and what to do.

    Commands print it without a traceback and exit with code 1.
    """

    is_host_fault = False  # True if the machine, not the input, is at fault


class ParamsError(GenreError):
    """params.yaml has an unknown key or a bad value."""


class DatasetError(GenreError):
    """A data set is missing, empty, or has an unexpected folder structure."""


class AudioError(GenreError):
    """An audio file cannot be read, decoded or written."""


class TimeLimitError(AudioError):
    """The time for one song is over, or its answer is no longer wanted."""


class FeatureError(GenreError):
    """Features cannot be computed, or a feature file is damaged."""


class EngineError(FeatureError):
    """A feature engine cannot be used on this machine, or failed."""

    is_host_fault = True


class WorkerError(GenreError):
    """A worker process died, or the Dask cluster does not answer or has a worker that cannot process songs."""


class VectorError(GenreError):
    """A pickled vector, genres.json or songs.json is missing, damaged or inconsistent."""


class ModelError(GenreError):
    """A model is missing, damaged, or has other settings than the input."""


class SearchError(GenreError):
    """The vector store or an index is missing, damaged, made with other settings, locked, or does not answer."""
