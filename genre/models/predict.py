"""Genre probabilities of chunks, through ONNX Runtime; what `query` and `evaluate` share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from genre.cache import Cache
from genre.errors import ModelError
from genre.features.settings import Settings
from genre.models import cards, runtime


class Card(Protocol):
    """What everything that answers tells of itself."""

    @property
    def model(self) -> str:
        """Its name."""

    @property
    def genres(self) -> list[str]:
        """In the order of its outputs."""

    @property
    def settings(self) -> Mapping[str, Any]:
        """What changes a feature, with its fingerprint."""

    @property
    def feature_settings(self) -> Settings:
        """The settings that a song must be cut with."""

    @property
    def unknown(self) -> Mapping[str, Any] | None:
        """At what confidence to answer, as `unknown.fit`."""


class Answers(Protocol):
    """What answers: a network, a baseline or the ensemble."""

    @property
    def card(self) -> Card:
        """What it tells of itself."""

    @property
    def needs_samples(self) -> bool:
        """Whether it takes the samples of chunks, not only their features."""

    def predict(
        self, inputs: Mapping[str, npt.NDArray[np.float32]], samples: Sequence[npt.NDArray[np.int16]] = ()
    ) -> npt.NDArray[np.float32]:
        """Return genre probabilities [shape=(chunks, genres)]. See `Predictor.predict`."""


def load(model: str | None, root: Path = Path(), *, cache: Cache | None = None) -> Answers:
    """Load what answers, by name; None is the default, which the ensemble's card chooses.

    With a cache, it looks up the vectors of chunks there that it would have to make of their samples, and keeps them.

    Raises
    ------
    ModelError
        If there is no such model, or it is damaged or made with other settings than this version's.
    """
    from genre.models import baselines, ensemble

    model = model or ensemble.default_model(root)
    if model == ensemble.NAME:
        return Ensemble(root, cache=cache)
    return baselines.load(model, root, cache=cache) if model in baselines.BASELINES else Predictor(model, root)


def load_in_background(model: str | None, root: Path = Path()) -> Answers:
    """Load what answers, as `load`, in a thread: its card can be read at once, its first prediction waits for it.

    Raises
    ------
    ModelError
        As `load`. What is found wrong while it loads is raised by `predict`.
    """
    return _Background(model, root)


def available(root: Path = Path()) -> list[str]:
    """Return the names of all that can be loaded: networks, baselines, the ensemble."""
    from genre.models import baselines, ensemble

    names = [*cards.available(root), *baselines.available(root)]
    return [*names, ensemble.NAME] if ensemble.card_path(root).is_file() else names


class _Background:
    """A model that is being loaded."""

    def __init__(self, model: str | None, root: Path) -> None:
        from genre.models import baselines, ensemble

        model = model or ensemble.default_model(root)
        self.card: Card
        if model == ensemble.NAME:
            self.card = ensemble.read(root)
        else:
            self.card = baselines.read_card(model, root) if model in baselines.BASELINES else cards.read(model, root)
        self._loader = ThreadPoolExecutor(1)
        self._model = self._loader.submit(load, model, root)
        self._loader.shutdown(wait=False)

    @property
    def needs_samples(self) -> bool:
        """Whether it takes the samples of chunks. Waits for the model."""
        return self._model.result().needs_samples

    def predict(
        self, inputs: Mapping[str, npt.NDArray[np.float32]], samples: Sequence[npt.NDArray[np.int16]] = ()
    ) -> npt.NDArray[np.float32]:
        """Return genre probabilities [shape=(chunks, genres)]. See `Predictor.predict`. Waits for the model."""
        return self._model.result().predict(inputs, samples)


class Ensemble:
    """The calibrated average of several models."""

    def __init__(self, root: Path = Path(), *, cache: Cache | None = None) -> None:
        """Load the models that the ensemble's card names; cache as for `load`.

        Raises
        ------
        ModelError
            As `load`, or if the models do not go together.
        """
        from genre.models import ensemble

        self.card = ensemble.read(root)
        self._members = [load(name, root, cache=cache) for name in self.card.models]
        for member in self._members:
            if member.card.genres != self.card.genres:
                raise ModelError(f"the model {member.card.model} knows other genres than the ensemble: run `dvc repro`")

    @property
    def needs_samples(self) -> bool:
        """Whether any of the models takes the samples of chunks."""
        return any(member.needs_samples for member in self._members)

    def predict(
        self, inputs: Mapping[str, npt.NDArray[np.float32]], samples: Sequence[npt.NDArray[np.int16]] = ()
    ) -> npt.NDArray[np.float32]:
        """Return genre probabilities [shape=(chunks, genres)]. See `Predictor.predict`."""
        from genre.models.ensemble import combine

        return combine([member.predict(inputs, samples) for member in self._members], self.card.temperature)


class Predictor:
    """A network ready to answer."""

    needs_samples = False

    def __init__(self, model: str, root: Path = Path()) -> None:
        """Load a model by name.

        Raises
        ------
        ModelError
            As `card.read`, or if ONNX Runtime cannot load the file.
        """
        self.card = cards.read(model, root)
        path = cards.model_files(model, root).onnx
        try:
            self._session = runtime.session(path)
        except ModelError as error:
            raise ModelError(f"{path} cannot be loaded: {error}") from error
        self._check(path)

    def _check(self, path: Path) -> None:
        """Check that the network takes and gives what its card says."""
        inputs = {node.name: node.shape for node in self._session.get_inputs()}
        if set(inputs) != set(self.card.inputs):
            raise ModelError(f"{path} takes {', '.join(sorted(inputs))}, not what its card says: run `dvc repro`")
        outputs = self._session.get_outputs()
        if len(outputs) != 1 or outputs[0].shape[1:] != [len(self.card.genres)]:
            raise ModelError(f"{path} does not give a probability for each genre of its card: run `dvc repro`")

    def predict(
        self,
        inputs: Mapping[str, npt.NDArray[np.float32]],
        samples: Sequence[npt.NDArray[np.int16]] = (),  # noqa: ARG002 (others need them)
    ) -> npt.NDArray[np.float32]:
        """Return genre probabilities.

        Parameters
        ----------
        inputs : mapping of npt.NDArray[np.float32] [shape=(chunks, frames, columns)]
            By feature; features the model does not take are ignored.
        samples : sequence of npt.NDArray[np.int16] [shape=(n,)]
            The same chunks at the card's sample rate; only what `needs_samples` looks at them.

        Returns
        -------
        npt.NDArray[np.float32] [shape=(chunks, genres)]

        Raises
        ------
        ModelError
            If a feature is missing or of another shape than the model was trained with.
        """
        for feature, shape in self.card.inputs.items():
            if feature not in inputs:
                raise ModelError(f"the model {self.card.model} needs the feature {feature}")
            if list(inputs[feature].shape[1:]) != shape:
                raise ModelError(
                    f"the model {self.card.model} takes {feature} of {shape[0]} frames and {shape[1]} columns,"
                    f" not {inputs[feature].shape[1:]}"
                )
        taken = {feature: inputs[feature] for feature in self.card.inputs}
        n_chunks = len(next(iter(taken.values())))
        # One at a time: what is said of a chunk depends on no other, to the last bit.
        try:
            parts = [
                runtime.run(self._session, {feature: values[row : row + 1] for feature, values in taken.items()})
                for row in range(n_chunks)
            ]
        except ModelError as error:
            raise ModelError(f"the model {self.card.model} {error}: run `dvc checkout` or `dvc repro`") from error
        if any(part.shape != (1, len(self.card.genres)) for part in parts):
            raise ModelError(f"the model {self.card.model} gives no probability for each genre: run `dvc repro`")
        return np.concatenate(parts)
