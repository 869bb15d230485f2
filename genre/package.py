"""Model packages: zip files with the models of a project, for machines that have neither its songs nor DVC.

A package has files of a project by their paths in it, README.md, and manifest.json with the SHA-256 of each file.
"""

from __future__ import annotations

import hashlib
import json
import re
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from genre import files
from genre.errors import ModelError

MANIFEST: Final = "manifest.json"
README: Final = "README.md"
FORMAT: Final = 1
MAX_RATIO: Final = 20  # of the total size of the files, above `MAX_BYTES`, to that of the package
MAX_BYTES: Final = 1 << 30
_NAME: Final = re.compile(r"(\w[\w.-]*/)*\w[\w.-]*")  # a path that stays below a folder, on every system


def write(path: Path, root: Path, names: Iterable[str], readme: str) -> None:
    """Write a package of files below a project's root folder, atomically; equal files give equal bytes."""
    digests = {}
    with files.atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(names):
            data = (root / name).read_bytes()
            digests[name] = hashlib.sha256(data).hexdigest()
            archive.writestr(zipfile.ZipInfo(name), data, zipfile.ZIP_DEFLATED)  # with the date 1980-01-01
        archive.writestr(zipfile.ZipInfo(README), readme)
        archive.writestr(zipfile.ZipInfo(MANIFEST), json.dumps({"format": FORMAT, "sha256": digests}, indent=1))


def extract(path: Path, folder: Path) -> None:
    """Write the files of a package into a folder, which then is a project without songs.

    Raises ModelError if the file is no package or damaged: if its files or their SHA-256 are not those of its manifest,
    a name leads out of the folder, or the files take much more space than the package.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > max(MAX_BYTES, MAX_RATIO * path.stat().st_size):
                raise ValueError(f"its files take more than {MAX_RATIO} times its size")
            manifest = json.loads(archive.read(MANIFEST))
            if manifest["format"] != FORMAT:
                raise ValueError(f"its format is {manifest['format']}, this version reads {FORMAT}")
            if sorted(archive.namelist()) != sorted([MANIFEST, README, *manifest["sha256"]]):
                raise ValueError(f"its files are not those of {MANIFEST}")
            for name, sha256 in manifest["sha256"].items():
                if not _NAME.fullmatch(name) or files.sha256(Path(archive.extract(name, folder))) != sha256:
                    raise ValueError(f"{name} is not permitted or differs from {MANIFEST}")
    except Exception as error:  # zipfile, zlib and json raise many kinds for damaged files
        raise ModelError(f"{path}: is not a complete model package ({error}); `genre pack` writes them") from error
