"""The settings that change a feature, and their digest. Chunks, vectors and models can be combined if it is equal."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from genre.features.transforms import TRANSFORMS


@dataclass(frozen=True, slots=True)
class Settings:
    """Every setting, besides the transform table, that changes a feature vector."""

    sample_rate: int  # Hz
    chunk_seconds: float
    min_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Return the settings, the transform table, and the SHA-256 of both in hexadecimal, ready for JSON."""
        described = {**asdict(self), "transforms": [asdict(t) for t in TRANSFORMS.values()]}
        digest = hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
        return {**described, "digest": digest}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Settings:
        """Return the settings in a dict as `to_dict` returns it.

        Raises KeyError, TypeError, ValueError if a setting is missing or outside the range that params.yaml allows.
        """
        settings = cls(*(values[key] for key in ("sample_rate", "chunk_seconds", "min_seconds")))
        rate, chunk_s, min_s = settings.sample_rate, settings.chunk_seconds, settings.min_seconds
        if not (8_000 <= rate <= 192_000 and 1 <= chunk_s <= 600 and min_s > 0):
            raise ValueError(f"sample_rate {rate}, chunk_seconds {chunk_s} or min_seconds {min_s} is out of range")
        return settings
