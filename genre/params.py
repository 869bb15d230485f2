"""params.yaml, validated once, as typed read-only sections.

An unknown key, a missing key or a bad value raises ParamsError naming the key. Every knob stands in params.yaml with
its comment; the classes here hold types and bounds only.
"""

from __future__ import annotations

import re
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from genre.errors import ParamsError

PARAMS_FILE = Path("params.yaml")
MAX_NODES = 10_000  # values in the file, with aliases written out

Fraction = Annotated[float, Field(gt=0.0, lt=1.0)]
ShareBelowOne = Annotated[float, Field(ge=0.0, lt=1.0)]
Positive = Annotated[float, Field(gt=0.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Count = Annotated[int, Field(ge=1)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]
EngineName = Literal["auto", "sonic-annotator", "vamp", "numpy"]


class _Section(BaseModel):
    # defer_build: each schema is built once, with all of Params, not once more on its own
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, defer_build=True)


class DatasetParams(_Section):
    """Which data set is used."""

    name: Annotated[str, Field(pattern=r"^[^/\\\x00-\x1f]*[^/\\.\x00-\x1f][^/\\\x00-\x1f]*$", max_length=255)]


class SplitParams(_Section):
    """How songs become chunks, and which songs are the test set."""

    sample_rate: Annotated[int, Field(ge=8_000, le=192_000)]
    chunk_seconds: Annotated[float, Field(ge=1.0, le=600.0)]
    min_seconds: Positive
    test_fraction: Fraction
    seed: Seed
    test_list: str | None
    train_list: str | None
    on_error: Literal["skip", "fail"]


class ExtractParams(_Section):
    """Which engine computes the features."""

    engine: EngineName


class OptimizerParams(_Section):
    """The optimizer, AdamW."""

    learning_rate: Positive
    weight_decay: NotNegative


class AugmentationParams(_Section):
    """Random changes of each training chunk."""

    crop: Annotated[float, Field(gt=0.0, le=1.0)]
    level_shift: NotNegative
    column_shift: NotNegative
    mixup: NotNegative


class TrainParams(_Section):
    """How the networks are trained."""

    architecture: Literal["conv1d", "lstm2016"]
    filters: Count
    dropout: ShareBelowOne
    members: Count
    epochs: Count
    max_steps: Count
    batch_size: Count
    label_smoothing: ShareBelowOne
    validation_fraction: Annotated[float, Field(ge=0.0, le=0.5)]
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
    """Where the work of split, extract and vectorize is done."""

    workers: Count | None
    scheduler: Annotated[str, Field(pattern=r"^[a-z]+://")] | None


class CacheParams(_Section):
    """The cache of finished work."""

    max_bytes: Annotated[int, Field(ge=0)]


class BaselinesParams(_Section):
    """The peers that are trained beside the networks."""

    models: list[str]
    seed: Seed


class CompareParams(_Section):
    """What stages.compare does."""

    models: Annotated[list[str], Field(min_length=1)]
    split: Literal["folds", "fixed"]
    folds: Annotated[int, Field(ge=2)]
    repeats: Count
    seed: Seed


class EnsembleParams(_Section):
    """The average of models."""

    models: Annotated[list[str], Field(min_length=1)]


class IndexParams(_Section):
    """How songs are made searchable."""

    uri: Annotated[str, Field(min_length=1)]
    embedding: Literal["musicnn", "statistics", "librosa"]
    windows: bool
    index_type: Literal["FLAT", "IVF_FLAT", "HNSW"]
    build_params: dict[str, Count]


class SearchParams(_Section):
    """How identify and similar search."""

    engine: Literal["landmarks", "embeddings"]
    top_k: Count
    min_score: Annotated[float, Field(ge=0.0, le=1.0)]
    max_speed_change: Annotated[float, Field(ge=0.0, le=0.1)]
    index_params: dict[str, Count]


class ServeParams(_Section):
    """What the HTTP service allows itself and its clients."""

    workers: Annotated[int, Field(ge=1, le=256)]
    queue: Annotated[int, Field(ge=0, le=10_000)]
    uploads: Annotated[int, Field(ge=1, le=10_000)]
    connections: Annotated[int, Field(ge=1, le=100_000)]
    max_upload_bytes: Annotated[int, Field(ge=1_000)]
    max_parts: Annotated[int, Field(ge=1, le=1_000)]
    max_audio_s: Annotated[float, Field(ge=1.0, le=36_000.0)]
    timeout_s: Annotated[float, Field(gt=0.0, le=3_600.0)]
    upload_timeout_s: Annotated[float, Field(gt=0.0, le=3_600.0)]
    shutdown_s: Annotated[int, Field(ge=0, le=3_600)]
    hosts: list[Annotated[str, Field(pattern=r"^[A-Za-z0-9.\-\[\]:]+$")]]
    api_key: Annotated[str, Field(pattern=r"^[A-Z_][A-Z0-9_]*$")]


class QueryParams(_Section):
    """When query says "unknown"."""

    unknown_far: Annotated[float, Field(ge=0.01, le=0.5)] | None


class Params(_Section):
    """All sections of params.yaml."""

    dataset: DatasetParams
    split: SplitParams
    extract: ExtractParams
    train: TrainParams
    parallel: ParallelParams
    cache: CacheParams
    musicnn: MusicnnParams
    baselines: BaselinesParams
    index: IndexParams
    search: SearchParams
    compare: CompareParams
    ensemble: EnsembleParams
    query: QueryParams
    serve: ServeParams


def load(path: Path = PARAMS_FILE) -> Params:
    """Read and validate a params file.

    Raises
    ------
    ParamsError
        If the file is missing or not YAML, or a key is unknown, missing or has a bad value (all are named).
    """
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)  # noqa: S506 (a SafeLoader)
    except FileNotFoundError:
        raise ParamsError(f"{path} is not here: run the command in the project's root folder") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
        raise ParamsError(f"{path} cannot be read: {error}") from error
    try:
        return Params.model_validate(raw)
    except ValidationError as error:
        raise ParamsError(f"{path}: " + "; ".join(_sentence(cast(Any, e)) for e in error.errors())) from None


