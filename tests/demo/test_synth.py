"""Synthesis and encoding of the demo songs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from genre.audio import ffmpeg
from genre.demo import styles, synth
from genre.demo.styles import DemoSong
from genre.errors import AudioError


def _render(song: DemoSong) -> tuple[synth.Recording, npt.NDArray[np.int16]]:
    rng = np.random.default_rng(song.seed)
    tracks, recording = styles.compose(song, rng)
    return recording, synth.render(tracks, recording, rng)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_samples_and_another_seed_others() -> None:
    song, other = styles.plan(1, 1)[0], styles.plan(2, 1)[0]
    samples = _render(song)[1]
    assert np.array_equal(samples, _render(song)[1])
    assert not np.array_equal(samples[:10_000], _render(other)[1][:10_000])


@pytest.mark.parametrize("style", styles.STYLES)
def test_a_song_has_its_duration_and_loudness_and_does_not_clip(style: str) -> None:
    recording, samples = _render(next(song for song in styles.plan(2016, 1) if song.style == style))
    assert 60 <= recording.seconds <= 100
    assert samples.shape == (round(recording.seconds * recording.sample_rate), recording.channels)
    assert np.abs(samples.astype(np.int32)).max() <= synth.PEAK * 32767 + 1
    rms_db = 20 * np.log10(np.sqrt(np.mean((samples / 32767) ** 2)))
    assert recording.rms_db - 4 < rms_db < recording.rms_db + 2


def test_every_format_is_written_with_the_same_bytes_every_time(tmp_path: Path) -> None:
    samples = np.random.default_rng(0).integers(-9_000, 9_000, (22_050, 2)).astype(np.int16)
    for suffix, options in styles.FORMATS.items():
        first, second = tmp_path / "first" / f"Café.{suffix}", tmp_path / "second" / f"Café.{suffix}"
        for path in (first, second):
            ffmpeg.encode(path, samples, sample_rate=22_050, **options)
        assert first.read_bytes() == second.read_bytes()
        decoded = np.concatenate(list(ffmpeg.stream_pcm(first, sample_rate=22_050)))
        assert len(decoded) == pytest.approx(22_050, abs=3_000)


def test_a_song_that_cannot_be_written_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(AudioError, match=r"Song\.mp3"):
        ffmpeg.encode(tmp_path / "Song.mp3", np.zeros((100, 1), np.int16), sample_rate=-1)
    assert list(tmp_path.iterdir()) == []
