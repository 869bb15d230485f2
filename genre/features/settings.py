"""The settings that change a feature, and their digest: chunks, vectors and models are compared by them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from genre.features.transforms import TRANSFORMS


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting that changes a feature vector. Vectors and models made with different ones do not go together."""

    sample_rate: int  # Hz
    chunk_seconds: float
    min_seconds: float

    def as_dict(self) -> dict[str, Any]:
        """Return the settings with the transform table and the fingerprint of it all, ready for JSON."""
        described = {**asdict(self), "transforms": [asdict(t) for t in TRANSFORMS.values()]}
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        return {**described, "fingerprint": digest}

    @classmethod
    def of(cls, described: Mapping[str, Any]) -> Settings:
        """Return the settings that `as_dict` described.

        Raises
        ------
        KeyError, TypeError, ValueError
            If there is none, or it is one that params.yaml would not take: it says how much is decoded at once.
        """
        found = cls(*(described[key] for key in ("sample_rate", "chunk_seconds", "min_seconds")))
        if not (8_000 <= found.sample_rate <= 192_000 and 1 <= found.chunk_seconds <= 600 and found.min_seconds > 0):
            raise ValueError(f"sample_rate {found.sample_rate}, chunk_seconds {found.chunk_seconds}")
        return found
