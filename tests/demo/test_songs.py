"""The demo songs: titles and formats, synthesis, encoding."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from genre.audio import ffmpeg
from genre.demo import styles, synth
from genre.errors import AudioError


def _render(song: styles.DemoSong) -> tuple[synth.Recording, npt.NDArray[np.int16]]:
    rng = np.random.default_rng(song.seed)
    tracks, recording = styles.compose(song, rng)
    return recording, synth.render(tracks, recording, rng)


def test_titles_are_unique_each_style_has_all_formats_and_more_songs_begin_with_the_same() -> None:
    songs = styles.plan(2016, 400)
    titles = {song.title.casefold() for song in songs}
    assert len(titles) == len(songs)
    assert any("'" in title for title in titles) and not all(title.isascii() for title in titles)
    for style in styles.STYLES:
        of_style = [song.suffix for song in songs if song.style == style]
        assert Counter(of_style[:10]) == Counter(styles.SUFFIXES)
    assert songs[: 4 * len(styles.STYLES)] == styles.plan(2016, 4)


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


@pytest.mark.parametrize(("suffix", "options"), styles.FORMATS.items())
def test_every_format_is_written_with_the_same_bytes_every_time(
    suffix: str, options: ffmpeg.Options, tmp_path: Path
) -> None:
    samples = np.random.default_rng(0).integers(-9_000, 9_000, (22_050, 2)).astype(np.int16)
    first, second = tmp_path / "first" / f"Café.{suffix}", tmp_path / "second" / f"Café.{suffix}"
    for path in (first, second):
        ffmpeg.encode(path, samples, sample_rate=22_050, **options)
    assert first.read_bytes() == second.read_bytes()
    assert len(np.concatenate(list(ffmpeg.stream_pcm(first, sample_rate=22_050)))) == pytest.approx(22_050, abs=3_000)
    with pytest.raises(AudioError, match="Song"):
        ffmpeg.encode(tmp_path / f"Song.{suffix}", samples, sample_rate=-1, **options)
    assert {path.name for path in tmp_path.iterdir()} == {"first", "second"}, "a file remains that was not written"
