"""Baselines: they learn, say how sure they are, keep songs together, and are read back without running code."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from genre.audio import chunks, manifest
from genre.audio.manifest import Row
from genre.errors import ModelError, VectorError
from genre.features import arrays as vectors
from genre.features.numpy_engine import compute
from genre.features.settings import Settings
from genre.features.transforms import TRANSFORMS
from genre.models import baselines, embeddings, ensemble
from genre.models.baselines import BASELINES, Fitted
from genre.models.classifiers import Svm
from stages import baselines as stage
from tests.conftest import write_params

GENRES = ["folk", "jazz", "rock"]
N_SONGS, N_CHUNKS = 6, 2  # songs of a genre, chunks of a song
SETTINGS = Settings(22050, 30.0, 10.0).to_dict()


def made_up(spread: float = 1.0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64], list[str]]:
    """Vectors, labels and songs of genres that lie apart; `statistics` is what they pass for."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(len(GENRES)), N_SONGS * N_CHUNKS)
    songs = [f"{GENRES[label]}/s{i // N_CHUNKS % N_SONGS}" for i, label in enumerate(labels)]
    centres = rng.normal(0, 1, (len(GENRES), 287))
    return (centres[labels] + rng.normal(0, spread, (len(labels), 287))).astype(np.float32), labels, songs


def fit(name: str, **options: Any) -> Fitted:
    values, labels, songs = made_up()
    return baselines.fit(name, values, labels, songs, n_genres=len(GENRES), embedding="statistics", **options)


def saved(name: str, root: Path) -> Fitted:
    fitted = fit(name)
    baselines.save(fitted, root, genres=GENRES, settings=SETTINGS, dataset={"name": "made", "songs": 18, "chunks": 36})
    return fitted


def change_card(root: Path, name: str = "stats_svm", **changes: Any) -> None:
    path = baselines.card_path(name, root)
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_classifier(root: Path, name: str, data: bytes) -> None:
    """Put another classifier in its place, as somebody would who knows about the card."""
    baselines.classifier_path(name, root).write_bytes(data)
    change_card(root, name, sha256=hashlib.sha256(data).hexdigest())


def arrays(**changed: npt.NDArray[Any]) -> bytes:
    """Return the file of a support vector machine in which some arrays are others."""
    stream = io.BytesIO()
    with np.load(io.BytesIO(fit("stats_svm").classifier.to_bytes())) as found:
        np.savez(stream, **{**found, **changed})
    return stream.getvalue()


@pytest.mark.parametrize("name", BASELINES)
def test_a_baseline_learns_and_answers_the_same_when_read_back(name: str, tmp_path: Path) -> None:
    if BASELINES[name].classifier == "xgboost":
        pytest.importorskip("xgboost")
    values, labels, _ = made_up()
    fitted = saved(name, tmp_path)
    probabilities = fitted.predict(values)
    assert probabilities.shape == (len(labels), len(GENRES))
    assert (probabilities.argmax(axis=1) == labels).all()
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)
    loaded = baselines.load(name, tmp_path)
    assert np.array_equal(loaded.fitted.predict(values), probabilities)
    assert loaded.card.genres == GENRES
    assert loaded.card.feature_settings == Settings(22050, 30.0, 10.0)
    assert baselines.available(tmp_path) == [name]


@pytest.mark.parametrize("name", ["stats_svm", "knn", "musicnn_xgboost"])
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    if name == "musicnn_xgboost":
        pytest.importorskip("xgboost")
    first, second = fit(name, seed=3), fit(name, seed=3)
    assert first.classifier.to_bytes() == second.classifier.to_bytes()
    assert first.temperature == second.temperature


def test_songs_are_left_out_whole_and_leave_every_genre_behind() -> None:
    _, labels, songs = made_up()
    labels, songs = np.append(labels, 3), [*songs, "pop/only"]
    left_out: list[int] = []
    for rows in baselines._folds(labels, songs, np.random.default_rng(0)):
        rest = np.setdiff1d(np.arange(len(labels)), rows)
        assert not {songs[i] for i in rows} & {songs[i] for i in rest}
        assert set(labels[rest]) == {0, 1, 2, 3}
        left_out += rows.tolist()
    assert sorted(left_out) == list(range(len(labels) - 1))  # each once, but for the only song of its genre


