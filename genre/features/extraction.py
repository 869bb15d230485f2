"""From audio files to CSVs, block by block, given a function that computes features."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from genre import archives, files
from genre.audio import chunks
from genre.audio.ffmpeg import stream_channels
from genre.errors import AudioError, EngineError, FeatureError, GenreError
from genre.features import csv
from genre.features.transforms import TRANSFORMS, Features, Samples

ComputeBlocks = Callable[[Iterable[Samples], int], Iterator[Features]]

MAX_WHOLE_BYTES = 1 << 26  # of a wav file that is read at once; a longer file is streamed through ffmpeg


@dataclass(frozen=True, slots=True)
class Job:
    """An audio file, and the output folder of each feature."""

    audio: Path
    folders: Mapping[str, Path]  # by feature name

    @property
    def targets(self) -> list[Path]:
        """Return the paths of the CSVs in the order of `TRANSFORMS`, with the file names of sonic-annotator."""
        return [self.folders[t.feature] / t.csv_name(self.audio.stem) for t in TRANSFORMS.values()]


Failures = dict[Path, GenreError]  # by audio file


def extract(jobs: Sequence[Job], compute_blocks: ComputeBlocks) -> Failures:
    """Write the CSV files of all jobs in bounded memory; return the error of each audio file that failed.

    Raises EngineError if the engine itself fails.

    `compute_blocks` maps consecutive blocks of samples and the sample rate in Hz to the next rows of every feature.
    """
    failures: Failures = {}
    for job in jobs:
        try:
            _extract_file(job, compute_blocks)
        except EngineError:
            raise
        except FeatureError as error:
            failures[job.audio] = FeatureError(f"{job.audio}: {error}")
        except GenreError as error:
            failures[job.audio] = error
    return failures


def open_audio(path: Path) -> tuple[int, Iterable[Samples]]:
    """Return the sample rate in Hz and blocks of samples: a mono PCM wav is one, ffmpeg decodes other formats.

    Those of ffmpeg are the arithmetic mean of the channels, each clipped to -1.0 to 1.0. Raises AudioError as
    `stream_channels`.
    """
    try:
        if archives.archive_of(path) or (path.is_file() and path.stat().st_size <= MAX_WHOLE_BYTES):
            samples, sample_rate = chunks.read(path)
            if samples.size and sample_rate > 0:
                return sample_rate, (samples,)
    except (AudioError, OSError):
        pass  # ffmpeg reads it, or reports the error
    sample_rate, blocks = stream_channels(path)  # of a named pipe, too: `is_file` is false
    clipped = (np.clip(frames, -1.0, 1.0) for frames in blocks)
    return sample_rate, (frames.sum(axis=1, dtype=np.float32) / np.float32(frames.shape[1]) for frames in clipped)


def _extract_file(job: Job, compute_blocks: ComputeBlocks) -> None:
    sample_rate, blocks = open_audio(job.audio)
    with contextlib.ExitStack() as stack:
        streams = {
            t: stack.enter_context(stack.enter_context(files.atomic_path(target)).open("wb"))
            for t, target in zip(TRANSFORMS.values(), job.targets, strict=True)
        }
        n_rows = dict.fromkeys(streams, 0)
        for part in compute_blocks(blocks, sample_rate):
            for transform, stream in streams.items():
                values = part[transform.feature]
                stream.write(csv.format_rows(values, sample_rate, transform.step, n_rows[transform]))
                n_rows[transform] += len(values)