def as_yaml(settings: Params, *sections: str) -> str:
    """Return sections of the params as YAML, for a report to show."""
    dumped = settings.model_dump(include=set(sections))
    return yaml.safe_dump({section: dumped[section] for section in sections}, sort_keys=False, allow_unicode=True)


def flat(section: TrainParams) -> dict[str, Any]:
    """Return the parameters of `train` without their groups, as keyword arguments of `models.training.fit`."""
    values = section.model_dump()
    return {**values.pop("optimizer"), **values.pop("augmentation"), **values}


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2 floats: DVC writes 1e-05, which YAML 1.1 takes for a string.

    A key that stands twice is an error, as for DVC; and so are aliases of aliases, by which a small file grows large.
    """

    def compose_document(self) -> yaml.Node | None:
        document = super().compose_document()
        if document is not None:
            _count_nodes(document, {})
        return document

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (yaml.YAMLError, RecursionError):
            raise
        except Exception as error:  # a month 99, a number of 5,000 digits, !!bool maybe: PyYAML raises nearly anything
            reason = f"{reprlib.repr(node.value)} is no value ({error})"
            raise yaml.constructor.ConstructorError(None, None, reason, node.start_mark) from error

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(None, None, f"{key.value} is there twice", key.start_mark)
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _count_nodes(node: yaml.Node, counted: dict[int, int]) -> int:
    """Return how many nodes there are when every alias is written out."""
    if id(node) not in counted:
        counted[id(node)] = MAX_NODES  # until it is known: what holds itself is endless
        pairs = node.value if isinstance(node, yaml.MappingNode) else [node.value]
        parts = [] if isinstance(node, yaml.ScalarNode) else [part for pair in pairs for part in pair]
        counted[id(node)] = 1 + sum(_count_nodes(part, counted) for part in parts)
    if counted[id(node)] > MAX_NODES:
        raise yaml.constructor.ConstructorError(None, None, "too much in it", node.start_mark)
    return counted[id(node)]


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?([0-9]+\.?[0-9]*|\.[0-9]+)[eE][-+]?[0-9]+$"),
    list("-+0123456789."),
)


def _sentence(error: dict[str, Any]) -> str:
    key = ".".join(str(part) for part in error["loc"]) or "the file"
    match error["type"]:
        case "extra_forbidden":
            return f"the key {key} is not known (misspelt?)"
        case "missing":
            return f"the key {key} is missing"
        case _:
            return f"{key} is {_shown(error['input'])}: {error['msg'][0].lower()}{error['msg'][1:]}"


def _shown(value: object) -> str:
    try:
        return reprlib.repr(value)
    except ValueError:  # an integer of more digits than Python prints
        return "a very large number"
