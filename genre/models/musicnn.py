"""MusiCNN, a network pretrained to tag music, as an embedding of chunks.

The network and its weights are those of the PyPI package `musicnn` 0.1.0 (ISC licence; J. Pons and X. Serra, "musicnn:
pre-trained convolutional neural networks for music audio tagging", ISMIR 2019 late-breaking). `convert` writes them to
an ONNX file; the package's code is never run.
"""

from __future__ import annotations

import importlib.util
import math
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from genre import files
from genre.errors import ModelError
from genre.features.transforms import hann
from genre.models import onnx

Array = npt.NDArray[Any]  # of float32 or float64
Pair = tuple[Array, Array]

SAMPLE_RATE = 16_000  # Hz
FFT = 512  # samples
HOP = 256  # samples
N_MELS = 96
PATCH_FRAMES = 187  # 3 s: what the network was trained on
CHECKPOINTS = {  # SHA-256 of the weights in the package
    "MTT_musicnn": "041f3935e981a65cea739842d30c188d3a7d2adf4410955c8668eb3de4a5acab",  # MagnaTagATune
    "MSD_musicnn": "8579734ee6388f799ed0def4bbd0d1fdcbeaf213ef2a9dc860917bd76a303de6",  # Million Song Dataset
}
VECTORS = {"max_pool": slice(0, 753), "penultimate": slice(753, 953), "both": slice(0, 953)}
VERSION = 3  # raised with every change of the numbers beyond rounding

KERNELS = (  # of the package's conv2d, conv2d_1, ..., dense
    *((7, 38, 1, 204), (7, 67, 1, 204), (128, 1, 1, 51), (64, 1, 1, 51), (32, 1, 1, 51)),
    *((7, 561, 1, 64), (7, 64, 1, 64), (7, 64, 1, 64), (1506, 200)),
)
N_FRONT_END = 5  # convolutions over time and frequency
CHANNELS = (1, 204, 204, 51, 51, 51, 64, 64, 64, 1506, 200)  # of batch_normalization, batch_normalization_1, ...
EPSILON = 1e-3  # of the batch normalisation
BLOCK = 8  # filters that ONNX Runtime computes together
DEAD = 1e-6  # relative norm below which a filter is dead: most front-end filters of MSD_musicnn are


@lru_cache(maxsize=4)
def network(path: Path) -> Any:
    """Return the session of an ONNX file that `convert` wrote; raise ModelError if it is missing or damaged."""
    return onnx.session(path, optimised=True)


def embed(path: Path, samples: npt.NDArray[np.int16], sample_rate: int) -> npt.NDArray[np.float32]:
    """Return the embedding [shape=(953,)] of a mono chunk [shape=(n,)]: the mean over its patches of 3 s.

    `path` is that of the `network`, and `sample_rate` is in Hz; `VECTORS` names the parts of the embedding.
    """
    # One patch at a time: the activations of several do not fit into the processor's cache (twice as slow).
    inputs = ({"patches": patch[np.newaxis]} for patch in patches(samples, sample_rate))
    parts = [onnx.run(network(path), patch, str(path)) for patch in inputs]
    if any(part.shape != (1, VECTORS["both"].stop) for part in parts):
        raise ModelError(f"{path} has another number of outputs: {onnx.REMEDY}")
    return np.asarray(np.concatenate(parts).mean(axis=0, dtype=np.float64), np.float32)


def convert(checkpoint: str, path: Path) -> None:
    """Write the network of a checkpoint of the installed package to an ONNX file.

    Raises ModelError if the package is not installed or holds other weights.
    """
    files.write_bytes(path, onnx.from_text("musicnn.onnxtxt", _constants(*_weights(checkpoint))))


