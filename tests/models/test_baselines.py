"""Baselines learn, are calibrated on whole songs, and their ONNX files compute what their libraries compute."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from genre.errors import ModelError
from genre.features.arrays import VectorSet
from genre.models import baselines, onnx
from tests.models.conftest import embeddings_of_genres

TOLERANCE = 1e-6


def of_one_chunk_per_song(data: VectorSet) -> VectorSet:
    names = [str(row) for row in range(len(data.labels))]
    return replace(data, songs=names, groups=names)


@pytest.mark.slow
def test_every_baseline_learns_and_its_probabilities_sum_to_1() -> None:
    vectors, data = embeddings_of_genres()
    for name in baselines.BASELINES:
        trained = baselines.train(name, vectors, data)
        probabilities = baselines.predict(trained.onnx, vectors)
        assert (probabilities.argmax(axis=1) == data.labels).all(), name
        np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["stats_svm", "musicnn_logistic", "musicnn_xgboost"])
def test_the_same_seed_gives_the_same_bytes(name: str) -> None:
    vectors, data = embeddings_of_genres()
    first, second = (baselines.train(name, vectors, data, seed=3) for _ in range(2))
    assert first.onnx == second.onnx
    assert first.calibration == second.calibration


@pytest.mark.parametrize("n_genres", [2, 3])
@pytest.mark.parametrize("classifier", ["svm", "logistic", "xgboost", "knn"])
def test_the_onnx_file_agrees_with_the_library_of_the_classifier(classifier: str, n_genres: int) -> None:
    vectors, data = embeddings_of_genres(spread=4.0)  # the genres overlap
    labels = data.labels
    vectors[:, 7] = 3.0  # a constant column
    rows = labels < n_genres
    test = vectors + np.random.default_rng(1).normal(0, 2, vectors.shape).astype(np.float32)
    if classifier == "knn":
        neighbours = KNeighborsClassifier(baselines.NEIGHBOURS, weights="distance", metric="cosine")
        shares = make_pipeline(StandardScaler(), neighbours).fit(vectors[rows], labels[rows]).predict_proba(test)
        expected = baselines.NEIGHBOURS * shares + baselines.PRIOR_VOTES / n_genres
        expected /= expected.sum(axis=1, keepdims=True)
    elif classifier != "xgboost":
        decision = getattr(baselines, classifier)(0).fit(vectors[rows], labels[rows]).decision_function(test)
        decision = decision / 2 if (classifier, n_genres) == ("logistic", 2) else decision  # the logistic function
        scores = np.stack([-decision, decision], axis=1) if n_genres == 2 else decision
        expected = np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True)
    else:
        pytest.importorskip("xgboost")
        expected = baselines.xgboost(5).fit(vectors[rows], labels[rows]).predict_proba(test)
    graph = baselines.CLASSIFIERS[classifier].train(vectors[rows], labels[rows], 5)
    np.testing.assert_allclose(
        baselines.predict(graph, test), expected, atol=1e-5 if classifier == "knn" else TOLERANCE
    )
    assert len(np.unique(expected.argmax(axis=1))) == n_genres


@pytest.mark.parametrize("name", ["knn", "musicnn_logistic"])
def test_with_copies_at_other_levels_the_prediction_hardly_depends_on_the_level(name: str) -> None:
    vectors, data = embeddings_of_genres(spread=4.0)
    data = of_one_chunk_per_song(data)
    level = np.float32(4.0) * (np.arange(vectors.shape[1]) < 40).astype(np.float32)
    vectors += data.labels[:, np.newaxis].astype(np.float32) * level  # the genres differ in level, too
    changes = []
    for copies in (None, np.concatenate([vectors + 2 * level, vectors - 2 * level])):
        graph = baselines.train(name, vectors, data, copies=copies).onnx
        louder = baselines.predict(graph, vectors + 2 * level)
        changes.append(np.abs(louder - baselines.predict(graph, vectors)).max())
    assert changes[1] < changes[0] / 2


def test_the_copies_of_a_song_are_in_its_validation_fold() -> None:
    vectors, data = embeddings_of_genres(spread=100.0)  # only a copy of the chunk gives its genre away
    validation = baselines.train("knn", vectors, of_one_chunk_per_song(data), copies=vectors).validation
    assert sorted(validation.rows) == list(range(len(vectors)))
    assert (validation.probabilities.argmax(axis=1) == data.labels[validation.rows]).mean() < 0.6


def test_a_genre_without_chunks_has_a_probability_of_0_and_keeps_its_place() -> None:
    vectors, data = embeddings_of_genres()
    labels = data.labels
    six = VectorSet({}, 2 * labels, data.songs, list("abcdef"), data.groups)
    trained = baselines.train("stats_svm", vectors, six)
    probabilities = baselines.predict(trained.onnx, vectors)
    assert probabilities.shape == (len(labels), 6)
    assert (probabilities[:, [1, 3, 5]] == 0).all()
    assert (probabilities.argmax(axis=1) == labels * 2).all()
    assert trained.validation.probabilities.shape[1] == 6


def test_vectors_of_another_length_are_refused() -> None:
    vectors, data = embeddings_of_genres()
    graph = baselines.classifier("stats_svm", vectors, data.labels, 3)
    with pytest.raises(ModelError, match="cannot be run"):
        onnx.run(onnx.session(graph), {onnx.VECTOR: vectors[:, 1:]})
