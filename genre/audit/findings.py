"""Findings of an audit, as CSV, JSON and a page with players."""

from __future__ import annotations

import os
import urllib.parse
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from genre import files
from genre.evaluation import report

KINDS = {  # of findings, the most severe first, with a description
    "leak": "the same recording in training and in test",
    "duplicate": "the same recording twice",
    "label": "another genre is more probable, by models that were not trained on the song",
    "silent": "no sound, or hardly any",
    "damaged": "a part of the file could not be decoded",
    "clipped": "many samples at full scale",
    "outlier": "like no other song",
    "near-duplicate": "almost the same embedding; listen whether it is the same recording",
    "bandwidth": "a lower bandwidth than the sample rate allows: encoded at a low bit rate, or resampled",
    "mono": "stereo with equal channels",
    "short": "shorter than a chunk, filled by repetition",
    "few songs": "a genre with few songs",
    "confused": "genres that the models cannot tell apart",
    "recording": "a genre that level, peak, bandwidth, duration or bit rate give away",
}
COLUMNS = ("song", "finding", "other_song", "offset_s", "evidence", "suggestion")


@dataclass(frozen=True, slots=True)
class Finding:
    """One finding."""

    song: str  # path below the folder of the data set; of a finding about a genre, its name
    finding: str  # a key of `KINDS`
    evidence: str
    suggestion: str
    severity: float = 0.0  # order of the findings of a kind, the largest first
    others: tuple[str, ...] = ()  # the other copy; the nearest song of the suggested genre and of its own; a genre
    offset_s: float | None = None  # of the song's start in the other copy


def ranked(findings: Sequence[Finding]) -> list[Finding]:
    """Return the findings in the order of `KINDS`, the most severe of each kind first."""
    order = list(KINDS)
    return sorted(findings, key=lambda f: (order.index(f.finding), -f.severity, f.song, f.others))


def write(folder: Path, findings: Sequence[Finding], dataset: str, n_songs: int) -> Counter[str]:
    """Write audit.csv, audit.json and audit.html; return the number of findings of each kind.

    `dataset` is the folder of the songs below the project's root.
    """
    rows = [(f.song, f.finding, "; ".join(f.others), f.offset_s, f.evidence, f.suggestion) for f in findings]
    files.write_table(folder / "audit.csv", COLUMNS, rows)
    counts = Counter(finding.finding for finding in findings)
    summary = {"dataset": dataset, "songs": n_songs, "counts": counts}
    files.write_json(folder / "audit.json", summary | {"findings": [asdict(finding) for finding in findings]})
    environment = report.environment()
    environment.filters["url"] = lambda song: "../" + urllib.parse.quote(os.fsencode(f"{dataset}/{song}"))
    page = environment.get_template("audit.html").render(kinds=KINDS, findings=findings, **summary)
    files.write_text(folder / "audit.html", page)
    return counts
