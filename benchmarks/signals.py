"""Write 12 signals of 30 s without music, and 5 texts that espeak-ng speaks, none of which has a genre.

    python -m benchmarks.signals FOLDER
    python -m stages.query --format csv FOLDER

Silence and noise in the lowest bit are errors of query, the others are unknown.
"""

from __future__ import annotations

import argparse
import subprocess
from pathlib import Path

import numpy as np

from genre.audio import chunks

RATE = 44_100  # Hz
TEXT = "The library holds nine thousand records, each with its title and its year. " * 6


def main() -> None:
    """Write the signals as wav files."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.signals", description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of the files, created if missing")
    folder = parser.parse_args().folder
    t, rng = np.arange(30 * RATE) / RATE, np.random.default_rng(1)
    noise, sine = rng.standard_normal(len(t)), np.sin(2 * np.pi * 440 * t)
    spectrum, hz = np.fft.rfft(noise), np.maximum(np.fft.rfftfreq(len(t), 1 / RATE), 10)
    slopes = {"white": 0.0, "pink": -0.5, "brown": -1.0, "blue": 0.5}
    waves = {name: np.fft.irfft(spectrum * hz**slope) for name, slope in slopes.items()}
    waves |= {"sine": sine, "two tones": sine + np.sin(2 * np.pi * 660 * t), "square": np.sign(sine)}
    waves |= {"sweep": np.sin(840 * np.pi * 200 ** (t / 30)), "clicks": 1.0 * (np.arange(len(t)) % (RATE // 2) == 0)}
    waves["hum"] = np.sin(2 * np.pi * 50 * t) + 0.3 * np.sin(2 * np.pi * 100 * t) + 0.01 * noise
    signals = {name: (16_000 * wave / np.abs(wave).max()).astype(np.int16) for name, wave in waves.items()}
    signals |= {"silence": np.zeros(len(t), np.int16), "lowest bit": rng.integers(-1, 2, len(t)).astype(np.int16)}
    for name, samples in signals.items():
        chunks.write(folder / f"{name}.wav", samples, sample_rate=RATE)
    for voice in ("en-us", "en-gb+f3", "de", "fr+f2", "es+m3"):
        subprocess.run(["espeak-ng", "-v", voice, "-w", str(folder / f"speech {voice}.wav"), TEXT], check=True)


if __name__ == "__main__":
    main()
