"""Songs unlike the training songs, and signals without music, are unknown, whatever the classifier predicts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from genre.audio import chunks
from genre.errors import ModelError
from genre.features.numpy_engine import compute
from genre.models import cards, predict, rejection
from genre.models.calibration import Validation
from genre.models.embeddings import Embedder, statistics
from genre.models.query import answer
from genre.paths import Paths
from stages import query
from tests.made import music, pcm, save_svm, write_params

RATE, SECONDS, N_SONGS = 22_050, 3.0, 12
T = np.arange(round(2 * SECONDS * RATE)) / RATE
NOISE = np.random.default_rng(0).standard_normal(len(T))
SIGNALS: dict[str, Any] = {
    "white noise": 0.1 * NOISE,
    "brown noise": np.cumsum(NOISE) / 1000,
    "sine": 0.5 * np.sin(2 * np.pi * 440 * T),
    "square": 0.3 * np.sign(np.sin(2 * np.pi * 220 * T)),
    "clicks": 0.8 * (np.arange(len(T)) % 11_025 == 0),
    "hum": 0.3 * np.sin(2 * np.pi * 50 * T) + 0.002 * NOISE,
}


def song(seed: int) -> Any:
    return music(seed, 2 * SECONDS, RATE)


def training() -> tuple[Any, Any, list[str]]:
    """Return statistics, genres and songs of two chunks of each song; odd songs have less bass."""
    pieces = [np.diff(song(n), prepend=np.float32(0)) if n % 2 else song(n) for n in range(N_SONGS)]
    vectors = [statistics(compute(half, RATE)) for piece in pieces for half in np.split(pcm(piece), 2)]
    return np.stack(vectors), np.arange(2 * N_SONGS) // 2 % 2, [str(n // 2) for n in range(2 * N_SONGS)]


@pytest.fixture(scope="module")
def fitted() -> dict[str, Any]:
    vectors, labels, songs = training()
    sure = Validation(np.arange(len(labels)), np.full((len(labels), 2), (0.9, 0.1), np.float32))
    return rejection.fit({"statistics": vectors}, labels, songs, {"sure": sure})


@pytest.fixture
def paths(tmp_path: Path, fitted: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Return a project whose only embedding is `statistics`, without the pretrained network."""
    save_svm(tmp_path)
    paths = Paths(tmp_path)
    of_svm = cards.read("stats_svm", paths)
    description = rejection.write(fitted, [Embedder("statistics", paths)], paths)
    ensemble = replace(of_svm, model="ensemble", models=["stats_svm"], default="stats_svm", rejection=description)
    cards.write(ensemble, paths)
    for name, signal in (SIGNALS | {"song": song(100)}).items():
        chunks.write(tmp_path / f"{name}.wav", (32_767 * np.clip(signal, -1, 1)).astype(np.int16), sample_rate=RATE)
    monkeypatch.chdir(tmp_path)
    return paths


def test_signals_without_music_are_unknown_and_a_song_has_a_genre(paths: Paths) -> None:
    predictor = predict.load("stats_svm", paths)
    for rate in (0.02, 0.1):
        rejecter = rejection.load(paths, "stats_svm", rate)
        answers = {name: answer(paths.root / f"{name}.wav", predictor, rejection=rejecter) for name in SIGNALS}
        assert {a["genre"] for a in answers.values()} == {"unknown"}
        assert answers["white noise"]["reason"] == rejection.NO_MUSIC
    known = answer(paths.root / "song.wav", predictor, rejection=rejection.load(paths, "stats_svm", 0.02))
    assert (known["genre"] in ("high", "low"), known["reason"]) == (True, None)
    assert answer(paths.root / "sine.wav", predictor)["genre"] != "unknown"


def test_the_rate_is_read_at_run_time_and_a_rate_that_the_songs_cannot_support_is_reported(
    paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    for rate, text, warning in ((0.02, "noise or a tone", "needs 49 training songs"), (None, "genre: low", "")):
        write_params(paths.root, query__reject=rate)
        query.main(["hum.wav", "--model", "stats_svm"])
        output = capsys.readouterr()
        assert (text in output.out or rate is None, "unknown" in output.out) == (True, rate is not None)
        assert warning in output.out + output.err
    assert not rejection.load(paths, "stats_svm", 0.1).warnings  # type: ignore[union-attr]


@pytest.mark.parametrize("size", [1, 3])
def test_scores_of_training_songs_come_from_gaussians_without_their_group(
    monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    vectors, labels, songs = training()
    fit: Callable[..., Any] = rejection.Gaussians.fit
    seen: list[set[bytes]] = []

    def spy(rows: Any, *rest: Any, **options: Any) -> Any:
        seen.append({row.tobytes() for row in rows})
        return fit(rows, *rest, **options)

    monkeypatch.setattr(rejection.Gaussians, "fit", spy)
    rejection.fit({"statistics": vectors}, labels, songs, {}, [str(int(song) // size) for song in songs])
    left_out = [{n for n, row in enumerate(vectors) if row.tobytes() not in rows} for rows in seen]
    assert left_out == [*({*range(n, n + 2 * size)} for n in range(0, 2 * N_SONGS, 2 * size)), set()]


def test_confidence_counts_with_the_distance(fitted: dict[str, Any]) -> None:
    rejecter = rejection.Rejection(fitted, [Embedder("statistics", Paths())], "sure", 0.1)
    usual = np.append(fitted["z"][0], 0.0)[np.newaxis]
    assert rejecter.reason(usual, 0.9) is None
    assert rejecter.reason(usual, 0.3) == rejection.UNSURE
    assert rejecter.reason(usual * 100, 0.9) == rejection.UNLIKE


def test_a_damaged_file_is_refused_and_few_songs_have_none(paths: Paths) -> None:
    vectors, labels, songs = training()
    assert rejection.fit({"statistics": vectors[:8]}, labels[:8], songs[:8], {}) == {}
    paths.rejection.write_bytes(paths.rejection.read_bytes()[:-9])
    with pytest.raises(ModelError, match=r"rejection\.npz is damaged .*SHA-256.*dvc"):
        rejection.load(paths, "stats_svm", 0.02)