def test_vague_vectors_give_vague_answers() -> None:
    def surest(spread: float) -> float:
        values, labels, songs = made_up(spread)
        training = np.array([not song.endswith("s0") for song in songs])
        kept = [song for song, keep in zip(songs, training, strict=True) if keep]
        fitted = baselines.fit("stats_svm", values[training], labels[training], kept, n_genres=3)
        return float(fitted.predict(values[~training]).max(axis=1).mean())

    assert surest(spread=10.0) < 0.6 < surest(spread=0.5)


def test_a_genre_without_chunks_is_impossible_and_keeps_its_place() -> None:
    values, labels, songs = made_up()
    fitted = baselines.fit("stats_svm", values, labels * 2, songs, n_genres=6)
    probabilities = fitted.predict(values)
    assert probabilities.shape == (len(labels), 6)
    assert (probabilities[:, [1, 3, 5]] == 0).all()
    assert (probabilities.argmax(axis=1) == labels * 2).all()


def test_two_genres_are_enough() -> None:
    values, labels, songs = made_up()
    kept = labels < 2
    fitted = baselines.fit("stats_svm", values[kept], labels[kept], songs[: kept.sum()], n_genres=2)
    assert (fitted.predict(values[kept]).argmax(axis=1) == labels[kept]).all()


def test_what_does_not_fit_together_is_refused() -> None:
    values, labels, songs = made_up()
    with pytest.raises(VectorError, match="shape"):
        baselines.fit("stats_svm", values[:, 1:], labels, songs, n_genres=3)
    with pytest.raises(VectorError, match="songs"):
        baselines.fit("stats_svm", values, labels, songs[1:], n_genres=3)
    with pytest.raises(VectorError, match="two genres"):
        baselines.fit("stats_svm", values, labels * 0, songs, n_genres=3)
    with pytest.raises(VectorError, match="no numbers"):
        baselines.fit("stats_svm", values * np.float32("nan"), labels, songs, n_genres=3)
    with pytest.raises(ModelError, match="stats_svm, knn"):
        baselines.fit("svm", values, labels, songs, n_genres=3)
    with pytest.raises(ModelError, match="287 values"):
        fit("stats_svm").predict(values[:, 1:])


def test_a_baseline_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"python -m stages\.baselines knn"):
        baselines.load("knn", tmp_path)


def test_files_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    saved("stats_svm", tmp_path)
    path = baselines.classifier_path("stats_svm", tmp_path)
    path.write_bytes(path.read_bytes() + b" ")
    with pytest.raises(ModelError, match="not the file"):
        baselines.load("stats_svm", tmp_path)
    path.unlink()
    with pytest.raises(ModelError, match="not there"):
        baselines.load("stats_svm", tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"settings": SETTINGS | {"sample_rate": 44100}}, "digest"),
        ({"embedding": {"name": "statistics", "n_values": 287, "version": 0}}, "this version makes"),
        ({"embedding": {"name": "sound", "n_values": 287, "version": 1}}, "no embedding sound"),
        ({"classifier": "knn"}, "not the card of stats_svm"),
        ({"classes": [0, 1, 7]}, "not the card of stats_svm"),
        ({"training": {}}, "damaged"),
        ({"more": 1}, "damaged"),
    ],
)
def test_a_card_of_something_else_is_refused(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    saved("stats_svm", tmp_path)
    change_card(tmp_path, **change)
    with pytest.raises(ModelError, match=message):
        baselines.load("stats_svm", tmp_path)


@pytest.mark.parametrize("n_genres", [2, 3])
def test_the_support_vector_machine_is_that_of_scikit_learn(n_genres: int) -> None:
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import SVC

    values, labels, _ = made_up(spread=4.0)  # so that some are between the genres
    values[:, 7] = 3.0  # a column that never changes
    kept = labels < n_genres
    asked = values + np.random.default_rng(1).normal(0, 2, values.shape).astype(np.float32)
    theirs = make_pipeline(StandardScaler(), SVC(C=1.0)).fit(values[kept], labels[kept]).decision_function(asked)
    expected = np.stack([-theirs, theirs], axis=1) if n_genres == 2 else theirs
    machine = Svm.from_bytes(Svm.fit(values[kept], labels[kept], seed=0).to_bytes())
    np.testing.assert_allclose(machine.scores(asked), expected, atol=1e-5)
    assert len(np.unique(expected.argmax(axis=1))) == n_genres


@pytest.mark.parametrize(("name", "message"), [("stats_svm", "no support vector machine"), ("knn", "trusted")])
def test_a_pickle_is_never_read(name: str, message: str, tmp_path: Path) -> None:
    saved(name, tmp_path)
    change_classifier(tmp_path, name, pickle.dumps({"a": 1}))
    with pytest.raises(ModelError, match=message):
        baselines.load(name, tmp_path)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"support": np.array([print], dtype=object)}, "no support vector machine"),
        ({"code": np.zeros(1)}, "no support vector machine"),
        ({"support": np.zeros((3, 287))}, "do not fit together"),
        ({"coefficients": np.zeros((1, 1))}, "do not fit together"),
    ],
)
def test_arrays_of_something_else_are_refused(
    changed: dict[str, npt.NDArray[Any]], message: str, tmp_path: Path
) -> None:
    saved("stats_svm", tmp_path)
    change_classifier(tmp_path, "stats_svm", arrays(**changed))
    with pytest.raises(ModelError, match=message):
        baselines.load("stats_svm", tmp_path)


