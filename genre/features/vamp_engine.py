"""The engine `vamp`: the real Vamp plugins, run inside this process through the PyPI package vamp.

Framing, window and FFT are done here, as sonic-annotator does them in its own host, and a plugin gets the spectrum.
The package's own would give other numbers: its frames start at sample 0, where sonic-annotator centres the first one,
and its FFT (that of the Vamp SDK 2.6, as in PluginInputDomainAdapter) is less exact, which shows in tonal music.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from genre.errors import EngineError, FeatureError
from genre.features import extraction
from genre.features.engine import Failures, Job
from genre.features.transforms import HOST_CHUNK, TRANSFORMS, Features, Samples, Transform

PART_CHUNKS = 64  # host chunks given to the plugins together: 3 s at 22,050 Hz
PROBE_SECONDS = 60.0

INSTALL_PACKAGE = "`pip install vamp` (it is compiled: a C++ compiler is needed)"
INSTALL_PLUGINS = (
    "install the Vamp plugin packs qm-vamp-plugins and bbc-vamp-plugins in a folder of VAMP_PATH "
    "(default: ~/vamp, ~/.vamp, /usr/local/lib/vamp, /usr/lib/vamp)"
)


class VampEngine:
    """The QM and BBC plugins on VAMP_PATH, through the Python package vamp."""

    name = "vamp"

    def unusable(self) -> str | None:
        """Return None if package and plugins are here and work; otherwise what is missing or broken."""
        return _probe(os.environ.get("VAMP_PATH"), os.environ.get("HOME"))[1]

    def versions(self) -> dict[str, str]:
        """Return the versions of the package, of what computes its FFT, and of the plugins, as they tell them.

        Raises
        ------
        EngineError
            If the engine cannot be used.
        """
        found, reason = _probe(os.environ.get("VAMP_PATH"), os.environ.get("HOME"))
        if reason:
            raise EngineError(reason)
        return {**found, "numpy": np.__version__}

    def extract(self, jobs: Sequence[Job]) -> Failures:
        """Write the CSV files of all jobs, each file in bounded memory. See `Engine.extract`."""
        return extraction.extract(jobs, compute_blocks)


def compute_blocks(
    blocks: Iterable[Samples],
    sample_rate: int,
    *,
    transforms: Sequence[Transform] = tuple(TRANSFORMS.values()),
) -> Iterator[Features]:
    """Run Vamp plugins over a signal that arrives in blocks of any length, in bounded memory.

    Parameters
    ----------
    blocks : iterable of int16 or float32 array [shape=(any,)]
        Consecutive pieces of one mono signal. int16 is divided by 32768; float32 has full scale 1.0 and is clipped.
    sample_rate : int
        Hz.
    transforms : sequence of Transform
        The outputs wanted, of any installed plugins that give one row per frame, at their default parameters.
        Outputs of one plugin with one block and step come from one instance.

    Yields
    ------
    dict of float32 array [shape=(frames, columns)]
        The next rows of each feature, by feature name. Row i is of the frame of `block` samples centred on sample
        i * step; there are zeros before the start, and after the end up to a multiple of HOST_CHUNK.

    Raises
    ------
    EngineError
        If a plugin is not there, refuses block and step, or does not give one row of `columns` values per frame.
    FeatureError
        If the samples are not finite.
    """
    groups: dict[tuple[str, int, int], list[Transform]] = {}
    for transform in transforms:
        groups.setdefault((_plugin_key(transform), transform.block, transform.step), []).append(transform)
    plugins = [_Plugin(key, outputs, sample_rate) for (key, _, _), outputs in groups.items()]
    for part in _parts(blocks):
        features: Features = {}
        for plugin in plugins:
            features |= plugin.process(part)
        yield features


class _Plugin:
    """One plugin over one signal, for all of its outputs that are wanted."""

    def __init__(self, key: str, outputs: Sequence[Transform], sample_rate: int) -> None:
        try:
            from vamp import vampyhost
        except ImportError as error:
            raise EngineError(f"the package vamp cannot be loaded ({error}); {INSTALL_PACKAGE}") from error
        self._key, self._sample_rate = key, sample_rate
        self._block, self._step = outputs[0].block, outputs[0].step
        self._realtime = vampyhost.frame_to_realtime
        try:
            self._plugin = vampyhost.load_plugin(key, sample_rate, vampyhost.ADAPT_NONE)
            self._plugin.initialise(1, self._step, self._block)
            self._outputs = [(t, self._plugin.get_output(t.vamp_id.split(":")[3])["output_index"]) for t in outputs]
        except Exception as error:  # the package raises Exception itself for an output that is not there
            raise EngineError(f"the Vamp plugin {key} cannot be used: {error}; {INSTALL_PLUGINS}") from error
        self._takes_spectra = self._plugin.inputDomain == vampyhost.FREQUENCY_DOMAIN
        self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self._block) / self._block)  # periodic Hann
        self._signal = np.zeros(self._block // 2, np.float32)  # from the start of the next frame on
        self._n_frames = 0

    def process(self, samples: npt.NDArray[np.float32]) -> Features:
        """Return the rows of all frames that end with these samples or inside them."""
        self._signal = np.concatenate([self._signal, samples])
        count = max(0, (self._signal.size - self._block) // self._step + 1)
        rows: dict[str, npt.NDArray[np.float32]] = {
            t.feature: np.empty((count, t.columns), np.float32) for t, _ in self._outputs
        }
        if count:
            frames = np.lib.stride_tricks.sliding_window_view(self._signal, self._block)[:: self._step]
            inputs = self._spectra(frames) if self._takes_spectra else frames
            for i in range(count):
                time = self._realtime((self._n_frames + i) * self._step, self._sample_rate)
                found = self._plugin.process_block(inputs[i : i + 1], time)
                for transform, index in self._outputs:
                    rows[transform.feature][i] = self._row(found, transform, index)
            self._n_frames += count
            self._signal = self._signal[count * self._step :]
        return rows

    def _spectra(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return what a plugin takes [shape=(frames, block)]: real, imaginary, real, ... of the bins from 0 Hz on.

        The package passes on `block` values where the Vamp interface has two more, so a plugin does not get the bin
        at half the sample rate. The plugins of the transform table use the bins below it only.
        """
        spectra = np.fft.rfft(frames * self._window)
        np.negative(spectra[:, 1::2], out=spectra[:, 1::2])  # Vamp hosts put time zero in the middle of a frame
        return spectra.astype(np.complex64).view(np.float32)[:, : self._block]

    def _row(self, found: dict[int, list[dict[str, Any]]], transform: Transform, index: int) -> npt.NDArray[np.float32]:
        rows = [row.get("values", ()) for row in found.get(index, ())]
        if len(rows) != 1 or len(rows[0]) != transform.columns:
            shape = f"{len(rows)} rows of {sorted({len(row) for row in rows})} values"
            raise EngineError(
                f"the Vamp plugin {self._key} gave {shape} for one frame, not one row of {transform.columns}: "
                f"this is not the version that {transform.vamp_id} is known by"
            )
        values: npt.NDArray[np.float32] = rows[0]
        return values


