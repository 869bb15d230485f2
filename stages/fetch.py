"""Download a data set through mirdata, check it, and write it as one folder per genre.

python -m stages.fetch
python -m stages.fetch gtzan-mini
python -m stages.fetch --check            list what DVC cannot track

Without a name it takes dataset.name. A data set that is there already is left as it is.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from genre import files, params
from genre.audio import dataset
from genre.cli import argument_parser, run_command
from genre.errors import DatasetError
from genre.paths import Paths
from genre.terminal import one_line

# Name and version in mirdata, which declares addresses, checksums, citation and licence; names of the remote files
MIRDATA = {"gtzan-mini": ("gtzan_genre", "mini", ["index", "mini"])}
MADE = "demo"  # the data set that another stage makes


def main(argv: Sequence[str] | None = None) -> int:
    """Write dataset/<name>, and its name into dataset/name.txt; with --check, only list what DVC cannot track.

    Raises DatasetError if there is no such data set and it can be neither made nor downloaded, or DVC cannot track it.
    """
    parser = argument_parser(__doc__)
    parser.add_argument("name", nargs="?", help="default: dataset.name in params.yaml")
    parser.add_argument("--check", action="store_true", help="download nothing, list what DVC cannot track")
    arguments, paths = parser.parse_args(argv), Paths()
    name = arguments.name or params.load().dataset.name
    folder = paths.datasets / name
    if not (folder.is_dir() or name == MADE or (arguments.check and name in MIRDATA)):
        _download(folder)
    faults = list(dataset.dvc_faults(folder))  # DVC's own errors name neither path nor reason
    for path, fault in faults:
        print(one_line(f"fetch: {path} {fault}"), file=sys.stderr)
    if faults:
        raise DatasetError(f"DVC cannot track {len(faults)} files or folders of {folder}/")
    if not arguments.check:
        files.write_text(paths.dataset_name, f"{folder.name}\n")
    return 0


def _download(out: Path) -> None:
    """Download a data set; raise DatasetError if that fails, or it is not declared here."""
    if out.name not in MIRDATA:
        folders = {path.name for path in out.parent.glob("[!.]*/")}
        names = ", ".join(sorted(folders | {MADE, *MIRDATA}))
        raise DatasetError(f"there is no data set {out}/: set dataset.name in params.yaml to one of {names}")
    import mirdata

    logging.getLogger().setLevel(logging.INFO)  # shows the downloads of mirdata
    name, version, downloads = MIRDATA[out.name]
    out.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".", dir=out.parent) as folder:
        complete = Path(folder, out.name)
        try:
            remote = mirdata.initialize(name, data_home=folder, version=version)
            remote.download(partial_download=downloads, force_overwrite=True)
            songs = {song: Path(track.audio_path) for song, track in remote.load_tracks().items()}
            for song, path in songs.items():
                genre = complete / song.split(".")[0]
                genre.mkdir(parents=True, exist_ok=True)
                path.rename(genre / path.name)
        except (OSError, ValueError) as error:  # mirdata raises OSError for a wrong checksum too
            raise DatasetError(f"{out.name} cannot be downloaded: {error}") from error
        complete.rename(out)
    print(f"fetch: {out.name}: {len(songs)} songs, all checksums correct")


if __name__ == "__main__":
    run_command(main)