def test_code_in_a_classifier_is_never_run(tmp_path: Path) -> None:
    import skops.io
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import FunctionTransformer

    saved("knn", tmp_path)
    change_classifier(tmp_path, "knn", skops.io.dumps(make_pipeline(FunctionTransformer(subprocess.run))))
    with pytest.raises(ModelError, match="trusted"):
        baselines.load("knn", tmp_path)


def test_another_estimator_is_refused(tmp_path: Path) -> None:
    import skops.io
    from sklearn.svm import SVC

    saved("knn", tmp_path)
    change_classifier(tmp_path, "knn", skops.io.dumps(SVC()))
    with pytest.raises(ModelError, match="holds a SVC"):
        baselines.load("knn", tmp_path)


def noise(seconds: float = 3.0) -> npt.NDArray[np.int16]:
    return np.random.default_rng(1).normal(0, 3000, round(seconds * 22050)).astype(np.int16)


def test_statistics_do_not_know_the_direction_of_time() -> None:
    features = compute(noise(), 22050)
    backwards = {feature: values[::-1] for feature, values in features.items()}
    values = embeddings.statistics(features)
    assert values.shape == (embeddings.get("statistics").n_values,)
    np.testing.assert_allclose(embeddings.statistics(backwards), values, rtol=1e-5, atol=1e-6)


def test_statistics_of_a_constant_are_the_constant_and_zeros() -> None:
    features = {t.feature: np.full((100, t.columns), 2.0, np.float32) for t in TRANSFORMS.values()}
    mfcc = embeddings.statistics(features)[: 7 * 20].reshape(7, 20)
    np.testing.assert_allclose(mfcc, np.array([2, 0, 2, 2, 2, 0, 0], np.float32)[:, np.newaxis].repeat(20, axis=1))


def test_silent_frames_do_not_move_the_mfcc() -> None:
    features = compute(noise(), 22050)
    padded = features | {"mfcc_coefficients": np.pad(features["mfcc_coefficients"], ((0, 50), (0, 0)))}
    np.testing.assert_array_equal(embeddings.statistics(padded), embeddings.statistics(features))


def test_all_silence_and_a_single_frame_have_statistics_too() -> None:
    assert np.isfinite(embeddings.statistics(compute(np.zeros(66150, np.int16), 22050))).all()
    single = {t.feature: np.ones((1, t.columns), np.float32) for t in TRANSFORMS.values()}
    assert np.isfinite(embeddings.statistics(single)).all()


