"""Packages of models: zip files with some files of a project, a README and their SHA-256."""

from __future__ import annotations

import json
import tempfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

from genre import files
from genre.errors import ModelError

MANIFEST, README = "manifest.json", "README.md"
FORMAT = 1
MAX_RATIO, MAX_BYTES = 20, 1 << 30  # the files take at most so many times the size of the package, or so many bytes


def write(path: Path, root: Path, names: Iterable[str], readme: str) -> None:
    """Write a package of files below a project's root folder, atomically; equal files give equal bytes.

    It has the files by their paths in the project, README.md, and manifest.json with the SHA-256 of each file.
    """
    digests = {name: files.sha256(root / name) for name in sorted(names)}
    texts = {README: readme, MANIFEST: json.dumps({"format": FORMAT, "sha256": digests}, indent=1)}
    with files.atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in (*texts, *digests):  # with the date 1980-01-01
            archive.writestr(zipfile.ZipInfo(name), texts.get(name) or (root / name).read_bytes(), zipfile.ZIP_DEFLATED)


def extract(path: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder with the files of a package, which is a project without songs.

    Raises ModelError if the file is no package or damaged: if its files or their SHA-256 are not those of its manifest,
    a name leads out of the folder, or the files take much more space than the package.
    """
    folder = tempfile.TemporaryDirectory(prefix="genre-")
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
                written = Path(archive.extract(name, folder.name))  # never outside of the folder
                if written != Path(folder.name, name) or files.sha256(written) != sha256:
                    raise ValueError(f"{name} is not permitted or differs from {MANIFEST}")
    except Exception as error:  # zipfile, zlib and json raise many kinds for damaged files
        folder.cleanup()
        raise ModelError(f"{path}: is not a complete model package ({error}); `genre pack` writes them") from error
    return folder
