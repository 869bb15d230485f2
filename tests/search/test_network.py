"""The fingerprint network: its windows, what it learned, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from genre.errors import SearchError
from genre.models.cards import available, model_files
from genre.search import network
from genre.search.network import FRAMES_PER_S, N_MELS, SAMPLE_RATE, Network
from stages import fingerprint, index_network
from tests.search.conftest import Music

CARD = Path("model_architecture/fingerprint_model_card.json")


def test_the_columns_are_level_and_then_silent() -> None:
    tone = np.zeros(2 * SAMPLE_RATE, np.float32)
    tone[:SAMPLE_RATE] = 0.5 * np.sin(2 * np.pi * 1000 * np.arange(SAMPLE_RATE) / SAMPLE_RATE)
    columns = network.columns(tone)
    assert columns.shape == ((len(tone) - network.N_FFT) // network.HOP + 1, N_MELS)
    assert len(set(columns[: FRAMES_PER_S - 6].argmax(axis=1))) == 1
    assert np.all(columns[-10:] == columns.max() - network.RANGE)


def test_vectors_have_unit_length_and_one_for_every_hop(network_project: Path, music: Music) -> None:
    its_network = Network.load()
    vectors = its_network.embed(music(5, 10.0, SAMPLE_RATE))
    n_frames = (10 * SAMPLE_RATE - network.N_FFT) // network.HOP + 1
    assert vectors.shape == ((n_frames - its_network.card.window_frames) // its_network.card.hop_frames + 1, 128)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-5)
    assert its_network.seconds(4) == 1.0


@pytest.mark.parametrize("n_samples", [1, 500, SAMPLE_RATE])
def test_a_recording_shorter_than_a_window_has_one_vector(n_samples: int, network_project: Path) -> None:
    assert Network.load().embed(np.ones(n_samples, np.float32)).shape == (1, 128)


def test_noise_moves_a_window_less_than_another_place_does(network_project: Path, music: Music) -> None:
    song = music(77, 12.0, SAMPLE_RATE)
    noise = np.random.default_rng(0).standard_normal(len(song)).astype(np.float32) * song.std() * 0.5
    its_network = Network.load()
    similarity = its_network.embed(song) @ its_network.embed(song + noise).T
    assert np.mean(similarity.argmax(axis=1) == np.arange(len(similarity))) > 0.9


def test_training_again_gives_the_same_vectors(network_project: Path, music: Music) -> None:
    song = music(5, 6.0, SAMPLE_RATE)
    before = Network.load().embed(song)
    assert fingerprint.main([]) == 0
    np.testing.assert_array_equal(Network.load().embed(song), before)


def test_the_network_is_no_model_of_genres(network_project: Path) -> None:
    assert available() == []


def test_without_a_network_it_is_told_what_trains_it(project: Path) -> None:
    with pytest.raises(SearchError, match=r"identify/dvc\.yaml:fingerprint"):
        index_network.main([])


def test_a_network_of_another_front_end_is_refused(network_project: Path) -> None:
    described = json.loads(CARD.read_text())
    described["front_end"]["hop"] = 256
    CARD.write_text(json.dumps(described))
    with pytest.raises(SearchError, match="trained with hop 256, this version takes 250"):
        Network.load()


def test_files_that_do_not_belong_together_are_refused(network_project: Path) -> None:
    model_files(network.MODEL).onnx.write_bytes(b"another")
    with pytest.raises(SearchError, match="is not the file that"):
        Network.load()


def test_a_damaged_card_is_refused(network_project: Path) -> None:
    CARD.write_text('{"dimension": 128}')
    with pytest.raises(SearchError, match="is damaged"):
        Network.load()