def patches(samples: npt.NDArray[np.int16], sample_rate: int) -> npt.NDArray[np.float32]:
    """Return the log mel spectrogram of a chunk in patches of 3 s [shape=(patches, 187, 96)]: log10(10000 power + 1).

    The package's own front end computes the logarithm in float16, which overflows on loud music; this one uses float32.
    An incomplete last patch is dropped; a chunk shorter than one patch is repeated.
    """
    import soxr

    signal = soxr.resample(samples.astype(np.float32) / 32768, sample_rate, SAMPLE_RATE, "HQ").astype(np.float64)
    framed = np.lib.stride_tricks.sliding_window_view(np.pad(signal, FFT // 2), FFT)[::HOP]
    n_patches = max(1, len(framed) // PATCH_FRAMES)
    frames = [_log_mel(framed[i * PATCH_FRAMES : (i + 1) * PATCH_FRAMES]) for i in range(n_patches)]
    return np.resize(np.concatenate(frames), (n_patches, PATCH_FRAMES, N_MELS))  # np.resize repeats


@lru_cache(maxsize=1)
def mel_filters() -> npt.NDArray[np.float32]:
    """Return the mel filter bank of the front end [shape=(257, 96)], equal to librosa's: triangles of unit area.

    The mel scale is that of M. Slaney's Auditory Toolbox (1998): linear below 1 kHz, logarithmic above.
    """
    mels = np.linspace(0.0, 15 + 27 * math.log(SAMPLE_RATE / 2 / 1000, 6.4), N_MELS + 2)
    edges = np.where(mels < 15, mels * 200 / 3, 1000 * 6.4 ** ((mels - 15) / 27))  # Hz
    low, centre, high = edges[:-2], edges[1:-1], edges[2:]
    frequency = np.fft.rfftfreq(FFT, 1 / SAMPLE_RATE)[:, np.newaxis]
    triangles = np.minimum((frequency - low) / (centre - low), (high - frequency) / (high - centre))
    return np.asarray(np.maximum(triangles, 0.0) * 2 / (high - low), np.float32)


def _log_mel(frames: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """Return the spectrogram [shape=(n, 96)] of frames of a signal at 16 kHz with a full scale of 1.0 [shape=(n, 512)].

    Frame i of a signal is centred on sample i * HOP, as in librosa.
    """
    spectrum = np.fft.rfft(frames * hann(FFT), axis=1)
    power = spectrum.real**2 + spectrum.imag**2
    return np.asarray(np.log10(10_000 * (power.astype(np.float32) @ mel_filters()) + 1))


def _weights(checkpoint: str) -> tuple[list[Pair], list[Pair]]:
    """Return kernel and bias of each convolution and of the dense layer, and scale and offset of each normalisation.

    The file of the weights has all variables in the order of their names, each with its two slots of Adam.
    """
    spec = importlib.util.find_spec("musicnn")  # without importing it: its code needs TensorFlow 1
    if spec is None or not spec.submodule_search_locations:
        raise ModelError("the package musicnn is not installed: run `pip install --no-deps musicnn==0.1.0`")
    path = Path(spec.submodule_search_locations[0], checkpoint, ".data-00000-of-00001")
    if not path.is_file() or files.sha256(path) != CHECKPOINTS[checkpoint]:
        raise ModelError(f"{path} is not the file of musicnn 0.1.0: run `pip install --no-deps musicnn==0.1.0`")
    values = np.fromfile(path, "<f4")
    normalisations, affine = {}, []
    for number in sorted(range(len(CHANNELS)), key=str):  # 0, 1, 10, 2, ...
        block, values = np.split(values, [8 * CHANNELS[number]])
        beta, _, _, gamma, _, _, mean, variance = block.reshape(8, -1)
        scale = gamma / np.sqrt(variance + EPSILON)
        normalisations[number] = scale, beta - mean * scale
    values = values[2:]  # powers of Adam's decay rates
    for shape in KERNELS:
        biases, kernels, values = np.split(values, np.cumsum([3 * shape[-1], 3 * math.prod(shape)]))
        affine.append((kernels.reshape(3, *shape)[0], biases.reshape(3, -1)[0]))
    return affine, [normalisations[number] for number in range(len(CHANNELS))]


def _constants(affine: list[Pair], normalisations: list[Pair]) -> dict[str, Array]:
    """Return the constants of musicnn.onnxtxt by name; layers are numbered as in the package's `models.py`.

    Dead filters of the front end are not computed. Their outputs are constants, whose part is in the bias of the next
    convolution, and in the result. The maximum over frequency comes before ReLU and normalisation; with a negative
    scale it is the minimum.
    """
    values: dict[str, Array] = {}
    live = []
    for number, (filters, bias) in enumerate(affine[:N_FRONT_END]):
        kernel, computed = _without_dead(filters)
        live.append(computed)
        sign = np.sign(normalisations[number + 1][0])
        kernel, bias = (kernel * sign)[..., computed], (bias * sign)[computed]
        values |= {f"kernel_{number}": kernel.transpose(3, 2, 0, 1), f"bias_{number}": bias}
    for number in (6, 7):  # the package convolves an image over its whole height
        kernel, bias = affine[number]
        values |= {f"kernel_{number}": kernel.transpose(3, 1, 0, 2), f"bias_{number}": bias}
    computed, bias = np.concatenate(live), np.concatenate([bias for _, bias in affine[:N_FRONT_END]])
    scale, offset = (np.concatenate(part) for part in zip(*normalisations[1 : N_FRONT_END + 1], strict=True))
    constants = np.where(computed, 0.0, np.maximum(bias, 0.0) * scale + offset)
    of_channels = {"sign": np.sign(scale[computed]), "scale": scale[computed], "offset": offset[computed]}
    for number in (0, 6, 7, 8, 10):
        of_channels |= {f"scale_{number}": normalisations[number][0], f"offset_{number}": normalisations[number][1]}
    values |= {name: array.reshape(-1, 1, 1) for name, array in of_channels.items()}

    kernel, bias = affine[5]
    taps = constants @ kernel[:, :, 0]
    dead = [np.convolve(np.ones(PATCH_FRAMES), tap[::-1], "same") for tap in taps.T]  # with zeros outside
    values |= {"kernel_5": kernel.transpose(3, 1, 0, 2)[:, computed], "bias_5": (np.array(dead).T + bias).T[..., None]}

    n_pooled = VECTORS["max_pool"].stop
    computed = np.pad(computed, (0, n_pooled - len(computed)), constant_values=True)
    constants = np.pad(constants, (0, n_pooled - len(constants)))
    values |= {"rows": np.eye(n_pooled)[:, computed, None, None], "constants": constants}
    (kernel, bias), (scale, offset) = affine[-1], normalisations[9]
    values["bias_8"] = bias + (np.repeat(constants, 2) * scale + offset) @ kernel
    maximum, mean = (kernel * scale[:, None]).reshape(n_pooled, 2, -1)[computed].swapaxes(0, 1)  # they alternate
    values["kernel_8"] = np.concatenate([maximum, mean]).T[..., None, None]
    return {name: np.ascontiguousarray(array, np.float32) for name, array in values.items()}


def _without_dead(kernel: Array) -> tuple[Array, npt.NDArray[np.bool_]]:
    """Return a kernel with zeros for dead filters, so that a classifier does not scale up their noise.

    Return also which filters to compute [shape=(filters,)]: the others, and dead ones up to a multiple of `BLOCK`.
    """
    norms = np.linalg.norm(kernel.reshape(-1, kernel.shape[-1]).astype(np.float64), axis=0)
    norms = np.where(norms > DEAD * norms.max(), norms, 0.0)
    count = -(-np.count_nonzero(norms) // BLOCK) * BLOCK
    return np.where(norms, kernel, 0.0), np.isin(np.arange(len(norms)), np.argsort(-norms)[:count])