def test_librosa_ranges_are_in_order() -> None:
    pytest.importorskip("librosa")
    values = embeddings.librosa_ranges(noise(), 22050)
    assert values.shape == (498,) == (embeddings.get("librosa").n_values,)
    low, mean, high = values[:60].reshape(3, 20)  # of the MFCC
    assert (low < mean).all()
    assert (mean < high).all()


def test_only_what_an_embedding_is_made_of_is_read() -> None:
    def never() -> Iterator[Any]:
        pytest.fail("was read")
        yield

    features = compute(noise(), 22050)
    stacked = {feature: np.stack([values, values]) for feature, values in features.items()}
    found = embeddings.embed("statistics", features=embeddings.each_chunk(stacked), audio=never())
    assert np.array_equal(found, [embeddings.statistics(features)] * 2)


def test_a_loaded_baseline_answers_from_features_or_from_samples(tmp_path: Path) -> None:
    saved("stats_svm", tmp_path)
    loaded = baselines.load("stats_svm", tmp_path)
    features = {feature: values[np.newaxis] for feature, values in compute(noise(), 22050).items()}
    assert not loaded.needs_samples
    assert loaded.predict(features).shape == (1, 3)
    change_card(tmp_path, embedding=embeddings.describe("librosa"))
    loaded = baselines.load("stats_svm", tmp_path)
    assert loaded.needs_samples
    with pytest.raises(ModelError, match="samples"):
        loaded.predict(features)


def test_the_stage_trains_what_is_named_and_removes_the_rest(project: Path) -> None:
    rows = made_data_set()
    stale = baselines.classifier_path("musicnn_xgboost")
    stale.parent.mkdir(parents=True)
    stale.write_bytes(b"")
    write_params(project, baselines__models=["stats_svm", "knn"])
    assert stage.main([]) == 0
    assert baselines.available() == ["stats_svm", "knn"]
    assert not stale.exists()
    loaded = baselines.load("stats_svm")
    assert loaded.card.genres == ["high", "low"]
    assert loaded.card.dataset == {"name": "tiny", "songs": len(rows), "chunks": len(rows)}
    assert ensemble.read_validation(Path("training/baselines/stats_svm/validation.csv")).probabilities.shape[1] == 2
    write_params(project, baselines__models=["svm"])
    with pytest.raises(ModelError, match="no baseline svm"):
        stage.main([])


def test_the_stage_refuses_vectors_of_other_chunks(project: Path) -> None:
    rows = made_data_set()
    manifest.write(Path("chunks"), rows[::-1])
    write_params(project, baselines__models=["librosa_dense"])
    with pytest.raises(VectorError, match="vectorize"):
        stage.main([])


def made_data_set() -> list[Row]:
    """Write chunks/ and pickled_vectors/ of six songs, of noise that is loud or quiet."""
    folder, rng, found = Path("pickled_vectors"), np.random.default_rng(2), []
    rows = [
        Row(f"train/{g}/{i}-000.wav", f"{i}", g, "train", 0.0, 3.0, "dataset/t/x", "")
        for g in ("high", "low")
        for i in "abc"
    ]
    for row in rows:
        level = 9000 if row.genre == "high" else 90
        samples = rng.normal(0, level, 66150).astype(np.int16)
        chunks.write(Path("chunks") / row.chunk, samples, sample_rate=22050)
        found.append(compute(samples, 22050))
    manifest.write(Path("chunks"), rows)
    songs: dict[vectors.Split, list[str]] = {"train": [row.song_id for row in rows], "test": []}
    for transform in TRANSFORMS.values():
        vectors.write_labels(folder, transform, "train", [0, 0, 0, 1, 1, 1], 2)
        with vectors.VectorWriter(folder, transform, "train", len(rows)) as writer:
            for row, features in zip(rows, found, strict=True):
                writer.add(features[transform.feature], row.chunk)
    vectors.write_names(folder, ["high", "low"], songs, Settings(22050, 3.0, 1.0))
    return rows


def test_the_command_starts_without_heavy_libraries() -> None:
    code = (
        "import stages.baselines, sys;"
        "print({'sklearn', 'tensorflow', 'keras', 'xgboost', 'librosa', 'skops', 'onnxruntime'} & set(sys.modules))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "set()"
