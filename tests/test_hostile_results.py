"""Models, indexes and data sets of other people: no file outside the project is read or written."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from genre import params
from genre.audio import dataset, manifest
from genre.errors import DatasetError
from genre.evaluation import report
from genre.paths import Paths
from genre.web import service
from stages import extract, split, vectorize
from tests.made import touch, write_chunks, write_songs


def _names(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize(
    ("column", "name"),
    [("chunk", "../../x.wav"), ("chunk", "/etc/passwd"), ("source", "dataset/../x.wav"), ("source", "chunks/x.wav")],
)
def test_an_index_of_chunks_with_a_path_out_of_the_project_is_refused(project: Path, column: str, name: str) -> None:
    first, *others = write_chunks(project)
    manifest.write(project / "chunks", [dataclasses.replace(first, **{column: name}), *others])  # type: ignore[arg-type]
    before = _names(project.parent)
    for stage in (extract, vectorize):
        with pytest.raises(DatasetError, match=rf"index\.csv is damaged .*{column}"):
            stage.main([])
    with pytest.raises(DatasetError, match="damaged"):
        report.provenance(params.load(), Paths(), ["high", "low"])
    assert service.read_songs(Paths(project)) == {}
    assert _names(project.parent) == before


def test_a_song_linked_to_a_file_outside_the_data_set_is_not_sent(project: Path) -> None:
    secret = project.parent / f"{project.name}.wav"
    secret.write_bytes(b"RIFF a secret")
    row = write_chunks(project)[0]
    Path(row.source).parent.mkdir(parents=True)
    Path(row.source).symlink_to(secret)
    assert service.playable(row, Paths(project)) == project / "chunks" / row.chunk


def test_links_of_files_in_a_circle_are_skipped_and_a_link_to_a_folder_above_is_refused(tmp_path: Path) -> None:
    root = tmp_path / "set"
    touch(root, "a/x.mp3", "b/x.mp3")
    (root / "a" / "self.mp3").symlink_to("self.mp3")
    (root / "a" / "there.mp3").symlink_to("back.mp3")
    (root / "a" / "back.mp3").symlink_to("there.mp3")
    assert [(song.genre, song.name) for song in dataset.scan(root)] == [("a", "x"), ("b", "x")]
    (root / "a" / "up").symlink_to(root)
    with pytest.raises(DatasetError, match="a/up is a link to a folder, which DVC does not read"):
        dataset.scan(root)


def test_a_link_to_a_file_without_audio_copies_none_of_its_text(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = project / "secret.txt"
    secret.write_text("password hunter2\n" * 50)
    write_songs(project / "dataset" / "tiny", n_songs=2)
    (project / "dataset" / "tiny" / "low" / "song.mp3").symlink_to(secret)
    assert split.main([]) == 0
    captured = capsys.readouterr()
    assert "song.mp3" in captured.err
    for path in [*(project / "chunks").rglob("*"), *(project / ".cache").rglob("*")]:
        assert path.is_dir() or b"hunter2" not in path.read_bytes()
    assert "hunter2" not in captured.out + captured.err
