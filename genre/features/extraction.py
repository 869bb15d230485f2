"""From audio files to feature CSVs, for the engines that compute block by block in this process."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from genre import files
from genre.audio import chunks
from genre.audio.ffmpeg import stream_native
from genre.errors import AudioError, EngineError, FeatureError, GenreError
from genre.features import csv
from genre.features.engines import Failures, Job
from genre.features.numpy_engine import Features, Samples
from genre.features.transforms import TRANSFORMS

ComputeBlocks = Callable[[Iterable[Samples], int], Iterator[Features]]

MAX_WHOLE_BYTES = 1 << 26  # of a wav file that is read at once; longer ones are streamed through ffmpeg


def extract(jobs: Sequence[Job], compute_blocks: ComputeBlocks) -> Failures:
    """Write the CSV files of all jobs, each file in bounded memory; return the files that failed.

    Parameters
    ----------
    jobs : sequence of Job
        What to extract, and where to.
    compute_blocks : callable
        Takes consecutive blocks of samples and the sample rate in Hz, yields the next rows of every feature.

    Raises
    ------
    EngineError
        If the engine itself fails.
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


def _extract_file(job: Job, compute_blocks: ComputeBlocks) -> None:
    sample_rate, blocks = _open(job.audio)
    with contextlib.ExitStack() as stack:
        streams = {
            t: stack.enter_context(stack.enter_context(files.atomic_path(job.target(t))).open("wb"))
            for t in TRANSFORMS.values()
        }
        n_rows = dict.fromkeys(streams, 0)
        for part in compute_blocks(blocks, sample_rate):
            for transform, stream in streams.items():
                values = part[transform.feature]
                stream.write(csv.format_rows(values, sample_rate, transform.step, n_rows[transform]))
                n_rows[transform] += len(values)
        if not all(n_rows.values()):
            raise FeatureError("holds no audio")


def _open(path: Path) -> tuple[int, Iterable[Samples]]:
    """Return sample rate and samples: of a mono PCM wav at once and without ffmpeg, of anything else in blocks."""
    try:
        if path.stat().st_size <= MAX_WHOLE_BYTES:
            samples, sample_rate = chunks.read(path)
            return sample_rate, (samples,)
    except (AudioError, OSError):
        pass  # ffmpeg reads it, or tells why not
    return stream_native(path)
