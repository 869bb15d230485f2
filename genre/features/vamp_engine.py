"""The program of the engine `vamp`: the real Vamp plugins through the PyPI package vamp, as sonic-annotator runs them.

Framing, window and FFT are this project's, as in sonic-annotator's host, because the package gives other numbers: its
first frame starts at sample 0, where sonic-annotator's is centred there, and its FFT is less exact.

    python -m genre.features.vamp_engine -s ID            print the version of a transform's plugin
    python -m genre.features.vamp_engine -d ID ... FILE.wav ...
"""

from __future__ import annotations

import itertools
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre.errors import EngineError
from genre.features import extraction
from genre.features.transforms import TRANSFORMS, Features, Samples, Transform, batches, spectra


def compute_blocks(
    blocks: Iterable[Samples], sample_rate: int, *, transforms: Sequence[Transform] = tuple(TRANSFORMS.values())
) -> Iterator[Features]:
    """Run Vamp plugins over a signal that arrives in blocks of any length, in bounded memory.

    See `numpy_engine.compute_blocks` for blocks and features. `transforms` are outputs of installed plugins that
    take spectra and give one row per frame at their default parameters; neighbours of one plugin with one block and
    step are computed by one instance. Raises EngineError if a plugin is not installed, refuses block and step, or does
    not give one row of `columns` values per frame; FeatureError as `batches`.
    """
    groups = itertools.groupby(transforms, lambda t: (t.plugin, t.block, t.step))
    plugins = [_Plugin(list(outputs), sample_rate) for _, outputs in groups]
    for batch, n_samples in batches(blocks):
        features: Features = {}
        for plugin in plugins:
            features |= plugin.process(batch, n_samples)
        yield features


class _Plugin:
    """An instance of a plugin for one signal, and the outputs to read."""

    def __init__(self, outputs: Sequence[Transform], sample_rate: int) -> None:
        self._transform, self._sample_rate = outputs[0], sample_rate  # all have one block and step
        self._name, self._n_frames = outputs[0].plugin, 0
        try:
            from vamp import vampyhost

            self._realtime = vampyhost.frame_to_realtime
            self._plugin = vampyhost.load_plugin(self._name, sample_rate, vampyhost.ADAPT_NONE)
            self.version = self._plugin.info["pluginVersion"]
            self._plugin.initialise(1, outputs[0].step, outputs[0].block)
            self._outputs = [(t, self._plugin.get_output(t.vamp_id.split(":")[3])["output_index"]) for t in outputs]
        except Exception as error:  # the package raises Exception itself for an unknown output
            raise EngineError(f"the Vamp plugin {self._name} cannot be used: {error}") from error

    def process(self, batch: npt.NDArray[np.float64], n_samples: int) -> Features:
        """Return the rows of the next batch of the signal, as `transforms.batches` yields it.

        The package passes `block` values where the Vamp interface has two more, so a plugin gets no bin at half the
        sample rate. The plugins of the transform table do not use that bin.
        """
        step, n_frames = self._transform.step, self._transform.n_frames(n_samples)
        bins = spectra(batch, self._transform, self._transform.block // 2)[:n_frames]
        np.negative(bins[:, 1::2], out=bins[:, 1::2])  # Vamp hosts put time zero in the middle of a frame
        rows: Features = {t.feature: np.empty((n_frames, t.columns), np.float32) for t, _ in self._outputs}
        for i, spectrum in enumerate(bins.view(np.float32)):  # real and imaginary parts in turn
            time = self._realtime((self._n_frames + i) * step, self._sample_rate)
            results = self._plugin.process_block(spectrum[np.newaxis], time)
            for transform, index in self._outputs:
                values = [result.get("values", ()) for result in results.get(index, ())]
                if [*map(len, values)] != [transform.columns]:
                    raise EngineError(
                        f"the Vamp plugin {self._name} gave rows of {[*map(len, values)]} values for one frame,"
                        f" not one row of {transform.columns}: install the version that has {transform.vamp_id}"
                    )
                rows[transform.feature][i] = values[0]
        self._n_frames += n_frames
        return rows


def main(arguments: Sequence[str]) -> None:
    """Print the version of a plugin, or write the CSV files of all features of wav files to the current folder."""
    output = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # plugins may print
    try:
        if arguments[0] == "-s":
            transform = next(t for t in TRANSFORMS.values() if t.vamp_id == arguments[1])
            sys.stderr.write(f"running {transform.plugin}\n")  # before a crash
            output.write(f'vamp:plugin_version "{_Plugin([transform], 44_100).version}"\n')
        for name in (argument for argument in arguments if argument.endswith(".wav")):
            job = extraction.Job(Path(name), dict.fromkeys(TRANSFORMS, Path()))
            for error in extraction.extract([job], compute_blocks).values():
                sys.stderr.write(f"ERROR: {error}\n")
    except EngineError as error:
        sys.exit(f"ERROR: Failed to load plugin: {error}")


if __name__ == "__main__":
    main(sys.argv[1:])
