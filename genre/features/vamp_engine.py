"""The engine `vamp`: the real Vamp plugins, through the PyPI package vamp in another process.

Framing, window and FFT are computed here as in sonic-annotator's host, because the package gives other numbers: its
first frame starts at sample 0, where sonic-annotator's is centred there, and its FFT is less exact.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre import errors
from genre.errors import EngineError, FeatureError
from genre.features import extraction
from genre.features.extraction import Failures, Job
from genre.features.transforms import TRANSFORMS, Features, Samples, Transform, host_blocks

PART_HOST_BLOCKS = 64  # host blocks per call of a plugin: 3 s at 22,050 Hz
PROBE_TIMEOUT_S = 60.0

INSTALL_PACKAGE = "`pip install vamp` (needs a C++ compiler)"
INSTALL_PLUGINS = (
    "install the Vamp plugin packs qm-vamp-plugins and bbc-vamp-plugins in a folder of VAMP_PATH "
    "(default: ~/vamp, ~/.vamp, /usr/local/lib/vamp, /usr/lib/vamp)"
)
_PLUGINS = tuple(dict.fromkeys(t.plugin for t in TRANSFORMS.values()))


class VampEngine:
    """The QM and BBC plugins on VAMP_PATH, through the Python package vamp."""

    name = "vamp"

    def unusable(self) -> str | None:
        """Return None if package and plugins are installed and work, otherwise the reason."""
        return _probe(os.environ.get("VAMP_PATH"), os.environ.get("HOME"))[1]

    def versions(self) -> dict[str, str]:
        """Return the versions of the package, of the plugins, and of NumPy, which computes the FFT.

        Raises EngineError if the engine cannot be used.
        """
        versions, reason = _probe(os.environ.get("VAMP_PATH"), os.environ.get("HOME"))
        if reason:
            raise EngineError(reason)
        return {**versions, "numpy": np.__version__}

    def extract(self, jobs: Sequence[Job]) -> Failures:
        """Write the CSV files of all jobs. See `Engine.extract`.

        The plugins run in another process. After a crash, the file that was read fails, and a new process extracts the
        remaining ones.
        """
        failures: Failures = {}
        with tempfile.TemporaryDirectory(prefix="vamp-") as name:
            remaining = list(enumerate(jobs))
            while remaining:
                paths = [(str(job.audio), str(Path(name, str(i)))) for i, job in remaining]
                result = _call_in_process("extract_from_stdin", json.dumps(paths))
                for kind, message in map(json.loads, result.stdout.splitlines()):
                    i, job = remaining.pop(0)
                    if kind:
                        failures[job.audio] = getattr(errors, kind)(message)
                    else:
                        extraction.publish(job, Path(name, str(i)), job.audio.stem)
                if remaining and result.returncode >= 0:
                    reason = (result.stderr.splitlines() or ["no message"])[-1]
                    raise EngineError(reason.removeprefix(f"{errors.__name__}.{EngineError.__name__}: "))
                if remaining:
                    audio, reason = remaining.pop(0)[1].audio, extraction.exit_reason(result.returncode)
                    failures[audio] = FeatureError(f"{audio}: the Vamp plugins ended with {reason}")
        return failures


def compute_blocks(
    blocks: Iterable[Samples], sample_rate: int, *, transforms: Sequence[Transform] = tuple(TRANSFORMS.values())
) -> Iterator[Features]:
    """Run Vamp plugins over a signal that arrives in blocks of any length, in bounded memory.

    See `numpy_engine.compute_blocks` for blocks and features. `transforms` are outputs of installed plugins that give
    one row per frame at their default parameters; those of one plugin with one block and step are computed by one
    instance. Raises EngineError if a plugin is not installed, refuses block and step, or does not give one row of
    `columns` values per frame; FeatureError as `host_blocks`.
    """
    groups: dict[tuple[str, int, int], list[Transform]] = {}
    for transform in transforms:
        groups.setdefault((transform.plugin, transform.block, transform.step), []).append(transform)
    plugins = [_Plugin(outputs, sample_rate) for outputs in groups.values()]
    for block in host_blocks(blocks, PART_HOST_BLOCKS):
        features: Features = {}
        for plugin in plugins:
            features |= plugin.process(block.astype(np.float32))
        yield features


class _Plugin:
    """An instance of a plugin for one signal, and the outputs to read."""

    def __init__(self, outputs: Sequence[Transform], sample_rate: int) -> None:
        try:
            from vamp import vampyhost
        except ImportError as error:
            raise EngineError(f"the package vamp cannot be loaded ({error}); {INSTALL_PACKAGE}") from error
        self._name, self._sample_rate = outputs[0].plugin, sample_rate
        self._block, self._step = outputs[0].block, outputs[0].step
        self._realtime = vampyhost.frame_to_realtime
        try:
            self._plugin = vampyhost.load_plugin(self._name, sample_rate, vampyhost.ADAPT_NONE)
            self._plugin.initialise(1, self._step, self._block)
            self._outputs = [(t, self._plugin.get_output(t.vamp_id.split(":")[3])["output_index"]) for t in outputs]
        except Exception as error:  # the package raises Exception itself for an unknown output
            raise EngineError(f"the Vamp plugin {self._name} cannot be used: {error}; {INSTALL_PLUGINS}") from error
        self._takes_spectra = self._plugin.inputDomain == vampyhost.FREQUENCY_DOMAIN
        self._window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(self._block) / self._block)  # periodic Hann
        self._signal = np.zeros(self._block // 2, np.float32)  # from the start of the next frame on
        self._n_frames = 0

    def process(self, samples: npt.NDArray[np.float32]) -> Features:
        """Return the rows of all frames that end with or inside the next samples of the signal."""
        self._signal = np.concatenate([self._signal, samples])
        count = max(0, (self._signal.size - self._block) // self._step + 1)
        rows: Features = {t.feature: np.empty((count, t.columns), np.float32) for t, _ in self._outputs}
        if count:
            frames = np.lib.stride_tricks.sliding_window_view(self._signal, self._block)[:: self._step]
            inputs = self._spectra(frames) if self._takes_spectra else frames
            for i in range(count):
                time = self._realtime((self._n_frames + i) * self._step, self._sample_rate)
                results = self._plugin.process_block(inputs[i : i + 1], time)
                for transform, index in self._outputs:
                    rows[transform.feature][i] = self._row(results.get(index, ()), transform)
            self._n_frames += count
            self._signal = self._signal[count * self._step :]
        return rows

    def _spectra(self, frames: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        """Return real and imaginary parts in turn, from 0 Hz on [shape=(frames, block)].

        The package passes `block` values where the Vamp interface has two more, so a plugin gets no bin at half the
        sample rate. The plugins of the transform table do not use that bin.
        """
        spectra = np.fft.rfft(frames * self._window)
        np.negative(spectra[:, 1::2], out=spectra[:, 1::2])  # Vamp hosts put time zero in the middle of a frame
        return spectra.astype(np.complex64).view(np.float32)[:, : self._block]

    def _row(self, results: Sequence[dict[str, Any]], transform: Transform) -> npt.NDArray[np.float32]:
        rows: list[npt.NDArray[np.float32]] = [result.get("values", np.empty(0, np.float32)) for result in results]
        if len(rows) != 1 or len(rows[0]) != transform.columns:
            shape = f"{len(rows)} rows of {sorted({len(row) for row in rows})} values"
            raise EngineError(
                f"the Vamp plugin {self._name} gave {shape} for one frame, not one row of {transform.columns}: "
                f"install the version that has {transform.vamp_id}"
            )
        return rows[0]


# Plugins are native code that may crash, so they are tried and used in another process.


def _call_in_process(function: str, text: str = "", timeout_s: float | None = None) -> subprocess.CompletedProcess[str]:
    """Call a function of this module in another process, with `text` as its standard input."""
    command = [sys.executable, "-c", f"from {__name__} import {function}; {function}()"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    pipes: dict[str, Any] = {"input": text, "capture_output": True, "text": True, "errors": "replace"}
    return subprocess.run(command, **pipes, env=environment, timeout=timeout_s, check=False)


def extract_from_stdin() -> None:
    """Extract the files of a JSON array on standard input, `[[audio, folder for the CSV files], ...]`.

    After each file it prints a line with a JSON array: the class and message of the error, or two nulls.
    """
    results = os.dup(1)
    os.dup2(2, 1)  # plugins may print
    for audio, folder in json.load(sys.stdin):
        job = Job(Path(audio), dict.fromkeys(TRANSFORMS, Path(folder)))
        error = extraction.extract([job], compute_blocks).get(job.audio)
        line = json.dumps([type(error).__name__, str(error)] if error else [None, None])
        os.write(results, f"{line}\n".encode())


@functools.cache
def _probe(vamp_path: str | None, home: str | None) -> tuple[dict[str, str], str | None]:  # noqa: ARG001
    """Return the versions, and None or the reason why the engine cannot be used; cached by the arguments."""
    if importlib.util.find_spec("vamp") is None:
        return {}, f"the package vamp is not installed; {INSTALL_PACKAGE}"
    libraries = {path.stem for folder in extraction.vamp_folders() for path in folder.glob("*.*")}
    if missing := [name for name in _PLUGINS if name.split(":")[0] not in libraries]:
        return {}, f"these Vamp plugins are not found: {', '.join(missing)}; {INSTALL_PLUGINS}"
    try:
        result = _call_in_process("print_versions", timeout_s=PROBE_TIMEOUT_S)
    except (OSError, subprocess.TimeoutExpired) as error:
        return {}, f"the Vamp plugins cannot be loaded ({error}); {INSTALL_PLUGINS}"
    versions = dict(re.findall(r"^(\S+)=(\S*)$", result.stdout, re.MULTILINE))
    if result.returncode:
        failed = next((name for name in ("vamp", *_PLUGINS) if name not in versions), "vamp")
        reason = (result.stderr.splitlines() or ["no message"])[-1].strip()
        if result.returncode < 0:
            reason = f"{extraction.exit_reason(result.returncode)}: {reason}"
        return {}, f"{failed} fails when it is loaded ({reason}); {INSTALL_PACKAGE}, {INSTALL_PLUGINS}"
    if missing := [name for name, version in versions.items() if not version]:
        hints = "".join(f" ({hint})" for hint in re.findall(r"Unable to load library (.*)", result.stderr))
        return {}, f"these Vamp plugins are not found: {', '.join(missing)}{hints}; {INSTALL_PLUGINS}"
    return versions, None


def print_versions() -> None:
    """Run each plugin of the table over silence; print name=version lines, without a version if it is not found."""
    from vamp import vampyhost

    write = functools.partial(os.write, sys.stdout.fileno())  # unbuffered: the next plugin may crash
    write(f"vamp={importlib.metadata.version('vamp')}\n".encode())
    for name in _PLUGINS:
        try:
            version = vampyhost.load_plugin(name, 44_100, vampyhost.ADAPT_NONE).info["pluginVersion"]
            transforms = [t for t in TRANSFORMS.values() if t.plugin == name]
            list(compute_blocks([np.zeros(1, np.float32)], 44_100, transforms=transforms))
        except TypeError:  # the package does not find the plugin
            version = ""
        write(f"{name}={version}\n".encode())
