"""Genre probabilities of chunks from a trained model: embedding, if any, then ONNX, then calibration."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np

from genre.cache import Cache
from genre.errors import ModelError
from genre.models import cards, embeddings, onnx
from genre.models.calibration import Probabilities, calibrate
from genre.models.cards import ENSEMBLE, WITHOUT_ENSEMBLE, ModelCard
from genre.models.embeddings import Batch, Features
from genre.paths import Paths

Graph = Callable[[Batch], Probabilities]  # a model without its calibration

TOLERANCE = 1e-3  # of the sum of a model's probabilities


class Predictor(NamedTuple):
    """A model that predicts the genre probabilities of chunks; threads may share it."""

    card: ModelCard
    graph: Future[Graph]  # may still be loading

    def predict(self, batch: Batch) -> Probabilities:
        """Return genre probabilities [shape=(chunks, genres)].

        Audio, at the card's sample rate, is needed for embeddings of audio that the batch lacks; features that the
        model does not use are ignored. Raises ModelError if the model cannot be loaded or a feature has another shape.
        """
        return calibrate(self.graph.result()(batch), self.card.calibration)


def load(name: str | None, paths: Paths, *, cache: Cache | None = None, wait: bool = True) -> Predictor:
    """Load a model by name; None is the default, see `default_card`.

    Embeddings computed from audio are cached in `cache`. With `wait` False the model is loaded in the background, and
    errors after reading its card are raised by `predict`.

    Raises ModelError if the model is missing, damaged or made with other settings than this version computes.
    """
    card = default_card(paths) if name is None else cards.read(name, paths)
    executor = ThreadPoolExecutor(1)
    graph = executor.submit(_load, card, paths, cache)
    executor.shutdown(wait=wait)
    if wait:
        graph.result()
    return Predictor(card, graph)


def default_card(paths: Paths) -> ModelCard:
    """Return the card of the default model: the ensemble's choice, or `merged` without an ensemble."""
    name = cards.read(ENSEMBLE, paths).default if ENSEMBLE in cards.available(paths) else WITHOUT_ENSEMBLE
    return cards.read(str(name), paths)


def _load(card: ModelCard, paths: Paths, cache: Cache | None) -> Graph:
    if card.model == ENSEMBLE:
        return _average(card, [load(name, paths, cache=cache) for name in card.models])
    session = _session(card, paths)
    if card.embedding is None:
        return lambda batch: _run(card, session, {f: batch.features[f] for f in card.inputs})
    embedder = embeddings.load(card.embedding["name"], paths, cache=cache)
    if card.embedding != (computed := embedder.describe()):
        fault = f"trained on the embedding {card.embedding}, this version computes {computed}"
        raise ModelError(f"{paths.card(card.model)}: {fault}: run `dvc repro`")
    return lambda batch: _run(card, session, {onnx.VECTOR: batch.embedding(embedder)})


def _average(card: ModelCard, predictors: Sequence[Predictor]) -> Graph:
    """Return the mean of several models' calibrated probabilities."""
    for member in (predictor.card for predictor in predictors):
        is_same = member.dataset.get("vectors") == card.dataset.get("vectors")
        if not is_same or member.genres != card.genres or member.settings != card.settings:
            raise ModelError(f"{member.model} was trained on other vectors than the ensemble: run `dvc repro`")

    def predict(batch: Batch) -> Probabilities:
        parts = [predictor.predict(batch) for predictor in predictors]
        return np.asarray(np.mean(parts, axis=0, dtype=np.float64), np.float32)

    return predict


def _session(card: ModelCard, paths: Paths) -> Any:
    """Return the session of a model's ONNX file, after a check against its card."""
    path = paths.onnx(card.model)
    session = onnx.session(path, card.onnx_sha256)
    names = {node.name for node in session.get_inputs()}
    outputs = session.get_outputs()
    if names != set(card.inputs or [onnx.VECTOR]) or [node.shape[1:] for node in outputs] != [[len(card.genres)]]:
        raise ModelError(f"{path}: inputs or outputs differ from those in its card: run `dvc repro`")
    return session


def _run(card: ModelCard, session: Any, inputs: Features) -> Probabilities:
    """Return the outputs for each chunk, run one at a time so that they do not depend on the other chunks."""
    rows, name = range(len(next(iter(inputs.values())))), f"the model {card.model}"
    parts = [onnx.run(session, {key: values[[row]] for key, values in inputs.items()}, name) for row in rows]
    for part in parts:
        in_range = part.shape == (1, len(card.genres)) and np.abs(part - 0.5).max() <= 0.5 + TOLERANCE
        if not in_range or abs(part.sum() - 1) > TOLERANCE:
            raise ModelError(f"{name} returned values that are not probabilities: run `dvc repro`")
    return np.concatenate([np.empty((0, len(card.genres)), np.float32), *parts])
