"""Faults of a song's file, measured in one pass over its samples at their own sample rate."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from genre import files
from genre.audio import chunks, ffmpeg, manifest
from genre.audio.process import collected_warnings
from genre.audit.findings import Finding
from genre.audit.songs import AuditedSongs
from genre.errors import GenreError

VERSION = 3  # part of the cache key: raise it when a measurement or a limit changes
N_FFT = 4096  # samples
PIECE = 64 * N_FFT  # samples in memory
FULL_SCALE = 0.999  # amplitude from which a sample is at full scale
MAX_MISSING_S = 0.5  # of a song that fills a chunk
CLIPPED_RUN = 3  # consecutive samples at full scale
MAX_CLIPPED = 1e-4  # share of samples in the middle of such runs
SILENT_DB = -60.0  # level of a song that is hardly audible
MONO_RATIO = 1e-6  # -60 dB, power of the difference of two channels relative to their sum
BANDS = 40  # of equal width from 0 Hz to half the sample rate
EDGES = range(8, 28)  # bands where a spectrum may end too early: 0.2 to 0.7 of half the sample rate
EDGE_DB = 20.0  # drop within two bands where a spectrum ends; music, without a low-pass filter, has up to 17 dB

Fault = tuple[str, str, str, float]  # kind, evidence, suggestion and severity, as of a `Finding`


def find(audited: AuditedSongs) -> Iterator[Finding]:
    """Yield the faults of the songs' files, and the songs that split could not decode."""
    for source, reason in manifest.failures(audited.paths.chunks).items():
        kind = "silent" if reason.endswith(chunks.SILENT_MESSAGE) else "damaged"
        yield Finding(audited.name(source), kind, reason.removeprefix(f"{source}: "), "replace or remove it")
    measured, root = ["audit quality", VERSION, ffmpeg.version()], audited.paths.root
    items = [(files.digest(*measured, row.source_sha256), root / row.source) for row in audited.songs.values()]
    options = {"workers": audited.settings.parallel.workers, "keep_errors": True}  # errors are not in the cache
    of_songs = audited.cache.run(_faults, items, description="quality", **options)
    for (song, row), of_song in zip(audited.songs.items(), of_songs, strict=True):
        if isinstance(of_song, GenreError):
            yield Finding(song, "damaged", str(of_song).removeprefix(f"{root / row.source}: "), "replace it")
        else:
            yield from (Finding(song, *fault) for fault in json.loads(of_song))
        if row.seconds < audited.settings.split.chunk_seconds - MAX_MISSING_S:
            evidence = f"{row.seconds:.1f} s of {audited.settings.split.chunk_seconds:g} s"
            yield Finding(song, "short", evidence, "use the whole song", -row.seconds)


def faults(path: Path) -> list[Fault]:
    """Return the faults of a file: what the decoder warns of, silence, clipping, equal channels, a low bandwidth.

    Raises AudioError if it is missing or cannot be decoded.
    """
    from scipy import fft

    power, energy, difference, n_clipped, n_samples = np.zeros(N_FFT // 2 + 1), 0.0, 0.0, 0, 0
    sample_rate, n_channels, window = 0, 0, np.hanning(N_FFT).astype(np.float32)
    with collected_warnings() as warnings:
        sample_rate, blocks = ffmpeg.stream_channels(path)
        for block in ffmpeg.pieces(blocks, PIECE):
            n_channels = block.shape[1]
            energy += float(np.square(block).sum(dtype=np.float64))
            difference += float(np.square(block[:, 0] - block[:, -1]).sum(dtype=np.float64))
            n_clipped += _n_clipped(block)
            n_samples += block.size
            frames = np.resize(block, (-(-len(block) // N_FFT) * N_FFT, n_channels)).T.reshape(-1, N_FFT)
            power += np.square(np.abs(fft.rfft(frames * window, axis=1))).sum(axis=0)
    faults = [("damaged", warning.removeprefix(f"{path}: "), "replace it", 0.0) for warning in warnings]
    level_db = float(10 * np.log10(energy / max(n_samples, 1) + 1e-12))  # of full scale
    if level_db < SILENT_DB:
        faults.append(("silent", f"level {level_db:.0f} dB", "replace or remove it", -level_db))
    clipped = n_clipped / max(n_samples, 1)
    if clipped > MAX_CLIPPED:
        faults.append(("clipped", f"{clipped:.2%} of the samples are clipped", "look for a better copy", clipped))
    if n_channels == 2 and difference <= MONO_RATIO * 2 * energy:
        faults.append(("mono", "two equal channels", "none: the models use one channel", 0.0))
    if (share := _bandwidth(power)) is not None:
        evidence = f"the spectrum ends at {share * sample_rate / 2000:.1f} kHz of {sample_rate / 2000:.1f} kHz"
        faults.append(("bandwidth", evidence, "look for a copy of a higher bit rate", -share))
    return faults


def _n_clipped(block: npt.NDArray[np.float32]) -> int:
    """Return the number of samples [shape=(n, channels)] that start a run of `CLIPPED_RUN` samples at full scale."""
    full = np.abs(block) >= FULL_SCALE
    return int(np.logical_and.reduce([full[i : len(full) - CLIPPED_RUN + 1 + i] for i in range(CLIPPED_RUN)]).sum())


def _bandwidth(power: npt.NDArray[np.float64]) -> float | None:
    """Return the edge above which a power spectrum [shape=(bins,)] is low, as a fraction of its bins, or None."""
    width = len(power) // BANDS
    levels_db = 10 * np.log10(power[: BANDS * width].reshape(BANDS, width).mean(axis=1) + 1e-20)
    ends = (edge / BANDS for edge in EDGES if levels_db[edge - 1] - levels_db[edge + 1 :].max() >= EDGE_DB)
    return next(ends, None)


def _faults(path: Path) -> bytes:
    return json.dumps(faults(path)).encode()
