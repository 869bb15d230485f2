"""Made-up songs, chunks, vectors, settings and models that several test files use."""

from __future__ import annotations

import contextlib
import os
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import yaml

from genre.audio import chunks, manifest
from genre.audio.ffmpeg import executable
from genre.features import arrays
from genre.features.transforms import TRANSFORMS, Settings
from genre.search.landmarks import SAMPLE_RATE

ROOT = Path(__file__).parent.parent
GOLDEN = ROOT / "tests" / "golden"
Signal = npt.NDArray[np.float32]


def write_params(folder: Path, **changes: object) -> None:
    """Write a params.yaml with settings for a tiny data set; changes are keyword arguments section__key=value."""
    settings = yaml.safe_load((ROOT / "params.yaml").read_text())
    small: dict[str, object] = {
        "dataset__name": "tiny",
        "split__chunk_seconds": 3.0,
        "split__min_seconds": 1.0,
        "extract__engine": "numpy",
        "train__epochs": 2,
        "train__members": 1,
        "train__filters": 8,
        "baselines__models": ["stats_svm"],
        "ensemble__models": ["merged", "stats_svm"],
        "index__embedding": "statistics",
    }
    for key, value in (small | changes).items():
        section, name = key.split("__")
        settings[section][name] = value
    (folder / "params.yaml").write_text(yaml.safe_dump(settings, sort_keys=False))


def outs(project: Path) -> dict[str, bytes]:
    """Return the contents of the files that split, extract and vectorize wrote, by name."""
    return {
        path.relative_to(project).as_posix(): path.read_bytes()
        for folder in ("chunks", "features", "pickled_vectors")
        for path in sorted((project / folder).rglob("*"))
        if path.is_file() and path.name != ".gitignore"
    }


def touch(folder: Path, *names: str) -> None:
    """Write a file of each name below a folder; its contents are its name."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(os.fsencode(name))


def make_song(
    path: Path,
    *,
    seconds: float = 4.0,
    hz: float = 220.0,
    noise: float = 0.01,
    sample_rate: int = 22_050,
    channels: int = 1,
    seed: int = 0,
    muxer: str | None = None,
) -> Path:
    """Write a song of a chord with a beat, in the format of the file's extension; return its path."""
    rng = np.random.default_rng(seed)
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    chord = sum(np.sin(2 * np.pi * hz * ratio * t) for ratio in (1.0, 1.25, 1.5)) / 3
    signal = 0.4 * chord * (0.6 + 0.4 * np.sign(np.sin(2 * np.pi * 2.0 * t))) + noise * rng.standard_normal(len(t))
    path.parent.mkdir(parents=True, exist_ok=True)
    samples: npt.NDArray[np.int16] = (np.clip(signal, -1, 1) * 32767).astype("<i2").repeat(channels)
    command = [executable(), "-v", "error", "-y", "-f", "s16le", "-ar", str(sample_rate), "-ac", str(channels)]
    command += ["-i", "pipe:", *(["-f", muxer] if muxer else []), f"file:{path}"]
    subprocess.run(command, input=samples.tobytes(), check=True)
    return path


def music(seed: int, seconds: float = 20.0, sample_rate: int = SAMPLE_RATE) -> Signal:
    """Return a song of random notes with harmonics and a little noise [shape=(n,)]."""
    rng = np.random.default_rng(seed)
    n_samples = round(seconds * sample_rate)
    song = 0.003 * rng.standard_normal(n_samples)
    for _ in range(round(6 * seconds)):
        begin = int(rng.integers(0, n_samples))
        t = np.arange(min(round(rng.uniform(0.2, 0.8) * sample_rate), n_samples - begin)) / sample_rate
        hz = 440.0 * 2 ** (rng.integers(-24, 24) / 12)
        tones = sum(np.sin(2 * np.pi * k * hz * t) / k for k in range(1, 5) if k * hz < sample_rate / 2)
        song[begin : begin + len(t)] += rng.uniform(0.1, 0.4) * tones * np.exp(-4 * t)
    song /= 2 * np.abs(song).max()
    return song.astype(np.float32)


def noise(n_samples: int, seed: int = 0) -> npt.NDArray[np.int16]:
    """Return white noise as PCM 16 bit [shape=(n_samples,)]."""
    return np.random.default_rng(seed).normal(0, 3000, n_samples).astype(np.int16)


def pcm(song: Signal) -> npt.NDArray[np.int16]:
    """Return a song as PCM 16 bit [shape=(n,)]."""
    return (song * 32767).round().astype(np.int16)


