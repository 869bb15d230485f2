"""A network is one graph from raw features to probabilities, the same in Keras and ONNX."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from genre.models import networks, onnx
from tests.models.conftest import train_params

keras = pytest.importorskip("keras")

SHAPES = {"mfcc_coefficients": (96, 20), "spectral-contrast_peaks": (192, 7), "spectral-contrast_valleys": (192, 7)}
PAIRS = [*((model, "conv1d") for model in networks.MODELS), ("merged", "lstm2016")]


def features_of(model: Any, n: int, seed: int = 0) -> dict[str, npt.NDArray[np.float32]]:
    """Return random features for the inputs of a network, with magnitudes of several sizes for the contrast."""
    rng = np.random.default_rng(seed)
    return {
        i.name: (
            rng.normal(0, 3, (n, *i.shape[1:])) if "mfcc" in i.name else 10 ** rng.normal(-1, 1, (n, *i.shape[1:]))
        ).astype(np.float32)
        for i in model.inputs
    }


@pytest.fixture(scope="module", params=PAIRS, ids="-".join)
def model(request: pytest.FixtureRequest) -> Any:
    name, architecture = request.param
    keras.utils.set_random_seed(1)
    built = networks.build(name, SHAPES, 5, train_params(architecture=architecture, members=2, filters=8))
    networks.standardise(built, features_of(built, 6, seed=1))
    return built


@pytest.mark.slow
def test_a_model_is_read_back_from_its_json_and_weights(model: Any, tmp_path: Path) -> None:
    model.save_weights(tmp_path / "m.weights.h5")
    restored = keras.models.model_from_json(model.to_json())
    restored.load_weights(tmp_path / "m.weights.h5")
    features = features_of(model, 3)
    np.testing.assert_array_equal(restored.predict(features, verbose=0), model.predict(features, verbose=0))


@pytest.mark.slow
def test_onnx_agrees_with_keras_for_any_number_of_chunks_and_has_the_same_bytes_each_time(model: Any) -> None:
    """`dvc.lock` holds the digest of the file."""
    graph = onnx.from_keras(model)
    assert graph == onnx.from_keras(model)
    session = onnx.session(graph)
    assert {i.name for i in session.get_inputs()} == set(networks.MODELS[model.name])
    for n in (1, 5):
        features = features_of(model, n)
        np.testing.assert_allclose(session.run(None, features)[0], model.predict(features, verbose=0), atol=1e-5)


def test_noise_and_silence_give_probabilities(model: Any) -> None:
    noise = features_of(model, 4)
    silence = {feature: np.zeros_like(array) for feature, array in noise.items()}
    for features in (noise, silence):
        np.testing.assert_allclose(model.predict(features, verbose=0).sum(axis=1), np.ones(4), atol=1e-5)


@pytest.mark.parametrize("architecture", ["conv1d", "lstm2016"])
def test_frames_columns_and_genres_are_those_of_the_data(architecture: str) -> None:
    shapes = dict(zip(SHAPES, [(131, 13), (260, 4), (260, 4)], strict=True))
    built = networks.build("merged", shapes, 3, train_params(architecture=architecture))
    assert built.predict(features_of(built, 2), verbose=0).shape == (2, 3)


def test_lstm2016_has_the_layers_of_2016() -> None:
    built = networks.build("merged", SHAPES, 10, train_params(architecture="lstm2016"))
    layers = built.get_layer("members").layers
    convolutions = [(x.filters, x.kernel_size[0], x.strides[0]) for x in layers if isinstance(x, keras.layers.Conv1D)]
    assert sorted(convolutions) == [(20, 4, 1), (100, 3, 4), (100, 4, 1)]
    assert sorted(x.units for x in layers if isinstance(x, keras.layers.LSTM)) == [100, 300]
    assert [x.units for x in layers if isinstance(x, keras.layers.Dense)] == [1000, 10]
    assert {x.activation.__name__ for x in layers if isinstance(x, keras.layers.Conv1D)} == {"sigmoid"}
