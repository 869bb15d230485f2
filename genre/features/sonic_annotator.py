"""The engine `sonic-annotator`: the real tool, run once per batch of files with all transforms."""

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
        """Return None if the tool is here and lists all our transforms; otherwise what is missing."""
        if shutil.which(PROGRAM) is None:
            return f"{PROGRAM} is not on PATH; {INSTALL}"
        listed = set(_run(["-l"]).stdout.split())
        missing = [t.vamp_id for t in TRANSFORMS.values() if t.vamp_id not in listed]
        return f"{PROGRAM} does not list {', '.join(missing)}; {INSTALL}" if missing else None

    def versions(self) -> dict[str, str]:
        """Return the versions of the tool and of the plugins, as the tool tells them."""
        tool = re.search(r"\d+(\.\d+)+", _run(["-v"]).stdout)
        found = {PROGRAM: tool.group() if tool else "unknown"}
        for transform in TRANSFORMS.values():
            plugin = ":".join(transform.vamp_id.split(":")[1:3])
            version = re.search(r"vamp:version\D*(\d+)", _run(["-s", transform.vamp_id]).stdout)
            version = version or re.search(r'plugin_version\s+"([^"]+)"', _run(["-s", transform.vamp_id]).stdout)
            found[plugin] = version.group(1) if version else "unknown"
        return found

    def extract(self, jobs: Sequence[Job]) -> Failures:
        """Write the CSV files of all jobs. See `Engine.extract`.

        The tool takes rate and channel count from the first file of a run, cuts names at '#' and lets equal names
        overwrite each other. So it is given mono files of one rate per run, under numbered names, in a folder of
        its own, and each expected CSV is looked for afterwards: its exit code proves nothing.
        """
        failures: Failures = {}
        with tempfile.TemporaryDirectory(prefix="sonic-annotator-") as name:
            folder = Path(name)
            runs: defaultdict[int, dict[Path, Job]] = defaultdict(dict)
            for number, job in enumerate(jobs):
                audio = folder / f"{number:06d}.wav"
                try:
                    runs[_prepare(job.audio, audio)][audio] = job
                except GenreError as error:
                    failures[job.audio] = error
            for batch in runs.values():
                failures |= _extract_batch(folder, batch)
        return failures


def _prepare(source: Path, target: Path) -> int:
    """Put a mono version of `source` at `target`, a link where it is a mono PCM wav already; return its rate in Hz."""
    try:
        with wave.open(str(source), "rb") as stream:
            if stream.getnchannels() == 1 and stream.getnframes() > 0:
                target.symlink_to(source.resolve())
                return stream.getframerate()
    except (wave.Error, EOFError, OSError):
        pass  # another format
    sample_rate, blocks = stream_native(source)
    _write_float_wav(target, b"".join(block.astype("<f4").tobytes() for block in blocks), sample_rate)
    return sample_rate


def _write_float_wav(path: Path, data: bytes, sample_rate: int) -> None:
    """Write mono float32 samples as a wav (the standard library writes integers only)."""
    fmt = np.array([3, 1], "<u2").tobytes() + np.array([sample_rate, 4 * sample_rate], "<u4").tobytes()
    fmt += np.array([4, 32], "<u2").tobytes()
    size = np.array([36 + len(data)], "<u4").tobytes()
    head = b"RIFF" + size + b"WAVEfmt " + b"\x10\0\0\0" + fmt + b"data" + np.array([len(data)], "<u4").tobytes()
    path.write_bytes(head + data)


def _extract_batch(folder: Path, batch: dict[Path, Job]) -> Failures:
    transforms = [argument for t in TRANSFORMS.values() for argument in ("-d", t.vamp_id)]
    options = ["-w", "csv", "--csv-basedir", str(folder), "--csv-force", "--force"]
    result = _run([*transforms, *options, *map(str, batch)])
    if match := re.search(r'ERROR: (Failed to load plugin for transform "[^"]*")', result.stderr):
        raise EngineError(f"{PROGRAM}: {match.group(1)}; {INSTALL}")
    failures: Failures = {}
    for audio, job in batch.items():
        made = {t: folder / t.csv_name(audio.stem) for t in TRANSFORMS.values()}
        missing = [t.feature for t, path in made.items() if not path.is_file() or not path.stat().st_size]
        if missing:
            reason = f"{PROGRAM} wrote no {missing[0]} ({_reason(result, audio)})"
            failures[job.audio] = FeatureError(f"{job.audio}: {reason}")
            continue
        for transform, path in made.items():
            with files.atomic_path(job.target(transform)) as temporary:
                shutil.copyfile(path, temporary)
    return failures


def _reason(result: subprocess.CompletedProcess[str], audio: Path) -> str:
    """Return what the tool said of one file, or else its last words."""
    errors = [line.strip() for line in result.stderr.splitlines() if "ERROR" in line or "rror:" in line]
    own = [line for line in errors if audio.name in line]
    return (own or errors or [f"exit status {result.returncode}"])[-1].replace(str(audio), "the file")


def _run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    """Run the tool with its log and configuration files in a HOME that is thrown away."""
    with tempfile.TemporaryDirectory(prefix="sonic-annotator-home-") as home:
        environment = {**os.environ, "HOME": home, "VAMP_PATH": os.pathsep.join(map(str, vamp_folders()))}
        try:
            return subprocess.run(
                [PROGRAM, *arguments], capture_output=True, text=True, errors="replace", env=environment, check=False
            )
        except OSError as error:
            raise EngineError(f"{PROGRAM} cannot be run: {error}") from error
