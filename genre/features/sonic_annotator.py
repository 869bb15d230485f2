"""The engine `sonic-annotator`: the command-line tool, run once per batch of files with all transforms."""

from __future__ import annotations

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

from genre import files
from genre.audio.ffmpeg import stream_native
from genre.errors import EngineError, FeatureError, GenreError
from genre.features.engine import Failures, Job
from genre.features.extraction import vamp_folders
from genre.features.transforms import TRANSFORMS

PROGRAM = "sonic-annotator"
INSTALL = "install sonic-annotator and the Vamp plugin packs qm-vamp-plugins and bbc-vamp-plugins"


class SonicAnnotator:
    """sonic-annotator on PATH, with the QM and BBC plugins on VAMP_PATH."""

    name = "sonic-annotator"

    def unusable(self) -> str | None:
        """Return None if the tool is on PATH and lists all transforms, otherwise the reason."""
        if shutil.which(PROGRAM) is None:
            return f"{PROGRAM} is not on PATH; {INSTALL}"
        listed = set(_run(["-l"]).stdout.split())
        missing = [t.vamp_id for t in TRANSFORMS.values() if t.vamp_id not in listed]
        return f"{PROGRAM} does not list {', '.join(missing)}; {INSTALL}" if missing else None

    def versions(self) -> dict[str, str]:
        """Return the versions of the tool and of the plugins."""
        tool = re.search(r"\d+(\.\d+)+", _run(["-v"]).stdout)
        versions = {PROGRAM: tool.group() if tool else "unknown"}
        for transform in TRANSFORMS.values():
            skeleton = _run(["-s", transform.vamp_id]).stdout
            plugin = re.search(r'vamp:version\D*(\d+)|plugin_version\s+"([^"]+)"', skeleton)
            versions[transform.plugin] = (plugin[1] or plugin[2]) if plugin else "unknown"
        return versions

    def extract(self, jobs: Sequence[Job]) -> Failures:
        """Write the CSV files of all jobs. See `Engine.extract`.

        The tool takes sample rate and channel count from the first file of a run, cuts file names at '#', overwrites
        the CSV of an equal file name and exits with 0 after errors. So each run gets mono files of one rate with
        numbers as names, and every expected CSV is checked.
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
    try:
        with wave.open(str(source), "rb") as stream:
            if stream.getnchannels() == 1 and stream.getnframes() > 0:
                target.symlink_to(source.resolve())
                return stream.getframerate()
    except (wave.Error, EOFError, OSError):
        pass  # another format
    from scipy.io import wavfile

    sample_rate, blocks = stream_native(source)
    wavfile.write(target, sample_rate, np.concatenate([np.empty(0, np.float32), *blocks]))
    return sample_rate


def _extract_batch(folder: Path, batch: dict[Path, Job]) -> Failures:
    transforms = [argument for t in TRANSFORMS.values() for argument in ("-d", t.vamp_id)]
    options = ["-w", "csv", "--csv-basedir", str(folder), "--csv-force", "--force"]
    result = _run([*transforms, *options, *map(str, batch)])
    if match := re.search(r'ERROR: (Failed to load plugin for transform "[^"]*")', result.stderr):
        raise EngineError(f"{PROGRAM}: {match.group(1)}; {INSTALL}")
    failures: Failures = {}
    for audio, job in batch.items():
        outputs = {t: folder / t.csv_name(audio.stem) for t in TRANSFORMS.values()}
        missing = [t.feature for t, path in outputs.items() if not path.is_file() or not path.stat().st_size]
        if missing:
            reason = f"{PROGRAM} wrote no {missing[0]} ({_reason(result, audio)})"
            failures[job.audio] = FeatureError(f"{job.audio}: {reason}")
            continue
        for transform, path in outputs.items():
            with files.atomic_path(job.target(transform)) as temporary:
                shutil.copyfile(path, temporary)
    return failures


def _reason(result: subprocess.CompletedProcess[str], audio: Path) -> str:
    """Return the tool's last error about one file, or its last error about any, or its exit status."""
    errors = [line.strip() for line in result.stderr.splitlines() if re.search("ERROR|[Ee]rror:", line)]
    own = [line for line in errors if audio.name in line]
    return (own or errors or [f"exit status {result.returncode}"])[-1].replace(str(audio), "the file")


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the tool with a temporary HOME, where it writes log and configuration files."""
    with tempfile.TemporaryDirectory(prefix="sonic-annotator-home-") as home:
        environment = {**os.environ, "HOME": home, "VAMP_PATH": os.pathsep.join(map(str, vamp_folders()))}
        try:
            return subprocess.run(
                [PROGRAM, *arguments], capture_output=True, text=True, errors="replace", env=environment, check=False
            )
        except OSError as error:
            raise EngineError(f"{PROGRAM} cannot be run: {error}") from error
