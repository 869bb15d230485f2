"""Packages of models: zip files with some files of a project, a README and the SHA-256 of each."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import shutil
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

from genre import files
from genre.errors import ModelError

MANIFEST = "manifest.json"
FORMAT = 1
MAX_RATIO, MAX_BYTES = 20, 1 << 30  # the files take at most 20 times the package's size or 1 GiB, whichever is more
MAX_TEXT_BYTES = {MANIFEST: 1 << 20, "params.yaml": 1 << 13}  # libyaml crashes at 20,000 nested lists


def write(path: Path, contents: Mapping[str, Path | str]) -> None:
    """Write a package of files, atomically, with manifest.json; equal contents give equal bytes.

    `contents` has, by its name in the package, the path of each file or its text. A name in a package of models is the
    path in a project.
    """
    digests = {}
    with files.atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w") as archive:
        for name, source in sorted(contents.items()):
            entry = zipfile.ZipInfo(name)  # of 1980-01-01
            entry.compress_type = zipfile.ZIP_DEFLATED
            with io.BytesIO(source.encode()) if isinstance(source, str) else source.open("rb") as stream:
                digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
                stream.seek(0)
                with archive.open(entry, "w", force_zip64=True) as target:
                    shutil.copyfileobj(stream, target)
        archive.writestr(zipfile.ZipInfo(MANIFEST), json.dumps({"format": FORMAT, "sha256": digests}, indent=1))


def extract(path: Path) -> tempfile.TemporaryDirectory[str]:
    """Return a temporary folder with the files of a package, which is a project without songs.

    Raises ModelError if the file is no package or damaged: if its files or their SHA-256 are not those of its manifest,
    a name leads out of the folder, or the files take much more space than the package. Raises OSError if the disk is
    full.
    """
    folder = tempfile.TemporaryDirectory(prefix="genre-")
    try:
        with zipfile.ZipFile(path) as archive:
            if sum(entry.file_size for entry in archive.infolist()) > max(MAX_BYTES, MAX_RATIO * path.stat().st_size):
                raise ValueError(f"its files take more than {MAX_RATIO} times its size")
            for name, most in MAX_TEXT_BYTES.items():
                if archive.getinfo(name).file_size > most:
                    raise ValueError(f"its {name} is too large")
            manifest = json.loads(archive.read(MANIFEST))
            if manifest["format"] != FORMAT:
                raise ValueError(f"its format is {manifest['format']}, this version reads {FORMAT}")
            if sorted(archive.namelist()) != sorted([MANIFEST, *manifest["sha256"]]):
                raise ValueError(f"its files are not those of {MANIFEST}")
            for name, sha256 in manifest["sha256"].items():
                written = Path(archive.extract(name, folder.name))  # never outside of the folder
                if written != Path(folder.name, name) or files.sha256(written) != sha256:
                    raise ValueError(f"{name} is not permitted or differs from {MANIFEST}")
    except Exception as error:  # zipfile, zlib and json raise many kinds for damaged files
        folder.cleanup()
        if isinstance(error, OSError) and error.errno == errno.ENOSPC:
            raise OSError(error.errno, error.strerror, tempfile.gettempdir()) from error
        raise ModelError(f"{path}: is not a complete model package ({error}); `genre pack` writes them") from error
    return folder
