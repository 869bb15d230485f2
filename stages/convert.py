"""Convert the pretrained MusiCNN checkpoint to ONNX.

python -m stages.convert
dvc repro convert      with the stages before it, if they changed
"""

from __future__ import annotations

from collections.abc import Sequence

from genre import files, params
from genre.cli import argument_parser, run_command
from genre.models import musicnn
from genre.paths import Paths


def main(argv: Sequence[str] | None = None) -> int:
    """Run the stage: the installed package musicnn -> model_weights/musicnn/."""
    argument_parser(__doc__).parse_args(argv)
    paths = Paths()
    checkpoint = params.load().musicnn.network
    path = paths.musicnn(checkpoint)
    musicnn.convert(checkpoint, path)
    files.remove_others(path.parent, {path})
    print(f"convert: {checkpoint}, {path.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    run_command(main)
