"""Download a data set through mirdata, check it, and write it as one folder per genre.

python -m stages.fetch
python -m stages.fetch gtzan-mini

Without a name it takes dataset.name. A data set that is there already is left as it is.
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from genre import files, params
from genre.audio import dataset
from genre.cli import run_command
from genre.errors import DatasetError
from genre.paths import Paths


@dataclass(frozen=True, slots=True)
class Source:
    """A data set of mirdata, which declares addresses, checksums, citation and licence."""

    mirdata_name: str
    version: str
    downloads: tuple[str, ...]  # names of the remote files
    n_songs: int

    def __str__(self) -> str:
        return f"{self.mirdata_name} ({self.version})"


SOURCES = {"gtzan-mini": Source("gtzan_genre", "mini", ("index", "mini"), 100)}


MADE = ("demo",)  # data sets that another stage makes


def main(argv: Sequence[str] | None = None) -> int:
    """Write dataset/<name>, and its name into dataset/name.txt.

    Raises DatasetError if there is no such data set and it can be neither made nor downloaded, or DVC cannot track it.
    """
    parser = argparse.ArgumentParser(prog="python -m stages.fetch", description=__doc__.splitlines()[0])
    parser.add_argument("name", nargs="?", help="default: dataset.name in params.yaml")
    name, paths = parser.parse_args(argv).name or params.load().dataset.name, Paths()
    folder = paths.datasets / name
    if name in SOURCES and not folder.is_dir():
        _download(SOURCES[name], folder)
    elif name not in MADE and not folder.is_dir():
        folders = {path.name for path in paths.datasets.glob("[!.]*/")}
        names = ", ".join(sorted(folders | {*MADE, *SOURCES}))
        raise DatasetError(f"there is no data set {folder}/: set dataset.name in params.yaml to one of {names}")
    for path, fault in dataset.dvc_faults(folder):  # DVC's own errors name neither path nor reason
        raise DatasetError(f"{path} {fault}")
    files.write_text(paths.dataset_name, f"{name}\n")
    return 0


def _download(source: Source, out: Path) -> None:
    try:
        import mirdata
    except ImportError:
        raise DatasetError("mirdata is not installed: `pip install mirdata`, or `make setup`") from None
    logging.getLogger().setLevel(logging.INFO)  # shows the downloads of mirdata
    out.parent.mkdir(exist_ok=True)
    with (
        tempfile.TemporaryDirectory(prefix="mirdata-") as home,
        tempfile.TemporaryDirectory(prefix=".", dir=out.parent) as folder,
    ):
        try:
            remote = mirdata.initialize(source.mirdata_name, data_home=home, version=source.version)
            remote.download(partial_download=list(source.downloads), force_overwrite=True)
        except (OSError, ValueError) as error:  # mirdata raises OSError for a wrong checksum too
            raise DatasetError(f"{source} cannot be downloaded: {error}") from error
        songs = _checked_songs(remote, source)
        complete = Path(folder, out.name)
        for song, path in songs.items():
            genre = complete / song.split(".")[0]
            genre.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, genre / path.name)
        complete.rename(out)
    print(f"fetch: {out.name}: {len(songs)} songs, all checksums correct")


def _checked_songs(remote: Any, source: Source) -> dict[str, Path]:
    """Return the audio file of each downloaded song, after a check of number and checksums."""
    songs = {track.track_id: Path(track.audio_path) for track in remote.load_tracks().values()}
    if missing := [song for song, path in songs.items() if not path.is_file()]:
        raise DatasetError(f"{source}: {len(missing)} songs are missing in the download, e.g. {missing[0]}")
    _, damaged = remote.validate(verbose=False)
    if wrong := set(damaged.get("tracks", {})) & set(songs):
        raise DatasetError(f"{source}: {min(wrong)} has a wrong checksum")
    if len(songs) != source.n_songs:
        raise DatasetError(f"{source} has {len(songs)} songs, not {source.n_songs}")
    return songs


if __name__ == "__main__":
    run_command(main)
