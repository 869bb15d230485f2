"""Songs of any format become chunks of equal length."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genre.audio import chunks
from genre.errors import AudioError
from tests.made import make_song

RATE = 22_050


def _cut(path: Path, **options: float) -> list[chunks.Chunk]:
    settings = {"chunk_seconds": 3.0, "min_seconds": 1.0} | options
    return list(chunks.iterate(path, sample_rate=RATE, **settings))


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [(3.0, [3.0]), (6.0, [3.0, 3.0]), (6.9, [3.0, 3.0]), (7.5, [3.0, 3.0, 1.5]), (0.4, [0.4]), (2.9, [2.9])],
)
def test_a_last_piece_is_kept_if_long_enough_or_the_only_one(
    tmp_path: Path, seconds: float, expected: list[float]
) -> None:
    pieces = _cut(make_song(tmp_path / "a.wav", seconds=seconds))
    assert [chunk.seconds for chunk in pieces] == pytest.approx(expected, abs=1e-4)
    assert [chunk.start_s for chunk in pieces] == [3.0 * i for i in range(len(expected))]
    assert {len(chunk.samples) for chunk in pieces} == {3 * RATE}
    n_samples = round(expected[-1] * RATE)
    assert np.array_equal(pieces[-1].samples, np.resize(pieces[-1].samples[:n_samples], 3 * RATE))  # repeated


@pytest.mark.parametrize("name", ["a.mp3", "a.flac", "a.ogg", "a.m4a", "a.opus", "a.aiff", "a.wma", "a.mka"])
def test_every_format_is_read_and_resampled(tmp_path: Path, name: str) -> None:
    path = make_song(tmp_path / name, seconds=6.0, sample_rate=48_000, channels=2)
    pieces = _cut(path)
    assert len(pieces) in (2, 3)  # lossy formats pad
    spectrum = np.abs(np.fft.rfft(pieces[0].samples[: RATE * 2]))
    peak_hz = float(np.argmax(spectrum)) / 2
    assert min(abs(peak_hz - 220 * ratio) for ratio in (1.0, 1.25, 1.5)) < 2


@pytest.mark.parametrize(
    "name",
    ['it\'s "quoted".wav', "☃.wav", "-y.wav", "a#b.wav", "http:x.wav", "new\nline.wav", "%03d.wav", "M\udcfcller.wav"],
)
def test_any_file_name_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    plain = make_song(tmp_path / "plain.wav")
    try:
        plain.rename(tmp_path / name)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    monkeypatch.chdir(tmp_path)
    assert len(_cut(Path(name))) == 2


def test_a_flac_file_without_its_head_is_recognised_by_its_extension(tmp_path: Path) -> None:
    data = make_song(tmp_path / "whole.flac", seconds=6.0, noise=0.1).read_bytes()
    path = tmp_path / "damaged.flac"
    path.write_bytes(data[len(data) // 3 :])
    assert 0 < sum(piece.seconds for piece in _cut(path)) < 6


def test_the_corrupt_files_are_decoded_or_refused_by_name(shared_data: Path) -> None:
    outcomes = {}
    for path in sorted((shared_data / "corrupt").iterdir()):
        try:
            outcomes[path.name] = len(_cut(path)) > 0
        except AudioError as error:
            assert path.name in str(error)
            outcomes[path.name] = False
    assert {name for name, decoded in outcomes.items() if decoded} == {
        "essentia_bad_stream_info.flac",
        "essentia_unsupported.au",
    }
