"""Model packages: zip files with the models of a project, for machines that have neither its songs nor DVC.

A package has the files of a project by their paths in it, README.md, and manifest.json with the size and SHA-256 of
each file.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

from genre import files
from genre.errors import ModelError

MANIFEST: Final = "manifest.json"
README: Final = "README.md"
FORMAT: Final = 1
MAX_MANIFEST_BYTES: Final = 1 << 24
MAX_RATIO: Final = 20  # of the sizes of the files and the package
_NAME: Final = re.compile(r"(\w[\w.-]*/)*\w[\w.-]*")  # a path that stays below a folder, on every system


def write(path: Path, root: Path, names: Iterable[str], readme: str) -> None:
    """Write a package of files below a project's root folder, atomically; equal files give equal bytes."""
    manifest: dict[str, Any] = {"format": FORMAT, "files": {}}
    with files.atomic_path(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(_entry(README), readme)
        for name in sorted(names):
            manifest["files"][name] = {"bytes": (root / name).stat().st_size, "sha256": files.sha256(root / name)}
            with (root / name).open("rb") as source, archive.open(_entry(name), "w", force_zip64=True) as target:
                shutil.copyfileobj(source, target)
        archive.writestr(_entry(MANIFEST), json.dumps(manifest, indent=1))


def extract(path: Path, folder: Path) -> None:
    """Write the files of a package into a folder, which then is a project without songs.

    Raises ModelError if the file is no package or damaged: if it has other files than its manifest, or of another size
    or SHA-256, or a name that leads out of the folder, or takes much more space than the package.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo(MANIFEST).file_size > MAX_MANIFEST_BYTES:
                raise ValueError(f"{MANIFEST} is too large")
            manifest = json.loads(archive.read(MANIFEST))
            if manifest["format"] != FORMAT:
                raise ValueError(f"its format is {manifest['format']}, this version reads {FORMAT}")
            names = sorted(archive.namelist())
            if names != sorted([MANIFEST, README, *manifest["files"]]):
                raise ValueError("its files are not those of its manifest")
            if sum(entry["bytes"] for entry in manifest["files"].values()) > MAX_RATIO * path.stat().st_size:
                raise ValueError(f"its files are more than {MAX_RATIO} times as large as the package")
            for name, expected in manifest["files"].items():
                if not _NAME.fullmatch(name):
                    raise ValueError(f"the name {name!r} is not permitted")
                _copy(archive, name, expected, folder / name)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError, zipfile.BadZipFile) as error:
        raise ModelError(f"{path}: is not a complete model package ({error}); `genre pack` writes them") from error


def _copy(archive: zipfile.ZipFile, name: str, expected: dict[str, Any], target: Path) -> None:
    """Write a file of a package; it is not read further than its size in the manifest."""
    target.parent.mkdir(parents=True, exist_ok=True)
    digest, missing = hashlib.sha256(), int(expected["bytes"])
    with archive.open(name) as source, target.open("xb") as stream:
        while block := source.read(min(missing, 1 << 20)):
            missing -= stream.write(block)
            digest.update(block)
        if missing or source.read(1) or digest.hexdigest() != expected["sha256"]:
            raise ValueError(f"the contents of {name} are not those of its manifest")


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)  # of 1980, so that equal files give equal bytes
    entry.compress_type = zipfile.ZIP_DEFLATED
    return entry
