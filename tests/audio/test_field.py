"""Files as collections have them: positions, durations and messages are those of the audio, not of the header."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from genre.audio import chunks, ffmpeg
from genre.errors import AudioError
from tests.made import write_field_files

pytestmark = pytest.mark.slow

RATE = 22_050  # Hz
FILES = (
    "base.wav base.flac base.mp3 base.m4a xing_short.mp3 xing_long.mp3 cut.wav cut.flac cut.mp3 tagged.flac "
    "chained.ogg joined.flac joined.wav edited.m4a streams.mka video.mp4 cancelled.flac cancelled.m4a cancelled.mp3"
).split()
SECONDS = {"cut.wav": 12.0, "cut.flac": 12.0, "cut.mp3": 12.0, "edited.m4a": 16.7}  # of audio; 20 in all others
FIRST_S = {"edited.m4a": 3.3}  # position in the chirp of the first sample
SHORT = "s that its header states could be decoded"
CANCELLED = "its channels cancel each other: the first one is used"
MESSAGES = {
    "xing_long.mp3": "only 20.0 s of the 522.4 " + SHORT,
    "cut.wav": "only 12.0 s of the 20.0 " + SHORT,
    "cut.flac": "of the 20.0 " + SHORT,
    "cut.mp3": "of the 20.0 " + SHORT,
    "streams.mka": "has 2 audio streams: number 2, the default one, was decoded",
    **{name: CANCELLED for name in FILES if name.startswith("cancelled")},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of such files."""
    folder = tmp_path_factory.mktemp("field")
    write_field_files(folder)
    return folder


def _decode(path: Path, **excerpt: float) -> np.ndarray:
    return np.concatenate(list(ffmpeg.stream_pcm(path, sample_rate=RATE, **excerpt)))


def _position(samples: np.ndarray) -> float:
    """Return the position in the chirp, in seconds, of the middle of an excerpt."""
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples)), 1 << 18))
    return float((np.argmax(spectrum) * RATE / (1 << 18) - 200) / 40)


@pytest.mark.parametrize("name", FILES)
def test_duration_and_positions_are_those_of_the_audio(
    folder: Path, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    path = folder / name
    whole = _decode(path)
    assert [record.message.partition(": ")[2] for record in caplog.records] == [] or name in MESSAGES
    assert MESSAGES.get(name, "") in caplog.text
    assert len(whole) / RATE == pytest.approx(SECONDS.get(name, 20.0), abs=0.15)
    assert ffmpeg.decoded_seconds(path) == pytest.approx(len(whole) / RATE, abs=0.001)
    for start in (0.0, 4.0, 9.7):
        part = _decode(path, start=start, duration=1.5)
        assert np.array_equal(part, whole[round(start * RATE) :][: len(part)])
        assert len(part) == round(1.5 * RATE)
        assert FIRST_S.get(name, 0.0) + start + 0.75 == pytest.approx(_position(part), abs=0.1)
    with pytest.raises(AudioError, match=r"holds no audio after 25 s"):
        _decode(path, start=25.0)


def test_damage_is_reported_where_audio_is_lost(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("base.flac", "base.mp3", "base.m4a"):
        data = bytearray((folder / name).read_bytes())
        middle = len(data) // 2
        data[middle : middle + 2000] = bytes(2000)
        (folder / f"damaged-{name}").write_bytes(data)
        caplog.clear()
        _decode(folder / f"damaged-{name}")
        assert f"damaged-{name}: decoded, with damaged parts (" in caplog.text


@pytest.mark.parametrize("name", ["faint.flac", "click.wav", "silent.mp3"])
def test_files_with_nothing_to_hear_have_no_audible_chunk(folder: Path, name: str) -> None:
    pieces = chunks.iterate(folder / name, sample_rate=RATE, chunk_seconds=6.0, min_seconds=1.0)
    with pytest.raises(AudioError, match=rf"{name}: is silent"):
        list(chunks.audible(pieces, folder / name))


def test_the_first_channel_replaces_only_what_cancels(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    left = np.rint(8000 * np.sin(np.arange(30 * RATE) / 20)).astype(np.int16)
    right = left.copy()
    right[: 10 * RATE] *= -1
    ffmpeg.encode(path, np.stack([left, right], 1), sample_rate=RATE, format="wav")
    assert np.abs(_decode(path).astype(int) - left).max() <= 1
