"""A project from Python, and packages of models."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from genre import Project
from genre.audio import ffmpeg
from genre.errors import AudioError, ModelError
from genre.features import csv as feature_csv
from genre.features.numpy_engine import compute
from genre.models.embeddings import Batch
from stages import extract, pack, query
from tests.made import make_song, save_svm


@pytest.fixture
def package(project: Path) -> Path:
    """Return the package of a project with a model and a song, which is the working directory."""
    save_svm(project, default=True, name="tiny", songs=16)
    make_song(project / "song.wav", seconds=5.0, sample_rate=22_050)
    assert pack.main(["genres.zip"]) == 0
    return project / "genres.zip"


def test_songs_samples_and_features_have_one_answer_in_the_project_and_its_package(
    package: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert query.main(["--format", "json", "song.wav"]) == 0
    answer = json.loads(capsys.readouterr().out)
    samples = np.concatenate(list(ffmpeg.stream_pcm(Path("song.wav"), sample_rate=22_050)))
    chunk = {name: array[np.newaxis] for name, array in compute(samples[: 3 * 22_050], 22_050).items()}
    for root in (package.parent, package):
        with Project(root) as project:
            assert project.query("song.wav") == answer
            for of_song in (samples, (samples / 32768).astype(np.float32)):
                assert project.query_samples(of_song, 22_050) == answer | {"file": ""}
            probabilities = project.predictor.predict(Batch(chunk))[0]
            assert probabilities == pytest.approx(list(answer["chunks"][0]["probabilities"].values()), abs=1e-5)
            with pytest.raises(AudioError, match=r"other\.wav"):
                project.query("other.wav")
            for part in ({"start": -1.0}, {"duration": 0.0}, {"middle": float("nan")}):
                with pytest.raises(AudioError, match=r"song\.wav: start must be 0 s or more"):
                    project.query("song.wav", **part)
            with pytest.raises(AudioError, match="must be mono"):
                project.query_samples(np.stack([samples, samples]), 22_050)
    assert not project.paths.root.exists()  # the extracted package


def test_the_features_are_those_of_extract(package: Path) -> None:
    assert extract.main(["song.wav", "--out", "features", "--engine", "numpy"]) == 0
    for name, array in Project().features("song.wav").items():
        written = feature_csv.read(next(Path("features").rglob(f"*{name}.csv")), array.shape[1])
        np.testing.assert_allclose(array, written, rtol=1e-5, atol=1e-5)


def test_a_package_describes_its_model_and_has_the_same_bytes_each_time(package: Path) -> None:
    before = package.read_bytes()
    assert pack.main(["genres.zip"]) == 0
    assert package.read_bytes() == before
    with zipfile.ZipFile(package) as archive:
        text = archive.read("README.md").decode()
    assert "genres high, low" in text and "16 songs" in text and "genre query --models genres.zip song.mp3" in text


@pytest.mark.parametrize("change", ["byte", "bomb", "missing", "more", "../more", "/more", "format", "cut", "no file"])
def test_a_changed_package_is_refused_by_name(
    package: Path, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genre.package.MAX_BYTES", 1 << 20)
    with zipfile.ZipFile(package) as archive:
        files = {name: archive.read(name) for name in archive.namelist()}
    manifest, onnx = json.loads(files["manifest.json"]), "model_weights/stats_svm_model.onnx"
    if change == "byte":
        files[onnx] = files[onnx][:-1] + b"x"
    elif change == "bomb":
        files[onnx] = bytes(1 << 24)
        manifest["sha256"][onnx] = hashlib.sha256(files[onnx]).hexdigest()
    elif change == "missing":
        del files[onnx]
    elif change == "format":
        manifest["format"] = 2
    elif "more" in change:
        files[change] = b"more"
        manifest["sha256"] |= {} if change == "more" else {change: hashlib.sha256(b"more").hexdigest()}
    changed = tmp_path / "changed.zip"
    with zipfile.ZipFile(changed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (files | {"manifest.json": json.dumps(manifest).encode()}).items():
            archive.writestr(name, data)
    if change == "cut":
        changed.write_bytes(changed.read_bytes()[:-100])
    elif change == "no file":
        changed.unlink()
    with pytest.raises(ModelError, match=r"changed\.zip: is not a complete|changed\.zip is neither"):
        Project(changed)
    assert not (tmp_path.parent / "more").exists()
