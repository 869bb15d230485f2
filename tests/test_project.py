"""A project from Python, and packages of models."""

from __future__ import annotations

import hashlib
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import yaml

from genre import Project
from genre.audio import ffmpeg
from genre.errors import AudioError, GenreError, ModelError, ParamsError, SearchError
from genre.features import csv as feature_csv
from genre.features.numpy_engine import compute
from genre.files import sha256, write_json
from genre.models.embeddings import Batch
from genre.paths import Paths
from stages import extract, pack, query
from tests.made import make_song, save_svm, write_params


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
            for wrong, rate in ((np.stack([samples, samples]), 22_050), (samples, 0)):
                with pytest.raises(AudioError, match="must be mono"):
                    project.query_samples(wrong, rate)
    assert not project.paths.root.exists()  # the extracted package


def test_the_features_are_those_of_extract(package: Path) -> None:
    assert extract.main(["song.wav", "--out", "features", "--engine", "numpy"]) == 0
    for name, array in Project().features("song.wav").items():
        written = feature_csv.read(next(Path("features").rglob(f"*{name}.csv")), array.shape[1])
        np.testing.assert_allclose(array, written, rtol=1e-5, atol=1e-5)


def test_a_package_describes_its_model_has_no_secret_and_the_same_bytes_each_time(package: Path) -> None:
    before = package.read_bytes()
    write_params(package.parent, index__uri="http://user:secret@host:19530", serve__api_key="OTHER")
    assert pack.main(["genres.zip"]) == 0
    assert package.read_bytes() == before
    files = _files(package)
    assert yaml.safe_load(files["params.yaml"]).keys() == {"dataset", "musicnn", "index", "search", "query"}
    readme = files["README.md"].decode()
    assert "# Genres high, low" in readme and "16 songs" in readme and "It was not evaluated." in readme
    write_json(Paths().scores / "stats_svm.json", {"n": 2, "accuracy": 0.5, "low": 0.1, "high": 0.9})
    write_json(Paths().evaluated, {name: sha256(Paths().card(name)) for name in ("ensemble", "stats_svm")})
    for text in ("Of 2 test songs it predicted 50.0 % right", "It was not evaluated."):
        assert pack.main(["genres.zip"]) == 0
        assert text in _files(package)["README.md"].decode()
        save_svm(package.parent, default=True, name="tiny", songs=15)  # other models than those of the scores
    with pytest.raises(SearchError, match=r"only an index in vectors/songs\.db"):
        pack.main(["--index", "genres.zip"])
    with pytest.raises(GenreError, match=r"params\.yaml: the name must end in \.zip"):
        pack.main(["params.yaml"])


def test_a_package_reaches_no_server_and_an_index_that_it_lacks_is_named(package: Path, tmp_path: Path) -> None:
    with Project(package) as project, pytest.raises(SearchError, match=r"genres\.zip has no index: `genre pack --i"):
        project.identify("song.wav")
    files = _files(package)
    files |= {"params.yaml": files["params.yaml"].replace(b"vectors/songs.db", b"http://localhost:1")}
    _write(changed := tmp_path / "changed.zip", files, files)
    with Project(changed) as project, pytest.raises(ParamsError, match=r"index\.uri is 'http://localhost:1'"):
        project.similar("song.wav")


@pytest.mark.parametrize("change", ["byte", "bomb", "yaml", "less", "new", "../new", "/new", "format", "cut", "gone"])
def test_a_changed_package_is_refused_by_name(
    package: Path, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genre.package.MAX_BYTES", 1 << 20)
    files = _files(package)
    listed, onnx, changed = dict(files), "model_weights/stats_svm_model.onnx", tmp_path / "changed.zip"
    if change == "byte":
        files[onnx] = files[onnx][:-1] + b"x"
    elif change == "bomb":
        files[onnx] = listed[onnx] = bytes(1 << 24)
    elif change == "yaml":
        files["params.yaml"] = listed["params.yaml"] = b"[" * 100_000  # would crash libyaml
    elif change == "less":
        del files[onnx]
    elif "new" in change:
        files[change] = b"new"
        listed |= {} if change == "new" else {change: b"new"}
    _write(changed, files, listed, number=2 if change == "format" else 1)
    if change == "cut":
        changed.write_bytes(changed.read_bytes()[:-100])
    elif change == "gone":
        changed.unlink()
    with pytest.raises(ModelError, match=r"changed\.zip: is not a complete|changed\.zip is not the folder"):
        Project(changed)
    assert not (tmp_path.parent / "new").exists()


def _files(package: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(package) as archive:
        return {name: archive.read(name) for name in archive.namelist() if name != "manifest.json"}


def _write(path: Path, files: dict[str, bytes], listed: dict[str, bytes], number: int = 1) -> None:
    """Write a package of files with the digests of others."""
    manifest = {"format": number, "sha256": {name: hashlib.sha256(data).hexdigest() for name, data in listed.items()}}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in (files | {"manifest.json": json.dumps(manifest).encode()}).items():
            archive.writestr(name, data)
