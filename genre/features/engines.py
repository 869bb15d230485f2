"""The feature engines by name: sonic-annotator and vamp, which run the real plugins in a program, and numpy."""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from genre import files
from genre.errors import EngineError, FeatureError, GenreError
from genre.features import extraction, numpy_engine, vamp_engine
from genre.features.transforms import NOT_FINITE, TRANSFORMS


@dataclass(frozen=True, slots=True)
class PluginEngine:
    """The QM and BBC plugins on VAMP_PATH, in a program with the command line of sonic-annotator."""

    name: str
    program: tuple[str, ...]  # without its arguments
    install: str  # what to do if program or plugins are missing
    packages: tuple[str, ...] = ()  # Python packages that change the numbers

    def versions(self) -> dict[str, str]:
        """Return the versions, by name, of program, plugins and packages.

        Raises EngineError, with what to install, if the engine cannot be used on this machine.
        """
        return _versions(self, *map(os.environ.get, ("PATH", "VAMP_PATH", "HOME")))

    def extract(self, jobs: Sequence[extraction.Job]) -> extraction.Failures:
        """Write the CSV files of all jobs; return the error of each audio file that failed.

        Raises EngineError if the engine itself fails, whatever the file.

        sonic-annotator takes sample rate and channel count from the first file of a run, cuts file names at '#',
        overwrites the CSV of an equal file name and exits with 0 after errors. So each run gets mono files of one rate
        with numbers as names, and every expected CSV is checked. After a crash, the files are passed to it one by one.
        """
        failures: extraction.Failures = {}
        with tempfile.TemporaryDirectory(prefix=f"{self.name}-") as name:
            folder = Path(name)
            batches: defaultdict[int, dict[Path, extraction.Job]] = defaultdict(dict)  # by sample rate
            for number, job in enumerate(jobs):
                audio = folder / f"{number:06d}.wav"
                try:
                    batches[_prepare(job.audio, audio)][audio] = job
                except GenreError as error:
                    failures[job.audio] = error
            for batch in batches.values():
                failures |= self._extract_batch(folder, batch)
        return failures

    def run(self, arguments: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
        """Run the program in a temporary folder, where sonic-annotator also writes log and configuration files."""
        program = Path(shutil.which(self.program[0]) or self.program[0]).absolute()
        environment = {"HOME": str(folder), "VAMP_PATH": os.pathsep.join(_vamp_folders())}
        environment["PYTHONPATH"] = os.pathsep.join(str(Path(folder).absolute()) for folder in sys.path)
        options: dict[str, Any] = {"capture_output": True, "text": True, "errors": "replace", "check": False}
        command = [str(program), *self.program[1:], *arguments]
        return subprocess.run(command, env=os.environ | environment, cwd=folder, **options)

    def _extract_batch(self, folder: Path, batch: dict[Path, extraction.Job]) -> extraction.Failures:
        transforms = [argument for t in TRANSFORMS.values() for argument in ("-d", t.vamp_id)]
        options = ["-w", "csv", "--csv-basedir", ".", "--csv-force", "--force"]
        # Relative names: sonic-annotator takes '#' and '?' in the path of the temporary folder for parts of a URL.
        result = self.run([*transforms, *options, *(audio.name for audio in batch)], folder)
        if match := re.search(r"ERROR: (Failed to load plugin .*)", result.stderr):
            raise EngineError(f"{self.name}: {match[1]}; {self.install}")
        failures: extraction.Failures = {}
        if result.returncode and len(batch) > 1:
            for audio, job in batch.items():
                failures |= self._extract_batch(folder, {audio: job})
            return failures
        for audio, job in batch.items():
            outputs = {t.feature: folder / t.csv_name(audio.stem) for t in TRANSFORMS.values()}
            missing = [name for name, path in outputs.items() if not path.is_file() or not path.stat().st_size]
            if result.returncode or missing:
                reason = f"{self.name} wrote no {missing[0]}" if missing else f"{self.name} failed"
                fault = _fault(result, audio.name).replace(audio.name, job.audio.name)
                failures[job.audio] = FeatureError(f"{job.audio}: {reason} ({fault})")
                continue
            for output, target in zip(outputs.values(), job.targets, strict=True):
                with files.atomic_path(target) as temporary:
                    shutil.copyfile(output, temporary)
        return failures


class NumpyEngine:
    """The built-in engine: needs no other software, writes the same numbers as sonic-annotator."""

    name = "numpy"

    def versions(self) -> dict[str, str]:
        """Return the versions of the engine and of NumPy, which computes the FFT."""
        return {"numpy engine": numpy_engine.VERSION, "numpy": np.__version__}

    def extract(self, jobs: Sequence[extraction.Job]) -> extraction.Failures:
        """Write the CSV files of all jobs; return the error of each audio file that failed."""
        return extraction.extract(jobs, numpy_engine.compute_blocks)


Engine = PluginEngine | NumpyEngine

_PACKS = (
    "the Vamp plugin packs qm-vamp-plugins and bbc-vamp-plugins in a folder of VAMP_PATH (default: ~/vamp, ~/.vamp, "
    "/usr/local/lib/vamp, /usr/lib/vamp)"
)
ENGINES: dict[str, Engine] = {  # by name, in the order of preference of `auto`
    "sonic-annotator": PluginEngine("sonic-annotator", ("sonic-annotator",), f"install sonic-annotator and {_PACKS}"),
    "vamp": PluginEngine(
        "vamp",
        (sys.executable, "-m", vamp_engine.__name__),
        f"`pip install vamp` (needs a C++ compiler), and install {_PACKS}",
        packages=("vamp", "numpy"),
    ),
    "numpy": NumpyEngine(),
}


def choose(name: str) -> Engine:
    """Return an engine, a key of `ENGINES`; for `auto`, the first that can be used on this machine.

    Raises EngineError if the engine cannot be used on this machine.
    """
    reason = ""
    for engine in ENGINES.values() if name == "auto" else [ENGINES[name]]:
        try:
            engine.versions()
            return engine
        except EngineError as error:
            reason = str(error)
    raise EngineError(f"the engine {name} cannot be used here: {reason}")


@functools.cache
def _versions(engine: PluginEngine, *_environment: str | None) -> dict[str, str]:
    """Return the versions of an engine, cached by the variables of the environment that change them."""
    plugins = {t.plugin: t.vamp_id for t in TRANSFORMS.values()}
    libraries = {path.stem for folder in _vamp_folders() for path in Path(folder).glob("*.*")}
    parts: dict[str, object] = {engine.program[0]: shutil.which(engine.program[0])}
    parts |= {name: importlib.util.find_spec(name) for name in engine.packages}
    parts |= {pack: pack in libraries for pack in (plugin.partition(":")[0] for plugin in plugins)}
    if missing := [name for name, part in parts.items() if not part]:
        raise EngineError(f"{', '.join(missing)} not found; {engine.install}")
    with tempfile.TemporaryDirectory(prefix=f"{engine.name}-") as folder:
        run = functools.partial(engine.run, folder=Path(folder))
        versions = {name: importlib.metadata.version(name) for name in engine.packages}
        texts = {plugin: run(["-s", vamp_id]) for plugin, vamp_id in plugins.items()}
        if not versions:
            texts[engine.name] = run(["-v"])
    for part, printed in texts.items():
        pattern = r'vamp:plugin_version\s+"+([^"]+)"' if part in plugins else r"(\d+(?:\.\d+)+)"
        if not (match := re.search(pattern, printed.stdout)):
            raise EngineError(f"{engine.name} prints no version of {part} ({_fault(printed)}); {engine.install}")
        versions[part] = match[1]
    return versions


def _vamp_folders() -> list[str]:
    """Return the folders of Vamp plugins, absolute: those of VAMP_PATH, or the Vamp SDK's defaults for Unix."""
    home = os.environ.get("HOME", "/")
    default = os.pathsep.join([f"{home}/vamp", f"{home}/.vamp", "/usr/local/lib/vamp", "/usr/lib/vamp"])
    folders = (os.environ.get("VAMP_PATH") or default).split(os.pathsep)
    return [str(Path(folder).absolute()) for folder in folders if folder]


def _prepare(source: Path, target: Path) -> int:
    """Write the samples of a file as a mono wav; return its sample rate in Hz."""
    from scipy.io import wavfile

    sample_rate, blocks = extraction.open_audio(source)
    with tempfile.TemporaryFile(dir=target.parent) as stream:
        for block in blocks:
            if not np.isfinite(block).all():
                raise FeatureError(f"{source}: {NOT_FINITE}")
            stream.write(block.tobytes())
        try:
            wavfile.write(target, sample_rate, np.memmap(stream, block.dtype, "r"))
        except ValueError as error:  # more than 4 GB
            raise FeatureError(f"{source}: {error}: decode it to a mono wav file, or cut it") from error
    return sample_rate


def _fault(result: subprocess.CompletedProcess[str], name: str = "") -> str:
    """Return the exit status of the program and its last errors, those about the file of that name if there are any."""
    code = result.returncode
    status = signal.Signals(-code).name if code < 0 else f"exit status {code}"
    is_error = re.compile("error|running|unable", re.IGNORECASE).search
    errors = [line.strip() for line in result.stderr.splitlines() if is_error(line)]
    return ": ".join([status, *([line for line in errors if name in line] or errors)[-2:]])
