"""What may be chosen about index and search, with the values that hold where params.yaml has no such section."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

INDEX_TYPES: dict[str, dict[str, tuple[str, ...]]] = {  # parameters of building and of searching
    "FLAT": {"build": (), "search": ()},
    "IVF_FLAT": {"build": ("nlist",), "search": ("nprobe",)},
    "HNSW": {"build": ("M", "efConstruction"), "search": ("ef",)},
}
ENGINES = ("landmarks", "network")


@dataclass(frozen=True, slots=True)
class IndexSettings:
    """How the index is made: the section `index` of params.yaml."""

    uri: str = "vectors/songs.db"  # a path that ends in .db, or http(s)://host:19530; MILVUS_URI overrides it
    embedding: str = "MSD_musicnn_both"  # a key of models.embeddings.EMBEDDINGS
    index_type: str = "FLAT"
    build: dict[str, int] = field(default_factory=dict)  # of the index type: nlist; M, efConstruction
    search: dict[str, int] = field(default_factory=dict)  # nprobe; ef
    data_set: str = ""  # its name: vectors of different data sets lie in different collections

    def under(self, root: Path) -> IndexSettings:
        """Return the settings with the path of the store, if it is one, below the project's folder."""
        return self if "://" in self.uri else replace(self, uri=str(root / self.uri))


@dataclass(frozen=True, slots=True)
class SearchSettings:
    """How the commands search: the section `search` of params.yaml."""

    engine: str = "landmarks"  # what identify answers with, one of ENGINES
    top_k: int = 10  # neighbours of each chunk
    min_score: float = 0.5  # below it a snippet is of no indexed song
    max_speed_change: float = 0.03  # a snippet may be this much faster or slower


def index_settings(params: Any) -> IndexSettings:
    """Return the section `index` of validated parameters, with the name of the data set."""
    section = params.index.model_dump()
    if section["embedding"] == "musicnn":
        section["embedding"] = params.musicnn.embedding
    return IndexSettings(**section, data_set=params.dataset.name)


def search_settings(params: Any) -> SearchSettings:
    """Return the section `search` of validated parameters, or the defaults where they have none."""
    section = getattr(params, "search", None)
    return SearchSettings(**section.model_dump()) if section is not None else SearchSettings()