def write_music(path: Path, seed: int, *, less_bass: bool) -> Path:
    """Write 8 s of `music` at 22050 Hz; songs with less bass are another genre than the others. Return the path."""
    song = music(seed, 8.0, 22_050)
    if less_bass:
        song = np.diff(song, prepend=np.float32(0))
    path.parent.mkdir(parents=True, exist_ok=True)
    chunks.write(path, pcm(song), sample_rate=22_050)
    return path


def ffmpeg_run(*arguments: object) -> None:
    """Run ffmpeg, which overwrites its output."""
    subprocess.run([executable(), "-v", "error", "-y", *map(str, arguments)], check=True)


def chirp(seconds: float, sample_rate: int) -> npt.NDArray[np.int16]:
    """Return a tone of 200 Hz at 0 s that rises by 40 Hz per second [shape=(n,)]: its pitch tells the position."""
    t = np.arange(round(seconds * sample_rate)) / sample_rate
    samples: npt.NDArray[np.int16] = np.rint(12_000 * np.sin(2 * np.pi * (200 * t + 20 * t**2))).astype(np.int16)
    return samples


def write_field_files(folder: Path) -> None:
    """Write files with the faults that collections have, of a chirp of 20 s: see the names."""
    base, flac, mp3, m4a = (folder / f"base.{suffix}" for suffix in ("wav", "flac", "mp3", "m4a"))
    chunks.write(base, chirp(20.0, 44_100), sample_rate=44_100)
    for path in (flac, mp3, m4a):
        ffmpeg_run("-i", base, "-ac", 2, path)
    xing = bytearray(mp3.read_bytes())
    at = xing.index(b"Info" if b"Info" in xing else b"Xing") + 8
    for name, n_frames in (("xing_short", 100), ("xing_long", 20_000)):
        xing[at : at + 4] = n_frames.to_bytes(4, "big")
        (folder / f"{name}.mp3").write_bytes(xing)
    for path in (base, flac, mp3):
        data = path.read_bytes()
        (folder / f"cut{path.suffix}").write_bytes(data[: len(data) * 6 // 10 + 1])
    id3 = b"ID3\x04\x00\x00\x00\x00\x00\x0a" + bytes(10)
    (folder / "tagged.flac").write_bytes(id3 + flac.read_bytes() + b"TAG" + bytes(125))
    ffmpeg_run("-t", 8, "-i", base, folder / "first.ogg")
    ffmpeg_run("-ss", 8, "-i", base, "-ac", 2, "-ar", 48_000, folder / "second.ogg")
    (folder / "chained.ogg").write_bytes((folder / "first.ogg").read_bytes() + (folder / "second.ogg").read_bytes())
    for suffix in ("wav", "flac"):
        ffmpeg_run("-i", folder / "first.ogg", folder / f"first.{suffix}")
        ffmpeg_run("-i", folder / "second.ogg", folder / f"second.{suffix}")
        parts = [(folder / f"{name}.{suffix}").read_bytes() for name in ("first", "second")]
        (folder / f"joined.{suffix}").write_bytes(b"".join(parts))
    ffmpeg_run("-ss", 3.3, "-i", m4a, "-c", "copy", folder / "edited.m4a")
    sine, black = ("-f", "lavfi", "-i", "sine=d=20"), ("-f", "lavfi", "-i", "color=s=16x16:r=5:d=30")
    second = ("-map", 0, "-map", 1, "-disposition:1", "default", "-disposition:0", 0)
    ffmpeg_run(*sine, "-i", base, *second, "-c:a", "flac", folder / "streams.mka")
    ffmpeg_run(*black, "-i", base, folder / "video.mp4")
    cancel = ("-af", "pan=stereo|c0=c0|c1=-1*c0")
    for name in ("cancelled.flac", "cancelled.m4a", "cancelled.mp3"):
        ffmpeg_run("-i", base, *cancel, folder / name)
    ffmpeg_run("-i", base, "-af", "volume=-90dB", folder / "faint.flac")
    ffmpeg_run("-i", base, "-t", 0.05, folder / "click.wav")
    ffmpeg_run("-f", "lavfi", "-i", "anullsrc=d=20", folder / "silent.mp3")
    (folder / "rate.ape").write_bytes(ape_bomb(352_800_000))


def ape_bomb(sample_rate: int, n_frames: int = 1190) -> bytes:
    """Return Monkey's Audio of silence, 24 bytes for each frame of 2^28 samples."""
    n_samples = (2**31 - 1) // 8 - 16
    frame = struct.pack("<II", 0x80000000, 3) + bytes(12)  # flags follow; silence on both channels
    first, size = 76 + 4 * n_frames, len(frame)
    head = struct.pack("<4sHHIIIIIII16s", b"MAC ", 3990, 0, 52, 24, 4 * n_frames, 0, size * n_frames, 0, 0, bytes(16))
    head += struct.pack("<HHIIIHHI", 2000, 0, n_samples, n_samples, n_frames, 16, 2, sample_rate)
    positions = struct.pack(f"<{n_frames}I", *range(first, first + size * n_frames, size))
    return head + positions + frame * n_frames


@contextlib.contextmanager
def serving(handler: Callable[..., BaseHTTPRequestHandler]) -> Iterator[str]:
    """Run a quiet HTTP server on loopback, and yield its host and port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server, pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseHTTPRequestHandler, "log_message", lambda *_: None)
        patch.setenv("no_proxy", "127.0.0.1")
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, args=(0.02,)).start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()


def write_songs(folder: Path, n_songs: int = 4, suffix: str = ".flac") -> None:
    """Write a data set of the genres high and low with so many songs each, of 4 s and more."""
    for genre, hz in (("high", 660.0), ("low", 110.0)):
        for n in range(n_songs):
            make_song(folder / genre / f"song {n}{suffix}", seconds=4.0 + n, hz=hz, seed=n)


def write_chunks(project: Path, n_songs: int = 3, *, equal: bool = False) -> list[manifest.Row]:
    """Write a chunk of noise per song, equal or not, for both splits of two genres, and the index; return its rows."""
    rows = []
    for number in range(4 * n_songs):
        genre, split = ("high", "low")[number % 2], ("train", "test")[number // 2 % 2]
        name = f"{split}/{genre}/song {number}-000.wav"
        chunks.write(project / "chunks" / name, noise(3 * 22_050, 0 if equal else number), sample_rate=22_050)
        source = f"dataset/tiny/{genre}/song {number}.wav"
        rows.append(manifest.Row(name, f"song {number}", genre, split, 0.0, 3.0, source, f"{number:064x}"))
    manifest.write(project / "chunks", rows)
    return rows


def write_vectors(folder: Path, rows: Sequence[manifest.Row], settings: Settings) -> None:
    """Write random vectors of chunks, with another mean for each genre and as many frames as the MFCC of 3 s."""
    rng, genres = np.random.default_rng(0), sorted({row.genre for row in rows})
    features = []
    for row in rows:
        shape = 2.0 + genres.index(row.genre)
        vectors = {t.feature: rng.gamma(shape, size=(65, t.columns)) for t in TRANSFORMS.values()}
        features.append({feature: vector.astype(np.float32) for feature, vector in vectors.items()})
    arrays.write(folder, rows, features, settings)


def save_svm(root: Path, *, default: bool = False, **dataset: object) -> None:
    """Write the baseline `stats_svm` of two made-up genres, the fastest model to train, into a project.

    With `default`, also an ensemble that makes it the default model. `dataset` is that of the cards.
    """
    from genre.models import baselines, cards, embeddings
    from genre.paths import Paths

    paths = Paths(root)
    labels = np.repeat([0, 1], 8)
    songs = [str(number) for number in range(16)]
    vectors = (np.random.default_rng(0).normal(0, 3, (16, 287)) + labels[:, np.newaxis]).astype(np.float32)
    trained = baselines.train("stats_svm", vectors, arrays.VectorSet({}, labels, songs, ["high", "low"], songs))
    card = cards.ModelCard(
        model="stats_svm",
        kind="svm",
        genres=["high", "low"],
        settings=Settings(22_050, 3.0, 1.0),
        embedding=embeddings.load("statistics", paths).describe(),
        calibration=trained.calibration,
        dataset=dataset,
    )
    cards.write(card, paths, trained.onnx)
    if default:
        ensemble = {"model": cards.ENSEMBLE, "models": [card.model], "default": card.model}
        cards.write(replace(card, **ensemble, embedding=None), paths)  # type: ignore[arg-type]


def python(folder: Path, *arguments: str | Path, status: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run Python with the modules of this project in a folder; its exit code must be `status`."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)} | variables
    command = [sys.executable, *arguments]
    result = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == status, result.stdout + result.stderr
    return result


def start(project: Path, *command: str, out: int = subprocess.DEVNULL) -> subprocess.Popen[bytes]:
    """Start a command in a project, in a process group of its own; `out` is where it prints, errors too."""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.Popen(command, cwd=project, env=environment, start_new_session=True, stdout=out, stderr=out)
