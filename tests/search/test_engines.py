"""identify with either engine, what each refuses, and how well each is found to recognise songs."""

from __future__ import annotations

import csv
import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from genre.audio import chunks, manifest
from genre.errors import SearchError
from genre.search import embedding_manifest, identify_eval, landmark_index, landmarks, windows
from genre.search.degradations import CONDITIONS
from genre.search.landmark_index import Index, Song
from stages import evaluate_identify, identify, index_network, split
from tests.conftest import ROOT, write_params
from tests.search.conftest import N_SONGS, Music

CONDITION_NAMES = ["clean", "mp3 64 kb/s", "music 10 dB", "speed +2 %"]


def _paths() -> list[Path]:
    return sorted(Path("dataset/tiny").glob("*/*.wav"))


def _vectors() -> dict[str, object]:
    found: dict[str, object] = json.loads(windows.MANIFEST.read_text())
    return found


def _index_landmarks() -> None:
    rows = manifest.read(Path("chunks"))
    songs = {row.source_sha256: Song(row.source_sha256, row.song, row.genre) for row in rows}
    sources = {row.source_sha256: Path(row.source) for row in rows}
    items = [(song, landmark_index.fingerprint(landmarks.load(sources[sha]))) for sha, song in songs.items()]
    Index.empty().with_songs(items).save(embedding_manifest.LANDMARKS)


def test_the_network_identifies_every_song_from_its_middle(
    network_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--engine", "network", "--start", "4.5", "--duration", "5", "--format", "jsonl"]
    assert identify.main([*map(str, _paths()), *options]) == 0
    answers = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    for path, answer in zip(_paths(), answers, strict=True):
        assert list(answer) == ["file", "song", "offset", "score", "genre"]
        assert (answer["song"], answer["genre"]) == (path.stem, path.parent.name)
        assert answer["offset"] == pytest.approx(4.5, abs=0.15)


def test_the_engine_of_params_yaml_answers_unless_another_is_asked_for(
    network_project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    song = str(_paths()[0])
    with pytest.raises(SearchError, match=r"landmarks\.npz"):
        identify.main([song])
    write_params(network_project, search__engine="network")
    assert identify.main([song]) == 0
    assert song in capsys.readouterr().out
    with pytest.raises(SearchError, match=r"landmarks\.npz"):
        identify.main([song, "--engine", "landmarks"])


def test_vectors_of_the_network_that_are_gone_are_told(network_project: Path) -> None:
    (damaged,) = Path("vectors/songs.db/collections").glob("fingerprints_*/manifest.json")
    damaged.write_text("{")
    with pytest.raises(SearchError, match=r"vectors: run `python -m stages\.index_network`"):
        identify.main([str(_paths()[0]), "--engine", "network"])
    windows.MANIFEST.unlink()
    with pytest.raises(SearchError, match=r"fingerprints\.json is not there: run"):
        identify.main([str(_paths()[0]), "--engine", "network"])


def test_the_network_answers_without_tensorflow(network_project: Path) -> None:
    code = (
        "import sys\nfrom stages import identify\n"
        f"assert identify.main([{str(_paths()[0])!r}, '--engine', 'network']) == 0\n"
        "assert not {'tensorflow', 'keras'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT), "PATH": ""}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


def test_without_vectors_the_network_says_what_makes_them(network_project: Path) -> None:
    shutil.rmtree("vectors/songs.db")
    with pytest.raises(SearchError, match=r"run `python -m stages\.index_network`"):
        identify.main([str(_paths()[0]), "--engine", "network"])


def test_without_a_network_it_is_told_what_trains_it(network_project: Path) -> None:
    shutil.rmtree("model_architecture")
    with pytest.raises(SearchError, match=r"identify/dvc\.yaml:fingerprint"):
        identify.main([str(_paths()[0]), "--engine", "network"])


def test_indexing_again_changes_nothing(network_project: Path) -> None:
    before = windows.MANIFEST.read_bytes()
    assert index_network.main([]) == 0
    assert windows.MANIFEST.read_bytes() == before


def test_a_new_song_is_recognised_without_training_and_one_that_left_is_not(
    network_project: Path, music: Music, capsys: pytest.CaptureFixture[str]
) -> None:
    before = _vectors()
    gone = _paths()[-1].rename("gone.wav")
    new = Path("dataset/tiny/jazz/new.wav")
    chunks.write(new, np.rint(music(500, 12.0, 22_050) * 32767).astype(np.int16), sample_rate=22_050)
    assert split.main([]) == 0
    assert index_network.main([]) == 0
    assert _vectors()["songs"] == N_SONGS
    assert _vectors()["contents"] != before["contents"]
    capsys.readouterr()
    part = ["--engine", "network", "--start", "3", "--duration", "6", "--format", "jsonl", "--min-score", "0"]
    identify.main([str(new), str(gone), *part])
    of_new, of_gone = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert (of_new["song"], of_new["genre"]) == ("new", "jazz")
    assert of_gone["song"] != gone.stem
    assert of_gone["score"] < of_new["score"]


@pytest.mark.parametrize("engine", ["landmarks", "network"])
def test_the_evaluation_says_how_many_snippets_are_recognised(
    engine: str, network_project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(identify_eval, "STANDARD", [c for c in CONDITIONS if c.name in CONDITION_NAMES])
    _index_landmarks()
    assert evaluate_identify.main([engine]) == 0
    folder = Path("identify") / engine
    with (folder / "identify.csv").open(newline="") as stream:
        table = list(csv.DictReader(stream))
    assert [row["condition"] for row in table] == [*CONDITION_NAMES, "all"]
    assert all(row["snippets"] == "3" for row in table[:-1])
    assert float(table[0]["first"]) == 100
    total = json.loads((folder / "metrics.json").read_text())["4 s"]
    assert total["first"] >= 75
    assert total["offset_error_s"] < 0.15
    assert (folder / "identify.png").read_bytes().startswith(b"\x89PNG")
    assert f"{engine}: 4 s" in capsys.readouterr().out
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert evaluate_identify.main([engine]) == 0
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_songs_too_short_for_the_snippets_are_told(network_project: Path) -> None:
    write_params(network_project, evaluate_identify__seconds=[20.0])
    _index_landmarks()
    with pytest.raises(SearchError, match="two songs of 20 s or more"):
        evaluate_identify.main(["landmarks"])
