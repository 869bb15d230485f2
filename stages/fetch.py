"""Download a data set of the field through mirdata, check it, and lay it out as one folder per genre.

python -m stages.fetch gtzan-mini
"""

from __future__ import annotations

import argparse
import logging
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from genre import files
from genre.cli import run_command
from genre.errors import DatasetError

DATASET = Path("dataset")


@dataclass(frozen=True, slots=True)
class Source:
    """A data set as mirdata declares it (with addresses, checksums, citation and licence)."""

    mirdata_name: str
    version: str
    downloads: tuple[str, ...]  # what of it is fetched
    n_songs: int


SOURCES = {"gtzan-mini": Source("gtzan_genre", "mini", ("index", "mini"), 100)}


def main(argv: Sequence[str] | None = None) -> int:
    """Make dataset/<name>."""
    parser = argparse.ArgumentParser(prog="python -m stages.fetch", description=__doc__.splitlines()[0])
    parser.add_argument("name", choices=SOURCES)
    name = parser.parse_args(argv).name
    n_songs = _fetch(SOURCES[name], DATASET / name)
    print(f"fetch: {name}: {n_songs} songs, checksums right")
    return 0


def _fetch(source: Source, out: Path) -> int:
    try:
        import mirdata
    except ImportError:
        raise DatasetError("mirdata is not installed: `pip install mirdata`, or `make setup`") from None
    logging.getLogger().setLevel(logging.INFO)  # mirdata tells of its downloads
    with tempfile.TemporaryDirectory(prefix="mirdata-") as home:
        try:
            collection = mirdata.initialize(source.mirdata_name, data_home=home, version=source.version)
            collection.download(partial_download=list(source.downloads), force_overwrite=True)
        except (OSError, ValueError) as error:  # mirdata raises OSError for a wrong checksum too
            raise DatasetError(f"{source.mirdata_name} ({source.version}) cannot be downloaded: {error}") from error
        tracks = collection.load_tracks().values()
        songs = {track.track_id: Path(track.audio_path) for track in tracks}
        if missing := [name for name, path in songs.items() if not path.is_file()]:
            raise DatasetError(
                f"{source.mirdata_name} ({source.version}) came without {len(missing)} songs: {missing[0]}"
            )
        _, damaged = collection.validate(verbose=False)
        if wrong := set(damaged.get("tracks", {})) & set(songs):
            raise DatasetError(f"{source.mirdata_name} ({source.version}): {min(wrong)} has a wrong checksum")
        if len(songs) != source.n_songs:
            raise DatasetError(f"{source.mirdata_name} ({source.version}) has {len(songs)} songs, not {source.n_songs}")
        for name, path in songs.items():
            with files.atomic_path(out / name.split(".")[0] / path.name) as temporary:
                shutil.copyfile(path, temporary)
    return len(songs)


if __name__ == "__main__":
    run_command(main)
