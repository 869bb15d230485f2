"""index, identify and similar together, on a small data set of made songs."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from genre import files
from genre.audio import chunks
from genre.errors import SearchError
from genre.search import similar as neighbours
from genre.search.settings import IndexSettings
from stages import identify, index, similar, split
from tests.conftest import write_params
from tests.search.conftest import Music

SAMPLE_RATE = 22_050
N_SONGS = 3  # of each genre
SECONDS = 8.0


@pytest.fixture(scope="module")
def made(music: Music, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Return a project folder that has been indexed."""
    folder = tmp_path_factory.mktemp("project")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.delenv("MILVUS_URI", raising=False)
        _small(patch)
        write_params(folder, parallel__workers=1)
        for seed in range(2 * N_SONGS):
            _write_song(folder, music, seed)
        assert split.main([]) == 0
        assert index.main([]) == 0
        yield folder


@pytest.fixture
def project(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a copy of it, as the working directory."""
    shutil.copytree(made, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.delenv("MILVUS_URI", raising=False)
    _small(monkeypatch)
    return tmp_path / "copy"


def _small(patch: pytest.MonkeyPatch) -> None:
    """Choose the embedding that needs no network."""
    settings = IndexSettings(embedding="statistics")
    patch.setattr("stages.index.index_settings", lambda _: settings)
    patch.setattr("genre.search.settings.index_settings", lambda _: settings)


def _write_song(folder: Path, music: Music, seed: int, name: str = "") -> Path:
    """Write a song of one of two genres; jazz has less bass."""
    genre = ("rock", "jazz")[seed % 2]
    song = music(seed, SECONDS, SAMPLE_RATE)
    if genre == "jazz":
        song = np.diff(song, prepend=np.float32(0))
    path = folder / "dataset" / "tiny" / genre / f"{name or seed}.wav"
    path.parent.mkdir(parents=True, exist_ok=True)
    chunks.write(path, np.rint(song * 32767).astype(np.int16), sample_rate=SAMPLE_RATE)
    return path


def _manifest() -> dict[str, object]:
    found: dict[str, object] = json.loads(Path("vectors/index.json").read_text())
    return found


def test_every_song_is_identified_from_its_middle(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = sorted(project.glob("dataset/tiny/*/*.wav"))
    assert identify.main([*map(str, paths), "--start", "2.5", "--duration", "4", "--format", "jsonl"]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for path, answer in zip(paths, answers, strict=True):
        assert list(answer) == ["file", "song", "offset", "score", "genre"]
        assert (answer["song"], answer["genre"]) == (path.stem, path.parent.name)
        assert answer["offset"] == pytest.approx(2.5, abs=0.05)


def test_a_song_that_is_not_indexed_is_answered_with_null(
    project: Path, music: Music, capsys: pytest.CaptureFixture[str]
) -> None:
    stranger = _write_song(project / "elsewhere", music, 99)
    assert identify.main([str(stranger), "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["song"], answer["offset"], answer["genre"]) == (None, None, None)
    assert identify.main([str(stranger)]) == 0
    assert "no indexed song" in capsys.readouterr().out


def test_a_file_that_cannot_be_read_does_not_keep_the_others_from_being_answered(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert identify.main(["nowhere.mp3", "dataset/tiny/rock", "--format", "jsonl"]) == 1
    printed = capsys.readouterr()
    assert len(printed.out.splitlines()) == N_SONGS
    assert "nowhere.mp3" in printed.err


def test_similar_names_other_songs_and_a_genre(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert similar.main(["dataset/tiny/rock/0.wav", "--top", "3", "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert list(answer) == ["file", "genre", "weighted_genre", "votes", "songs"]
    assert len(answer["songs"]) == 3
    assert ("rock", "0") not in {(song["genre"], song["song"]) for song in answer["songs"]}
    assert answer["genre"] in {"rock", "jazz"}


def test_indexing_again_changes_nothing(project: Path) -> None:
    before = {path.name: path.read_bytes() for path in Path("vectors").glob("*.*") if path.is_file()}
    assert index.main([]) == 0
    assert {path.name: path.read_bytes() for path in Path("vectors").glob("*.*") if path.is_file()} == before


def test_songs_that_left_the_data_set_leave_the_index(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = _manifest()
    gone = Path("dataset/tiny/jazz/3.wav")
    moved = gone.rename("gone.wav")
    assert split.main([]) == 0
    assert index.main([]) == 0
    assert _manifest()["songs"] == 2 * N_SONGS - 1
    assert _manifest()["contents"] != before["contents"]
    capsys.readouterr()
    identify.main([str(moved), "--format", "jsonl"])
    similar.main([str(moved), "--top", "20", "--format", "jsonl"])
    identified, alike = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert identified["song"] is None
    assert "3" not in {song["song"] for song in alike["songs"]}


def test_a_copy_of_a_song_is_indexed_once(project: Path, music: Music, caplog: pytest.LogCaptureFixture) -> None:
    _write_song(project, music, 0, "copy")
    assert split.main([]) == 0
    assert index.main([]) == 0
    assert _manifest()["songs"] == 2 * N_SONGS
    assert "is a copy of" in caplog.text


def test_without_an_index_the_commands_say_what_makes_it(project: Path) -> None:
    shutil.rmtree("vectors")
    with pytest.raises(SearchError, match="dvc repro index"):
        identify.main(["dataset/tiny/rock/0.wav"])
    with pytest.raises(SearchError, match="dvc repro index"):
        similar.main(["dataset/tiny/rock/0.wav"])


def test_without_the_database_similar_says_what_makes_it(project: Path) -> None:
    shutil.rmtree("vectors/songs.db")
    with pytest.raises(SearchError, match=r"python -m stages\.index"):
        similar.main(["dataset/tiny/rock/0.wav"])


def test_a_damaged_database_is_told_and_made_again(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (damaged,) = Path("vectors/songs.db/collections").glob("chunks_*/manifest.json")
    damaged.write_text("{")
    with pytest.raises(SearchError, match=r"0 of \d+ vectors: run `python -m stages\.index`"):
        similar.main(["dataset/tiny/rock/0.wav"])
    assert index.main([]) == 0
    capsys.readouterr()
    assert similar.main(["dataset/tiny/rock/0.wav", "--top", "1", "--format", "json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["songs"]) == 1


def test_a_projection_of_another_index_is_refused(project: Path) -> None:
    manifest = _manifest()
    Path("vectors/index.json").write_text(json.dumps({**manifest, "dimension": 3}))
    with pytest.raises(SearchError, match=r"projection\.npz does not belong to"):
        similar.main(["dataset/tiny/rock/0.wav"])


def test_similar_tells_how_many_chunks_voted_and_no_song_that_is_unlike(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song = "dataset/tiny/rock/0.wav"
    assert similar.main([song, "--top", "1000", "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert min(found["score"] for found in answer["songs"]) < 0
    assert similar.main([song, "--top", "1000"]) == 0
    printed = capsys.readouterr().out
    assert f"({answer['votes'][answer['genre']]} of {sum(answer['votes'].values())} chunks; weighted: " in printed
    assert "  -0." not in printed
    assert len(printed.splitlines()) == 2 + sum(found["score"] > 0 for found in answer["songs"])


def test_with_no_other_song_indexed_similar_says_so(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    only = Path("dataset/tiny/rock/0.wav")
    with neighbours.opened(Path(), IndexSettings()) as found:
        others = set(found.store.songs()) - {files.sha256(only)}
        found.store.remove_songs(others)
        left = sum(found.store.songs().values())
    Path("vectors/index.json").write_text(json.dumps(_manifest() | {"vectors": left}))
    assert similar.main([str(only)]) == 0
    assert "no other song is indexed" in capsys.readouterr().out


def test_a_snippet_that_starts_before_its_song_is_told_in_words(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples, rate = chunks.read(Path("dataset/tiny/rock/0.wav"))
    early = np.concatenate([np.zeros(2 * rate, np.int16), samples])
    chunks.write(Path("early.wav"), early, sample_rate=rate)
    assert identify.main(["early.wav"]) == 0
    assert re.search(r"rock/0 starts (1\.9\d|2\.0\d) s before the song", capsys.readouterr().out)


def test_vectors_that_another_version_made_are_refused(project: Path) -> None:
    manifest = _manifest()
    manifest["settings"] = {**manifest["settings"], "transforms": []}  # type: ignore[dict-item]
    Path("vectors/index.json").write_text(json.dumps(manifest))
    with pytest.raises(SearchError, match="other transforms"):
        similar.main(["dataset/tiny/rock/0.wav"])
