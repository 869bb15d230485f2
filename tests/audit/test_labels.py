"""Swapped labels, songs unlike the others and confused genres are found, on made-up embeddings of five genres."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from genre import params
from genre.audio import chunks, manifest
from genre.audit import labels
from genre.audit.findings import Finding
from genre.audit.songs import AuditedSongs
from genre.features.arrays import VectorSet
from genre.models.rejection import STATISTICS
from genre.paths import Paths

GENRES = ["a", "b", "c", "d", "e"]
N_SONGS, N_CHUNKS = 12, 2  # of a genre, of a song
SWAPPED = (3, 20, 30)  # songs of a, b and c whose label is the next of these genres
OUTLIER = 50


@pytest.fixture
def audited(project: Path) -> AuditedSongs:
    """Return a project with embeddings: d and e are alike, the songs of a are louder, one song of e is far away."""
    rng = np.random.default_rng(0)
    rows, vectors = [], []
    centres = 2.0 * rng.standard_normal((5, 20))
    centres[4] = centres[3]
    for song in range(len(GENRES) * N_SONGS):
        genre = song // N_SONGS
        for number in range(N_CHUNKS):
            name = f"train/{GENRES[genre]}/{song}-{number:03d}.wav"
            level = 12_000 if genre == 0 else 1_000 + 100 * (song % 5)
            chunks.write(Path("chunks", name), rng.normal(0, level, 4_000).astype(np.int16), sample_rate=8_000)
            of_song = f"dataset/tiny/{GENRES[genre]}/{song}.wav", f"{song:064x}"
            rows.append(manifest.Row(name, str(song), GENRES[genre], "train", 3.0 * number, 3.0, *of_song))
            vectors.append(centres[genre] + rng.standard_normal(20) + (20 if song == OUTLIER else 0))
    manifest.write(Path("chunks"), rows)
    audited = AuditedSongs(params.load(), Paths())
    of_songs = np.arange(len(audited.songs)) // N_SONGS
    of_songs[list(SWAPPED)] = (of_songs[list(SWAPPED)] + 1) % 3
    names = [audited.name(row.source) for row in rows]
    audited.data = VectorSet({}, of_songs[audited.song_of], names, GENRES, names)
    audited.embeddings = {STATISTICS: np.array(vectors, np.float32)}
    firsts = audited.embeddings[STATISTICS][::N_CHUNKS]
    unit = firsts / np.linalg.norm(firsts, axis=1, keepdims=True)
    audited.similarities = unit @ unit.T
    return audited


def test_wrong_labels_outliers_confused_genres_and_recordings_are_found(audited: AuditedSongs) -> None:
    found: dict[str, list[Finding]] = {}
    for finding in labels.find(audited):
        found.setdefault(finding.finding, []).append(finding)
    songs = list(audited.songs)
    suspects = [finding for finding in found["label"] if finding.song[0] in "abc"]
    assert {f.song: f.suggestion for f in suspects} == {songs[song]: GENRES[song // N_SONGS] for song in SWAPPED}
    for finding in suspects:
        nearest, of_own_label = finding.others
        assert nearest.startswith(finding.suggestion)
        assert not of_own_label.startswith(finding.suggestion)
        assert finding.song not in finding.others
    assert [finding.song for finding in found["outlier"]] == [songs[OUTLIER]]
    (pair,) = found["confused"]
    assert (pair.song, pair.others) == ("d", ("e",))
    assert "of 12 d songs" in pair.evidence
    (recording,) = found["recording"]
    assert recording.song == "a"
    assert "; median peak 0.99" in recording.evidence
    assert "few songs" not in found


def test_a_genre_of_one_song_is_reported_and_nothing_is_predicted(audited: AuditedSongs) -> None:
    last = np.repeat(np.arange(len(audited.songs)) == 59, N_CHUNKS)
    others = np.minimum(audited.data.labels, 3)
    audited.data = replace(audited.data, labels=np.where(last, 4, others))
    (finding,) = labels.find(audited)
    assert (finding.song, finding.finding, finding.evidence) == ("e", "few songs", "1 songs")
