"""What scores depend on, for reports: data set with its known issues, parameters, versions of the packages."""

from __future__ import annotations

import hashlib
import os
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genre import files, params
from genre.audio import corrections, manifest
from genre.audio.manifest import Row
from genre.models import cards
from genre.params import Params
from genre.paths import Paths

SECTIONS = ("dataset", "split", "extract", "train", "musicnn", "baselines", "ensemble", "compare")  # of the parameters
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "onnxruntime", "scikit-learn", "xgboost", "xgboost-cpu")
LENGTH_TOLERANCE_S = 0.5 / 8_000  # half a sample at the lowest sample rate

# Issues that cannot be seen in the files, by the beginning of the data set's name.
KNOWN_ISSUES = {
    "demo": "The songs are synthetic: the scores do not carry over to real music.",
    "gtzan": "GTZAN has duplicates, wrong labels and few artists (Sturm 2013): scores without groups are optimistic.",
}


@dataclass(frozen=True, slots=True)
class Provenance:
    """The data set, parameters and package versions that the scores depend on."""

    dataset: str
    genres: list[str]  # in the order of the class indices
    counts: Sequence[Mapping[str, Any]]  # for each genre, its songs and chunks in training and test
    artist_filter: str  # yes or no, with the groups
    issues: Sequence[str]  # one sentence each
    links: Mapping[str, str]  # by song: URL of the source file, relative to a folder beside chunks/
    parameters: str  # YAML
    versions: Mapping[str, str]


def describe(settings: Params, paths: Paths, genres: list[str]) -> Provenance:
    """Return the provenance of a project's scores, by its corrections, chunks/index.csv and chunks/failures.csv.

    Raises DatasetError if the corrections or the index are damaged, or the index is missing.
    """
    name, chunk_s, group_by = settings.dataset.name, settings.split.chunk_seconds, settings.split.group_by
    rows = manifest.read(paths.chunks)
    issues = [issue for start, issue in KNOWN_ISSUES.items() if name.startswith(start)]
    if n_copies := len({row.song_id for row in rows}) - len({row.source_sha256 for row in rows}):
        issues.append(f"Songs whose file is that of another song: {n_copies} (`python -m stages.audit` lists them).")
    if corrected := [correction.genre for correction in corrections.read(paths.corrections(name))]:
        n_dropped = corrected.count(corrections.DROP)
        issues.append(f"{len(corrected) - n_dropped} songs have a corrected genre, {_were(n_dropped, 'song')} dropped.")
    if n_failures := len(manifest.failures(paths.chunks)):
        issues.append(f"{_were(n_failures, 'file')} left out because decoding failed (chunks/failures.csv).")
    if n_short := sum(row.seconds < chunk_s - LENGTH_TOLERANCE_S for row in rows):
        issues.append(f"{_were(n_short, 'chunk')} shorter than {chunk_s:g} s and filled by repetition.")
    links = {row.song_id: "../" + urllib.parse.quote(os.fsencode(row.source)) for row in rows}
    grouping = f"yes, {len({row.group for row in rows})} groups of {len(links)} songs by {group_by}"
    return Provenance(
        dataset=name,
        genres=genres,
        counts=[_count(genre, rows) for genre in genres],
        artist_filter=grouping if group_by else "no (split.group_by is null)",
        issues=issues,
        links=links,
        parameters=params.as_yaml(settings, *SECTIONS),
        versions=cards.installed_versions(PACKAGES) | {"vectors (SHA-256)": digest(paths.vectors)},
    )


def digest(vectors: Path) -> str:
    """Return the SHA-256 of the pickled vectors with their genres, songs and settings, as 64 hex digits."""
    paths = [path for path in sorted(vectors.iterdir()) if path.suffix in (".json", ".pickle")]
    return hashlib.sha256("".join(files.sha256(path) for path in paths).encode()).hexdigest()


def _count(genre: str, rows: Sequence[Row]) -> dict[str, Any]:
    counts: dict[str, Any] = {"genre": genre}
    for split in manifest.SPLITS:
        of_split = [row for row in rows if row.genre == genre and row.split == split]
        counts |= {f"{split}_songs": len({row.song for row in of_split}), f"{split}_chunks": len(of_split)}
    return counts


def _were(n: int, noun: str) -> str:
    return f"1 {noun} was" if n == 1 else f"{n} {noun}s were"
