"""Renditions of a song are spoiled, and yet tell which moment is which."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from genre.audio import chunks
from genre.errors import SearchError
from genre.search import contrastive
from genre.search.contrastive import N_PLAIN, Rendition, Source
from genre.search.network import N_MELS
from tests.search.conftest import Music

WINDOW = 64  # frames
SECONDS = 14.0


@pytest.fixture(scope="module")
def heard(music: Music, tmp_path_factory: pytest.TempPathFactory) -> list[list[Rendition]]:
    folder = tmp_path_factory.mktemp("songs")
    sources = []
    for seed in range(3):
        path = folder / f"{seed}.wav"
        samples = np.rint(music(seed, SECONDS, 22_050) * 32767).astype(np.int16)
        chunks.write(path, samples, sample_rate=22_050)
        sources.append(Source(path, f"{seed:064x}", SECONDS))
    return contrastive.hear(sources, 12, 2016, 1)


def _alike(one: npt.NDArray[np.float16], other: npt.NDArray[np.float16]) -> float:
    return float(np.corrcoef(one.astype(np.float64).ravel(), other.astype(np.float64).ravel())[0, 1])


def test_a_window_is_the_same_moment_in_every_rendition(heard: list[list[Rendition]]) -> None:
    places = np.arange(1.0, 11.0, 0.5)
    right = []
    for of_song in heard:
        wanted = of_song[0].window(6.0, WINDOW)
        for rendition in of_song[1:]:
            alike = [_alike(wanted, rendition.window(float(at_s), WINDOW)) for at_s in places]
            right.append(places[int(np.argmax(alike))] == 6.0)
    assert np.mean(right) > 0.85


def test_the_last_window_is_the_last_moment_at_any_speed(heard: list[list[Rendition]]) -> None:
    of_song = heard[0]
    assert len({rendition.speed for rendition in of_song}) > 3
    for rendition in of_song:
        assert rendition.last_s(WINDOW) == pytest.approx(SECONDS - WINDOW / 32, abs=0.3)
        assert rendition.window(rendition.last_s(WINDOW), WINDOW).shape == (WINDOW, N_MELS)


def test_plain_renditions_are_not_spoiled(heard: list[list[Rendition]]) -> None:
    for of_song in heard:
        plain = [rendition.window(5.0, WINDOW) for rendition in of_song[:N_PLAIN]]
        assert _alike(plain[0], plain[1]) > 0.95
        assert min(_alike(plain[0], rendition.window(5.0, WINDOW)) for rendition in of_song[N_PLAIN:]) < 0.8


def test_the_same_seed_makes_the_same_renditions(heard: list[list[Rendition]], music: Music, tmp_path: Path) -> None:
    samples = np.rint(music(0, SECONDS, 22_050) * 32767).astype(np.int16)
    chunks.write(tmp_path / "0.wav", samples, sample_rate=22_050)
    sources = [Source(tmp_path / "0.wav", "0" * 64, SECONDS)]
    one, other = (contrastive.hear(sources, 3, 7, 1)[0] for _ in range(2))
    assert all(np.array_equal(a.columns, b.columns) for a, b in zip(one, other, strict=True))


@pytest.mark.parametrize("n_songs", [0, 1])
def test_one_song_is_too_few(n_songs: int, heard: list[list[Rendition]]) -> None:
    with pytest.raises(SearchError, match="two songs of 3 s or more"):
        contrastive.fit(heard[:n_songs], window_frames=WINDOW, hop_frames=8)


def test_songs_that_are_too_short_are_told(heard: list[list[Rendition]]) -> None:
    short = [[Rendition(rendition.columns[:70], 1.0, 0.0) for rendition in of_song] for of_song in heard]
    with pytest.raises(SearchError, match="two songs of 3 s or more"):
        contrastive.fit(short, window_frames=WINDOW, hop_frames=8)