def _plugin_key(transform: Transform) -> str:
    """Return how the package spells the plugin of a transform."""
    return ":".join(transform.vamp_id.split(":")[1:3])


_PLUGIN_KEYS = tuple(dict.fromkeys(map(_plugin_key, TRANSFORMS.values())))


def _parts(blocks: Iterable[Samples]) -> Iterator[npt.NDArray[np.float32]]:
    """Yield the signal as whole host chunks, the last one filled up with zeros, in an array that is used again."""
    part = np.empty(PART_CHUNKS * HOST_CHUNK, np.float32)
    end = 0
    for block in blocks:
        rest = block
        while rest.size:
            piece, rest = rest[: part.size - end], rest[part.size - end :]
            free = part[end : end + piece.size]
            if piece.dtype == np.int16:
                np.multiply(piece, np.float32(1 / 32768), out=free)
            else:
                np.clip(piece, -1.0, 1.0, out=free)
            if not np.isfinite(free).all():
                raise FeatureError("the samples have NaN or infinity among them: decode the audio again")
            end += piece.size
            if end == part.size:
                yield part
                end = 0
    if end:
        whole = -(-end // HOST_CHUNK) * HOST_CHUNK
        part[end:whole] = 0.0
        yield part[:whole]


# The plugins are native code of others: what is here is found out in a process of its own, which may crash.


@functools.cache
def _probe(vamp_path: str | None, home: str | None) -> tuple[dict[str, str], str | None]:  # noqa: ARG001
    """Return the versions, and None or the reason why the engine cannot be used. The arguments key the cache."""
    if importlib.util.find_spec("vamp") is None:
        return {}, f"the package vamp is not installed; {INSTALL_PACKAGE}"
    if missing := [key for key in _PLUGIN_KEYS if not _has_library(key.split(":")[0])]:
        return {}, f"these Vamp plugins are not found: {', '.join(missing)}; {INSTALL_PLUGINS}"
    command = [sys.executable, "-c", f"from {__name__} import tell_versions; tell_versions()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, errors="replace", env=environment, timeout=PROBE_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return {}, f"the Vamp plugins cannot be tried ({error})"
    told = dict(re.findall(r"^(\S+)=(\S*)$", result.stdout, re.MULTILINE))
    if untold := [name for name in ("vamp", *_PLUGIN_KEYS) if name not in told]:
        return {}, _failure(untold[0], result)
    if missing := [name for name, version in told.items() if not version]:
        hints = re.findall(r"Unable to load library (.*)", result.stderr)
        found = f"these Vamp plugins are not found: {', '.join(missing)}" + "".join(f" ({hint})" for hint in hints)
        return {}, f"{found}; {INSTALL_PLUGINS}"
    return told, None


def _has_library(name: str) -> bool:
    """Return whether a folder of VAMP_PATH has the library that a plugin's key begins with (under any extension)."""
    return any(path.is_file() for folder in extraction.vamp_folders() for path in folder.glob(f"{name}.*"))


def tell_versions() -> None:
    """Run each plugin of the table over a moment of silence; write 'name=version' lines, no version if not found."""
    from vamp import vampyhost

    _tell("vamp", importlib.metadata.version("vamp"))
    for key in _PLUGIN_KEYS:
        try:
            version = vampyhost.load_plugin(key, 44_100, vampyhost.ADAPT_NONE).info["pluginVersion"]
        except TypeError:
            _tell(key, "")
            continue
        transforms = [t for t in TRANSFORMS.values() if _plugin_key(t) == key]
        list(compute_blocks([np.zeros(HOST_CHUNK, np.float32)], 44_100, transforms=transforms))
        _tell(key, version)


def _tell(name: str, version: object) -> None:
    sys.stdout.write(f"{name}={version}\n")
    sys.stdout.flush()  # what comes next may crash


def _failure(name: str, result: subprocess.CompletedProcess[str]) -> str:
    what, remedy = f"the Vamp plugin {name}", INSTALL_PLUGINS
    if name == "vamp":
        what, remedy = "the package vamp", f"install it again: {INSTALL_PACKAGE}"
    reason = (result.stderr.splitlines() or ["no message"])[-1].strip()
    if result.returncode < 0:
        reason = f"{signal.Signals(-result.returncode).name}: {reason}"
    return f"{what} breaks when it is tried ({reason}); {remedy}"
