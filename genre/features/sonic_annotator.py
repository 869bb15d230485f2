"""The engine `sonic-annotator`: the command-line tool, run once per batch of files with all transforms."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import tempfile
import wave
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from genre.audio.ffmpeg import stream_native
from genre.audio.process import MAX_RATE_HZ
from genre.errors import EngineError, FeatureError, GenreError
from genre.features.extraction import Failures, Job, exit_reason, publish, vamp_folders
from genre.features.transforms import NOT_FINITE, TRANSFORMS

PROGRAM = "sonic-annotator"
INSTALL = "install sonic-annotator and the Vamp plugin packs qm-vamp-plugins and bbc-vamp-plugins"


class SonicAnnotator:
    """sonic-annotator on PATH, with the QM and BBC plugins on VAMP_PATH."""

    name = "sonic-annotator"

    def unusable(self) -> str | None:
        """Return None if the tool is on PATH and lists all transforms, otherwise the reason."""
        try:
            result = _run(["-l"])
        except EngineError as error:
            return str(error)
        missing = [t.vamp_id for t in TRANSFORMS.values() if t.vamp_id not in result.stdout.split()]
        fault = f"-l fails ({_fault(result)})" if result.returncode else f"does not list {', '.join(missing)}"
        return f"{PROGRAM} {fault}; {INSTALL}" if missing else None

    def versions(self) -> dict[str, str]:
        """Return the versions of the tool and of the plugins.

        Raises EngineError if the tool does not print them.
        """
        versions = {PROGRAM: _version(r"(\d+(?:\.\d+)+)", ["-v"])}
        for transform in TRANSFORMS.values():
            versions[transform.plugin] = _version(r'vamp:plugin_version\s+"+([^"]+)"', ["-s", transform.vamp_id])
        return versions

    def extract(self, jobs: Sequence[Job]) -> Failures:
        """Write the CSV files of all jobs. See `Engine.extract`.

        The tool takes sample rate and channel count from the first file of a run, cuts file names at '#', overwrites
        the CSV of an equal file name and exits with 0 after errors. So each run gets mono files of one rate with
        numbers as names, and every expected CSV is checked. After a crash, the files are passed to it one by one.
        """
        failures: Failures = {}
        with tempfile.TemporaryDirectory(prefix="sonic-annotator-") as name:
            folder = Path(name)
            batches: defaultdict[int, dict[Path, Job]] = defaultdict(dict)  # by sample rate
            for number, job in enumerate(jobs):
                audio = folder / f"{number:06d}.wav"
                try:
                    batches[_prepare(job.audio, audio)][audio] = job
                except GenreError as error:
                    failures[job.audio] = error
            for batch in batches.values():
                failures |= _extract_batch(folder, batch)
        return failures


def _prepare(source: Path, target: Path) -> int:
    """Link a mono PCM wav to `target`, or write any other file there as mono float wav; return its rate in Hz."""
    if source.is_file():  # a named pipe would block
        with contextlib.suppress(wave.Error, EOFError, OSError, RuntimeError), wave.open(str(source), "rb") as stream:
            sample_rate = stream.getframerate()
            if stream.getnchannels() == 1 and 0 < sample_rate <= MAX_RATE_HZ and stream.readframes(1):
                target.symlink_to(source.resolve())
                return sample_rate
    from scipy.io import wavfile

    sample_rate, blocks = stream_native(source)
    samples = np.concatenate(list(blocks))
    if not np.isfinite(samples).all():
        raise FeatureError(f"{source}: {NOT_FINITE}")
    wavfile.write(target, sample_rate, samples)
    return sample_rate


def _extract_batch(folder: Path, batch: dict[Path, Job]) -> Failures:
    transforms = [argument for t in TRANSFORMS.values() for argument in ("-d", t.vamp_id)]
    options = ["-w", "csv", "--csv-basedir", ".", "--csv-force", "--force"]
    # Relative names: the tool would take '#' and '?' in the path of the temporary folder for parts of a URL.
    result = _run([*transforms, *options, *(audio.name for audio in batch)], folder)
    if match := re.search(r'ERROR: (Failed to load plugin for transform "[^"]*")', result.stderr):
        raise EngineError(f"{PROGRAM}: {match.group(1)}; {INSTALL}")
    failures: Failures = {}
    if result.returncode and len(batch) > 1:
        for audio, job in batch.items():
            failures |= _extract_batch(folder, {audio: job})
        return failures
    for audio, job in batch.items():
        outputs = {t: folder / t.csv_name(audio.stem) for t in TRANSFORMS.values()}
        missing = [t.feature for t, path in outputs.items() if not path.is_file() or not path.stat().st_size]
        if result.returncode or missing:
            reason = f"{PROGRAM} wrote no {missing[0]}" if missing else f"{PROGRAM} failed"
            failures[job.audio] = FeatureError(f"{job.audio}: {reason} ({_reason(result, audio, job.audio)})")
        else:
            publish(job, folder, audio.stem)
    return failures


def _reason(result: subprocess.CompletedProcess[str], audio: Path, source: Path) -> str:
    """Return the tool's last error about one file, or its last error about any file, or its exit status.

    `audio` is the name that the tool was given, `source` the name in the message.
    """
    errors = [line.strip() for line in result.stderr.splitlines() if re.search("ERROR|[Ee]rror:", line)]
    own = [line for line in errors if audio.name in line]
    if result.returncode < 0 or not errors:
        return exit_reason(result.returncode)
    return (own or errors)[-1].replace(str(audio), source.name).replace(audio.name, source.name)


def _fault(result: subprocess.CompletedProcess[str]) -> str:
    """Return the exit status of the tool and the last line of its standard error."""
    return ": ".join([exit_reason(result.returncode), *result.stderr.strip().splitlines()[-1:]])


def _version(pattern: str, arguments: list[str]) -> str:
    result = _run(arguments)
    if match := re.search(pattern, result.stdout):
        return match[1]
    raise EngineError(f"{PROGRAM} {' '.join(arguments)} prints no version ({_fault(result)}); {INSTALL}")


def _run(arguments: list[str], folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the tool in a folder, with a temporary HOME, where it writes log and configuration files."""
    program = shutil.which(PROGRAM)
    if program is None:
        raise EngineError(f"{PROGRAM} is not on PATH; {INSTALL}")
    command = [str(Path(program).absolute()), *arguments]
    plugins = os.pathsep.join(str(path.absolute()) for path in vamp_folders())
    with tempfile.TemporaryDirectory(prefix="sonic-annotator-home-") as home:
        environment = {**os.environ, "HOME": home, "VAMP_PATH": plugins}
        try:
            return subprocess.run(
                command, capture_output=True, text=True, errors="replace", env=environment, cwd=folder, check=False
            )
        except OSError as error:
            raise EngineError(f"{PROGRAM} cannot be run: {error}") from error
