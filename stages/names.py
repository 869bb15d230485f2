"""List the files of the data set that DVC cannot track, and rename those whose names are not UTF-8.

python -m stages.names
python -m stages.names --rename
"""

from __future__ import annotations

import argparse
import hashlib
import os
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from genre import params
from genre.audio import dataset
from genre.cli import run_command
from genre.paths import Paths
from genre.terminal import one_line

MAX_BYTES = 240  # of a name; file systems allow 255


def main(argv: Sequence[str] | None = None) -> int:
    """Print each file of the data set that DVC cannot track, and the reason; return 1 if there are any, else 0."""
    parser = argparse.ArgumentParser(prog="python -m stages.names", description=__doc__.splitlines()[0])
    parser.add_argument("--rename", action="store_true", help="rename files and folders whose names are not UTF-8")
    rename = parser.parse_args(argv).rename
    folder = Paths().datasets / params.load().dataset.name
    if rename:  # a folder is renamed after its contents, whose paths contain it
        paths = [path for path, fault in dataset.dvc_faults(folder) if fault == dataset.NOT_UTF8]
        for path in sorted(paths, key=lambda path: -len(path.parts)):
            target = _utf8_path(path)
            path.rename(target)
            print(one_line(f"names: {path} -> {target.name}"))
    faults = list(dataset.dvc_faults(folder))
    for path, fault in faults:
        print(one_line(f"names: {path} {fault}"), file=sys.stderr)
    return 1 if faults else 0


def _utf8_path(path: Path) -> Path:
    """Return an unused path in the same folder, with bytes that are not UTF-8 decoded as Windows-1252."""
    name = "".join(
        os.fsencode(c).decode("cp1252", errors="replace") if unicodedata.category(c) == "Cs" else c for c in path.name
    )
    whole = Path(unicodedata.normalize("NFC", name))
    max_stem_bytes = MAX_BYTES - len(whole.suffix.encode())
    target = path.with_name(whole.stem.encode()[:max_stem_bytes].decode(errors="ignore") + whole.suffix)
    if os.path.lexists(target):
        digest = hashlib.sha256(os.fsencode(path.name)).hexdigest()[:8]
        target = target.with_stem(f"{target.stem}~{digest}")
    return target


if __name__ == "__main__":
    run_command(main)
