"""Train the fingerprint network on the training songs, for `identify --engine network`.

python -m stages.fingerprint
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import numpy as np
from tqdm import tqdm

from genre import files, params
from genre.audio import manifest
from genre.cli import run_command
from genre.models import cards, keras_backend
from genre.search import contrastive, network
from genre.search.contrastive import Source
from genre.search.songs import of_rows

if TYPE_CHECKING:
    import keras

CHUNKS = Path("chunks")
LOSS = Path("training") / network.MODEL / "loss.csv"
PACKAGES = ("keras", "tensorflow", "tensorflow-cpu", "numpy", "scipy", "onnx", "tf2onnx")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: the training songs -> model_architecture/, model_weights/, training/fingerprint."""
    parser = argparse.ArgumentParser(prog="python -m stages.fingerprint", description=__doc__.splitlines()[0])
    parser.parse_args(argv)
    settings = params.load()
    chosen = settings.fingerprint
    sources = _training_songs(manifest.read(CHUNKS), chosen.max_songs, chosen.seed)
    onnx, its_card, losses = train(sources, chosen, settings.dataset.name, settings.parallel.workers)
    network.write(onnx, its_card)
    rows = ([epoch * contrastive.STEPS_PER_EPOCH, f"{loss:.6f}"] for epoch, loss in enumerate(losses, 1))
    files.write_table(LOSS, ["step", "loss"], rows)
    print(f"fingerprint: {len(sources)} songs, {chosen.max_steps} steps, loss {losses[0]:.3f} -> {losses[-1]:.3f}")
    return 0


def train(
    sources: Sequence[Source], chosen: params.FingerprintParams, dataset: str, workers: int | None = None
) -> tuple[bytes, network.Card, tuple[float, ...]]:
    """Train a network on songs; return its ONNX file, its card, and the losses on the way.

    Raises
    ------
    SearchError
        As `contrastive.fit`.
    AudioError
        If a song cannot be decoded.
    """
    songs = contrastive.hear(sources, chosen.renditions, chosen.seed, workers)
    window_frames, hop_frames = (round(seconds * network.FRAMES_PER_S) for seconds in (chosen.window_s, chosen.hop_s))
    keras_backend.prepare()
    from genre.models.onnx import to_onnx

    with keras_backend.quiet() as stderr, _progress(chosen.max_steps, stderr) as bar:
        trained = contrastive.fit(
            songs,
            window_frames=window_frames,
            hop_frames=hop_frames,
            dimension=chosen.dimension,
            max_steps=chosen.max_steps,
            batch_size=chosen.batch_size,
            learning_rate=chosen.learning_rate,
            temperature=chosen.temperature,
            seed=chosen.seed,
            callbacks=[bar],
        )
    with keras_backend.quiet():
        onnx = to_onnx(trained.model)
    its_card = network.Card(
        front_end=network.FRONT_END,
        window_frames=window_frames,
        hop_frames=hop_frames,
        dimension=chosen.dimension,
        background=trained.background,
        dataset={"name": dataset, "songs": [source.sha256 for source in sources]},
        training=chosen.model_dump(),
        versions=cards.installed_versions(PACKAGES),
        onnx_sha256=hashlib.sha256(onnx).hexdigest(),
    )
    return onnx, its_card, trained.losses


def _training_songs(rows: Sequence[manifest.Row], max_songs: int, seed: int) -> list[Source]:
    """Return the training songs, or as many of them, drawn at random."""
    songs = of_rows([row for row in rows if row.split == "train"])
    chosen = np.random.default_rng(seed).permutation(len(songs))[:max_songs]
    lasts = (songs[i].rows[-1] for i in sorted(chosen))
    return [Source(Path(last.source), last.source_sha256, last.start_s + last.seconds) for last in lasts]


@contextlib.contextmanager
def _progress(max_steps: int, stderr: TextIO) -> Iterator[keras.callbacks.Callback]:
    """Yield a callback that moves a progress bar."""
    import keras

    with tqdm(
        total=-(-max_steps // contrastive.STEPS_PER_EPOCH),
        desc="train fingerprint",
        unit=f"{contrastive.STEPS_PER_EPOCH} steps",
        file=stderr,
        disable=not stderr.isatty(),
    ) as bar:
        yield keras.callbacks.LambdaCallback(on_epoch_end=lambda _epoch, _logs: bar.update())


if __name__ == "__main__":
    run_command(main)
