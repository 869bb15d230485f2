"""params.yaml as typed, read-only sections.

params.yaml holds every setting with its unit and range in a comment; the classes here hold the types and bounds.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, NonNegativeFloat, PositiveFloat, ValidationError

from genre import files
from genre.errors import ParamsError
from genre.paths import Paths

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
ShareBelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
EngineName = Literal["auto", "sonic-annotator", "vamp", "numpy"]
Sections = TypeVar("Sections", bound="CommandParams")

INSTALLED = Path(__file__).with_suffix(".yaml")  # params.yaml of the project that the installed command is from
PACKED_STORE = "vectors/songs.db"


class _Section(BaseModel):
    # Text is read as a number: DVC writes 1e-05, a string in YAML 1.1. defer_build: schemas are built once, for Params
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class DatasetParams(_Section):
    """The data set."""

    name: Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]*[^/\\.\x00-\x1f][^/\\\x00-\x1f]*$", max_length=255)]


class SplitParams(_Section):
    """Length and sample rate of chunks, and the division into training and test songs."""

    sample_rate: Annotated[int, Field(ge=8_000, le=192_000)]
    chunk_seconds: Annotated[float, Field(ge=1.0, le=600.0)]
    min_seconds: PositiveFloat
    test_fraction: Fraction
    seed: Seed
    test_list: str | None
    train_list: str | None
    group_by: Annotated[str, Field(pattern=r"^(artist|album|folder|regex:.+|.+\.csv)$")] | None
    duplicates: Literal["together", "drop"]
    on_error: Literal["skip", "fail"]
    pack: bool | None


class ExtractParams(_Section):
    """The feature engine."""

    engine: EngineName


class OptimizerParams(_Section):
    """The optimizer, AdamW."""

    learning_rate: PositiveFloat
    weight_decay: NonNegativeFloat


class AugmentationParams(_Section):
    """Random changes of each training chunk."""

    crop: Annotated[float, Field(gt=0.0, le=1.0)]
    level_shift: NonNegativeFloat
    column_shift: NonNegativeFloat
    mixup: NonNegativeFloat


class TrainParams(_Section):
    """Architecture and training of the networks."""

    architecture: Literal["conv1d", "lstm2016"]
    filters: Count
    dropout: ShareBelowOne
    members: Count
    epochs: Count
    max_steps: Count
    batch_size: Count
    label_smoothing: ShareBelowOne
    patience: Count | None
    seed: Seed
    optimizer: OptimizerParams
    augmentation: AugmentationParams


class MusicnnParams(_Section):
    """The pretrained network that the MusiCNN embedding comes from."""

    checkpoint: Literal["MSD", "MTT"]
    vector: Literal["max_pool", "penultimate", "both"]

    @property
    def network(self) -> str:
        """Return the name of the network, a key of `models.musicnn.CHECKPOINTS`."""
        return f"{self.checkpoint}_musicnn"

    @property
    def embedding(self) -> str:
        """Return the name of the embedding, a key of `models.embeddings.EMBEDDINGS`."""
        return f"{self.network}_{self.vector}"


class ParallelParams(_Section):
    """Processes of a stage or of compare, or the Dask cluster for split, extract and index."""

    workers: Count | None
    scheduler: Annotated[str, Field(pattern=r"^[a-z]+://")] | None


class CacheParams(_Section):
    """The cache of results."""

    max_bytes: Annotated[int, Field(ge=0)]


class BaselinesParams(_Section):
    """Classifiers trained in addition to the networks."""

    models: list[str]
    seed: Seed


class CompareParams(_Section):
    """Models and folds of stages.compare."""

    models: Annotated[list[str], Field(min_length=1)]
    split: Literal["folds", "fixed"]
    folds: Annotated[int, Field(ge=2)]
    repeats: Count
    seed: Seed
    songs_per_genre: list[Count]


class EnsembleParams(_Section):
    """Models whose probabilities are averaged."""

    models: Annotated[list[str], Field(min_length=1)]


class IndexParams(_Section):
    """The embedding index and the landmark index."""

    uri: Annotated[str, Field(min_length=1)]
    embedding: Literal["musicnn", "statistics", "librosa"]
    windows: bool
    index_type: Literal["FLAT", "IVF_FLAT", "HNSW"]
    build_params: dict[str, Count]
    landmark_density: Annotated[float, Field(gt=0.0, le=1.0)]


class SearchParams(_Section):
    """Search by identify and similar."""

    engine: Literal["landmarks", "embeddings"]
    top_k: Count
    min_score: Annotated[float, Field(ge=0.0, le=1.0)]
    max_speed_change: Annotated[float, Field(ge=0.0, le=0.1)]
    index_params: dict[str, Count]


class ServeParams(_Section):
    """Limits of the HTTP service."""

    workers: Annotated[int, Field(ge=1, le=256)]
    queue: Annotated[int, Field(ge=0, le=10_000)]
    uploads: Annotated[int, Field(ge=1, le=10_000)]
    connections: Annotated[int, Field(ge=1, le=100_000)]
    max_upload_bytes: Annotated[int, Field(ge=1_000)]
    max_parts: Annotated[int, Field(ge=1, le=1_000)]
    max_audio_s: Annotated[float, Field(ge=1.0, le=36_000.0)]
    timeout_s: Annotated[float, Field(gt=0.0, le=3_600.0)]
    upload_timeout_s: Annotated[float, Field(gt=0.0, le=3_600.0)]
    stall_s: Annotated[float, Field(ge=1.0, le=3_600.0)]
    response_timeout_s: Annotated[float, Field(gt=0.0, le=36_000.0)]
    shutdown_s: Annotated[int, Field(ge=0, le=3_600)]
    hosts: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9.\-\[\]:]+$")]]
    api_key: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]


class QueryParams(_Section):
    """Rejection of songs as "unknown"."""

    reject: Annotated[float, Field(gt=0.0, le=0.5)] | None


class CommandParams(_Section):
    """The sections of params.yaml that query, identify and similar use."""

    dataset: DatasetParams
    musicnn: MusicnnParams
    index: IndexParams
    search: SearchParams
    query: QueryParams


class Params(CommandParams):
    """All sections of params.yaml."""

    split: SplitParams
    extract: ExtractParams
    train: TrainParams
    parallel: ParallelParams
    cache: CacheParams
    baselines: BaselinesParams
    compare: CompareParams
    ensemble: EnsembleParams
    serve: ServeParams


class PackagedIndexParams(IndexParams):
    """The indexes in a package: never on a server, nor outside of the package."""

    uri: Literal["vectors/songs.db"]  # PACKED_STORE


class PackagedParams(CommandParams):
    """The sections of params.yaml in a package of models."""

    index: PackagedIndexParams


def load(path: Path | None = None) -> Params:
    """Return the settings of a params file, by default that of the project; raise ParamsError as `read`."""
    return read(path or Paths().params, Params)


def read(path: Path, kind: type[Sections]) -> Sections:
    """Return the settings of a params file that has the sections of `kind`, and no others.

    Raises ParamsError if the file is missing or not YAML, or keys are unknown, missing or have a bad value;
    the message names all of them.
    """
    try:
        values = files.read_yaml(path)
    except FileNotFoundError:
        raise ParamsError(f"{path} is missing: run this in the project's folder, or set GENRE_PROJECT to it") from None
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise ParamsError(f"{path} cannot be read: {error}") from error
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise ParamsError(f"{path}: " + "; ".join(_sentence(cast(Any, e)) for e in error.errors())) from None


def _sentence(error: dict[str, Any]) -> str:
    """Return an error of pydantic as a sentence that names the key."""
    key = ".".join(map(str, error["loc"])) or "the file"
    if error["type"] == "missing":
        return f"the key {key} is missing"
    if error["type"] != "extra_forbidden":
        return f"{key} is {error['input']!r}: {error['msg'][0].lower()}{error['msg'][1:]}"
    return f"the key {key} is unknown"
