"""A project from Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genre import Project
from genre.audio import ffmpeg
from genre.errors import AudioError
from genre.features import csv as feature_csv
from genre.features.numpy_engine import compute
from genre.models.embeddings import Batch
from stages import extract, query
from tests.made import make_song, save_svm


@pytest.fixture
def song(project: Path) -> Path:
    """Return a song in a project with a model, which is the working directory."""
    save_svm(project, default=True, name="tiny", songs=16)
    return make_song(project / "song.wav", seconds=5.0, sample_rate=22_050)


def test_songs_samples_and_features_have_the_answer_of_the_command(
    song: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert query.main(["--format", "json", "song.wav"]) == 0
    answer = json.loads(capsys.readouterr().out)
    samples = np.concatenate(list(ffmpeg.stream_pcm(song, sample_rate=22_050)))
    with Project(song.parent) as project:
        assert project.query("song.wav") == answer
        for of_song in (samples, (samples / 32768).astype(np.float32)):
            assert project.query_samples(of_song, 22_050) == answer | {"file": ""}
        chunk = {name: array[np.newaxis] for name, array in compute(samples[: 3 * 22_050], 22_050).items()}
        probabilities = project.predictor.predict(Batch(chunk))[0]
        assert probabilities == pytest.approx(list(answer["chunks"][0]["probabilities"].values()), abs=1e-5)
        with pytest.raises(AudioError, match=r"other\.wav"):
            project.query("other.wav")
        with pytest.raises(AudioError, match="must be mono"):
            project.query_samples(np.stack([samples, samples]), 22_050)


def test_the_features_are_those_of_extract(song: Path) -> None:
    assert extract.main(["song.wav", "--out", "features", "--engine", "numpy"]) == 0
    for name, array in Project().features(song).items():
        written = feature_csv.read(next(Path("features").rglob(f"*{name}.csv")), array.shape[1])
        np.testing.assert_allclose(array, written, rtol=1e-5, atol=1e-5)
