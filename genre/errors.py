"""One family of errors, each a sentence that a user can act on."""

from __future__ import annotations


class GenreError(Exception):
    """Something the user can mend: the message names the file or key, what is wrong and what to do.

    Commands print the message without a traceback and exit with 1.
    """

    is_host_fault = False  # True: not an item but the machine that works on it is to blame


class ParamsError(GenreError):
    """params.yaml (or a command's option) has an unknown key or a bad value."""


class DatasetError(GenreError):
    """A data set folder is missing, empty, or laid out in a way that cannot be used."""


class AudioError(GenreError):
    """An audio file cannot be read, decoded or written."""


class FeatureError(GenreError):
    """Features cannot be computed, or a feature file is not what it should be."""


class EngineError(FeatureError):
    """A feature engine is not usable on this machine, or failed."""

    is_host_fault = True


class WorkerError(GenreError):
    """A worker process of this machine died."""


class ClusterError(GenreError):
    """The Dask cluster cannot be reached, or one of its workers cannot work."""


class VectorError(GenreError):
    """A pickled vector, genres.json or songs.json is missing, damaged or inconsistent."""


class ModelError(GenreError):
    """A model is missing, damaged, or was made with other settings than those asked for."""


class EvaluationError(GenreError):
    """Predictions, labels and songs do not fit together, or are too few for an evaluation."""


class SearchError(GenreError):
    """The vector store, the landmark index or the fingerprint network cannot be used as it is."""


class StoreUnreachableError(SearchError):
    """The vector store is locked by another process, or its server does not answer."""
