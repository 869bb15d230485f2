"""Mutated audio files are decoded, analysed, queried and tagged, or refused by name; N_INPUTS sets their number.

Each begins as a song in one of eight formats or as a file with a fault that collections have (several streams, a chain,
an edit list, tags around the audio, a false length, nothing to hear, days of audio in few bytes). Where the project has
trained models, the answer of `query` is part of it.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import time
from pathlib import Path

import numpy as np
import pytest

from genre.audio import chunks, tags
from genre.errors import GenreError
from genre.features import numpy_engine
from genre.models import cards, predict, query
from genre.paths import Paths
from tests.made import ROOT, make_song, write_field_files

N_INPUTS = int(os.environ.get("N_INPUTS", "40"))
LIMIT_S = 60.0  # of one input: the limit of processor time is 10 s, and the machine may be busy
MAX_SECONDS = 3600.0  # of audio from one input of some seconds
EXTREMES = [b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00", b"\xff\xff\xff\x7f"]


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Return the files that are mutated."""
    folder = tmp_path_factory.mktemp("originals")
    for suffix in ("mp3", "flac", "wav", "ogg", "opus", "m4a", "aiff", "wma"):
        make_song(folder / f"song.{suffix}", seconds=2.0, sample_rate=48_000, noise=0.05)
    write_field_files(folder)
    return sorted(folder.iterdir())


def _mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """Return a file with up to eight mutations, half of them near its start, where the headers are."""
    for _ in range(int(rng.integers(9))):
        at, other = (int(rng.integers(min(256, len(data)) if rng.random() < 0.5 else len(data))) for _ in range(2))
        size = int(rng.integers(1, max(2, len(data) // 4)))
        changed = [
            bytes([data[at] ^ 1 << int(rng.integers(8))]),
            EXTREMES[int(rng.integers(len(EXTREMES)))],
            bytes(64),
            data[other : other + int(rng.integers(1, 4096))],  # moved from elsewhere
        ]
        kind = int(rng.integers(7))
        if kind < len(changed):
            data = data[:at] + changed[kind] + data[at + len(changed[kind]) :]
        else:  # cut out, cut off or doubled
            data = data[:at] + (data[at + size :], b"", data[max(0, at - size % 4096) :])[kind - len(changed)]
        data = data or b"\0"
    return data


@pytest.mark.slow
@pytest.mark.parametrize("part", range(4))
def test_mutated_files_are_answered_or_refused_and_no_file_remains(
    originals: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, part: int
) -> None:
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    models = Paths(ROOT)
    predictor = predict.load("merged", models) if "merged" in cards.available(models) else None
    outcomes = set()
    for number in range(part, N_INPUTS, 4):
        original = originals[number % len(originals)]
        path = tmp_path / f"{number}{original.suffix}"
        path.write_bytes(_mutated(original.read_bytes(), np.random.default_rng([7, number])))
        began, seconds = time.monotonic(), 0.0
        try:
            pieces = chunks.iterate(path, sample_rate=8000, chunk_seconds=3.0, min_seconds=1.0)
            for chunk in chunks.audible(pieces, path):
                features = numpy_engine.compute(chunk.samples, 8000)
                assert all(np.isfinite(array).all() for array in features.values()), original
                seconds += chunk.seconds
            if predictor:
                query.answer(path, predictor)
            outcomes.add("answered")
        except GenreError as error:
            assert path.name in str(error) and "\n" not in str(error)
            outcomes.add("refused")
        with contextlib.suppress(GenreError):  # other formats, and other damage than that of the audio
            tags.Tagger(tmp_path / "tags.jsonl").write(path, ["jazz"])
        assert seconds < MAX_SECONDS and time.monotonic() - began < LIMIT_S, original
        path.unlink()
    assert outcomes == {"answered", "refused"}
    assert {*tmp_path.iterdir()} == {temporary, tmp_path / "tags.jsonl"} and not [*temporary.iterdir()]
