"""Review of a data set by ear: the songs to ask about, the answers, and what the last training gained."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from genre import files
from genre.audio import corrections
from genre.audit.findings import Finding
from genre.audit.songs import AuditedSongs
from genre.errors import DatasetError, ModelError
from genre.evaluation import metrics
from genre.models import cards
from genre.paths import Paths

COPIES = ("leak", "duplicate")  # findings that are asked about if the copies are in two genres
OF_LABELS = ("label", "outlier")  # findings that are asked about
REASON = "review"  # of a correction; a colon and the score of the ensemble at the time may follow


@dataclass(frozen=True, slots=True)
class Question:
    """A song whose genre is asked."""

    song: str  # path below the folder of the data set
    genre: str
    suggested: str  # the most probable genre
    margin: float
    finding: str = ""  # of the audit, a key of `findings.KINDS`
    evidence: str = ""
    others: Mapping[str, str] = field(default_factory=dict)  # songs to compare it with, and their genres


class Review:
    """The questions about a data set; answers are written to its corrections at once."""

    def __init__(self, audited: AuditedSongs) -> None:
        """Read the audit. Raises DatasetError if it is missing, damaged, or of another data set."""
        self.root, self._corrections = audited.paths.root, audited.paths.corrections(audited.settings.dataset.name)
        self._session: list[tuple[str, bool]] = []  # answered songs, and whether they were skipped
        rows = {audited.name(row.source): row for row in audited.rows}  # the last chunk of each song
        self.songs = {song: row for song, row in rows.items() if song.isprintable()}  # others cannot be corrected
        self.genres = sorted({row.genre for row in rows.values()})
        findings, predictions = _read_audit(audited.paths.audit, audited.folder)
        self._queue = queue(findings, predictions, {song: row.genre for song, row in self.songs.items()})
        self._reason = _reason(audited.paths)

    def remaining(self) -> list[Question]:
        """Return the questions that are neither answered nor skipped, the most useful first."""
        done = {correction.song for correction in corrections.read(self._corrections)}
        done |= {unicodedata.normalize("NFC", song) for song, skipped in self._session if skipped}
        names = [unicodedata.normalize("NFC", question.song) for question in self._queue]
        pairs = zip(self._queue, names, strict=True)  # corrections may leave out the extension
        return [question for question, name in pairs if not done & {name, str(Path(name).with_suffix(""))}]

    def state(self) -> dict[str, Any]:
        """Return the next question, the numbers of questions and what the last training gained, as JSON."""
        remaining, answers = self.remaining(), filter(_is_answer, corrections.read(self._corrections))
        reasons = [answer.reason for answer in answers]
        score = self._reason.partition(": ")[2]
        gain = f"Out-of-fold accuracy {score}" if score else ""
        if before := [reason for reason in reasons if reason not in (REASON, self._reason)][-1:]:
            n_answers, earlier = reasons.count(before[0]), before[0].partition(": ")[2]
            gain = f"Last training, with {n_answers} more answers: out-of-fold accuracy {earlier} -> {score}"
        return {
            "question": asdict(remaining[0]) if remaining else None,
            "genres": self.genres,
            "asked": len(reasons) + sum(skipped for _, skipped in self._session),
            "remaining": len(remaining),
            "findings": sum(bool(question.finding) for question in remaining),
            "gain": gain,
        }

    def answer(self, song: str, genre: str | None) -> None:
        """Write the genre of a song, or `corrections.DROP`; None: skip the song until the next start."""
        if genre is not None:
            corrections.add(self._corrections, song, genre, self._reason)
        self._session.append((song, genre is None))

    def undo(self) -> bool:
        """Remove the last answer, also of an earlier session; return whether there was one."""
        if self._session and self._session.pop()[1]:
            return True
        last = corrections.read(self._corrections)[-1:]
        return bool(last and _is_answer(last[0]) and corrections.undo(self._corrections))


def queue(findings: Iterable[Finding], predictions: pd.DataFrame, genres: Mapping[str, str]) -> list[Question]:
    """Return a question for each predicted song: first the findings about labels, then the smallest margins.

    The margin is that of uncertainty sampling (Settles 2009, Active learning literature survey, section 3.1).

    `findings` are in the order of `findings.ranked`; `predictions` are probabilities by models that were not trained on
    the song, with songs as index and genres as columns; only the songs of `genres`, with their genres, are asked about.
    """
    predictions = predictions[predictions.index.isin(list(genres))]
    songs, probabilities = predictions.index.tolist(), predictions.to_numpy()
    suggested = dict(zip(songs, predictions.columns[probabilities.argmax(axis=1)].tolist(), strict=True))
    highest = np.sort(probabilities, axis=1)[:, -2:]
    margins = dict(zip(songs, np.diff(highest)[:, 0].round(4).tolist(), strict=True))
    found: dict[str, tuple[str, str, dict[str, str]]] = {}
    for finding in findings:
        known = {song: genres[song] for song in (finding.song, *finding.others) if song in margins}
        of_copies = known if finding.finding in COPIES and len(set(known.values())) > 1 else ()
        for song in [finding.song] if finding.finding in OF_LABELS else of_copies:
            others = {other: genre for other, genre in known.items() if other != song}
            found.setdefault(song, (finding.finding, finding.evidence, others))
    order = dict.fromkeys([*found, *sorted(margins, key=margins.__getitem__)])
    return [
        Question(song, genres[song], suggested[song], margins[song], *found.get(song, ()))
        for song in order
        if song in margins
    ]


def _read_audit(folder: Path, dataset: str) -> tuple[list[Finding], pd.DataFrame]:
    """Return the findings and predictions of the audit of a data set, a folder below the project's root."""
    try:
        audit = files.read_json(folder / "audit.json")
        findings = [Finding(**values | {"others": tuple(values["others"])}) for values in audit["findings"]]
        table = pd.read_csv(folder / "predictions.csv", index_col=0, keep_default_na=False, encoding_errors="replace")
        if audit["dataset"] != dataset or table.empty:
            raise ValueError(f"it has no predictions of {dataset}/")
        return findings, table.iloc[:, len(metrics.COLUMNS) :].astype(float)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise DatasetError(f"{folder}/ cannot be used ({error}): run `python -m stages.audit`") from error


def _is_answer(correction: corrections.Correction) -> bool:
    return correction.reason.partition(":")[0] == REASON


def _reason(paths: Paths) -> str:
    """Return the reason of a correction, with the out-of-fold accuracy of the ensemble if it is trained."""
    try:
        scores = cards.read(cards.ENSEMBLE, paths).scores[cards.ENSEMBLE]
    except (ModelError, LookupError):
        return REASON
    return f"{REASON}: {100 * scores['song_accuracy']:.1f} % ({scores['n_songs']:.0f} songs)"
