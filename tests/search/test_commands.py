"""index, identify, similar and evaluate_search together, on a small data set of synthetic songs."""

from __future__ import annotations

import contextlib
import csv
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from milvus_lite import MilvusLite

from benchmarks import evaluate_search
from genre import Project
from genre.audio import chunks
from genre.errors import DatasetError, SearchError
from stages import identify, index, pack, similar, split
from tests.made import ROOT, save_svm, write_music, write_params

pytestmark = pytest.mark.slow

Answers = Callable[..., list[dict[str, Any]]]


@pytest.fixture
def project(copied: Path) -> Path:
    """Return an indexed project, as the working directory."""
    return copied


@pytest.fixture
def answers(project: Path, capsys: pytest.CaptureFixture[str]) -> Answers:
    """Return a function that runs a command and returns its answers."""

    def run(command: ModuleType, *arguments: str) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert command.main([*arguments, "--format", "jsonl"]) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return run


def test_every_song_is_identified_from_its_middle(project: Path, answers: Answers) -> None:
    songs = sorted(project.glob("dataset/tiny/*/*.wav"))
    matches = answers(identify, *map(str, songs), "--start", "2.5", "--duration", "4")
    for path, answer in zip(songs, matches, strict=True):
        assert list(answer) == ["file", "song", "offset", "score", "genre", "songs", "path"]
        assert (answer["song"], answer["genre"]) == (path.stem, path.parent.name)
        assert answer["offset"] == pytest.approx(2.5, abs=0.05)
        assert answer["path"] == path.relative_to(project).as_posix()
        assert answer["songs"] == [{key: answer[key] for key in ("song", "offset", "score", "genre", "path")}]


def test_an_out_of_set_snippet_and_one_that_starts_before_its_song_are_described_in_words(
    project: Path, answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    other = str(write_music(project / "other.wav", 99, less_bass=True))
    (answer,) = answers(identify, other)
    assert (answer["song"], answer["offset"], answer["genre"]) == (None, None, None)
    samples, rate = chunks.read(Path("dataset/tiny/rock/0.wav"))
    chunks.write(Path("early.wav"), np.concatenate([np.zeros(2 * rate, np.int16), samples]), sample_rate=rate)
    assert identify.main([other, "early.wav"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert "no indexed song" in first
    assert re.search(r"rock/0 starts at (1\.9\d|2\.0\d) s of the snippet", second)


def test_the_engine_embeddings_needs_windows_and_identifies_with_them(project: Path, answers: Answers) -> None:
    snippet = ["dataset/tiny/jazz/3.wav", "--engine", "embeddings", "--start", "2.5"]
    with pytest.raises(SearchError, match=r"index\.windows"):
        identify.main(snippet)
    with Project(engine="other") as other, pytest.raises(SearchError, match="no engine other"):
        other.identify(snippet[0])
    write_params(project, index__windows=True, parallel__workers=1)
    assert index.main([]) == 0
    (answer,) = answers(identify, *snippet)
    assert (answer["song"], answer["genre"]) == ("3", "jazz")
    assert answer["offset"] == pytest.approx(2.5, abs=0.25)
    assert similar.main(["dataset/tiny/jazz/3.wav"]) == 0  # from the same store


def test_similar_names_other_songs_and_a_genre(answers: Answers) -> None:
    (answer,) = answers(similar, "dataset/tiny/rock/0.wav", "--top", "3")
    assert list(answer) == ["file", "genre", "weighted_genre", "warnings", "votes", "songs"]
    assert answer["warnings"] == ["the indexed songs are synthetic: their genres mean nothing for real music"]
    for song in answer["songs"]:
        assert song["path"] == f"dataset/tiny/{song['genre']}/{song['song']}.wav"
    assert len(answer["songs"]) == 3
    assert ("rock", "0") not in {(song["genre"], song["song"]) for song in answer["songs"]}
    assert answer["genre"] in {"rock", "jazz"}
    for songs, top in (((), 10), ((answer["file"],), 0), ((answer["file"],), 10**9)):
        with Project() as project, pytest.raises(SearchError, match=f"top from 1 to 1000: it is {top}$"):
            project.similar(*songs, top=top)


def test_similar_ranks_songs_by_their_mean_score_for_several_and_writes_a_playlist(
    project: Path, answers: Answers
) -> None:
    seeds = [f"dataset/tiny/{name}" for name in ("rock/0.wav", "rock/2.wav", "jazz/1.wav")]
    alone = answers(similar, *seeds, "--top", "1000")
    (together,) = answers(similar, *seeds, "--top", "1000", "--together", "--m3u", "all.m3u8")
    assert together["file"] == ", ".join(seeds)
    scores = [{song["path"]: song["score"] for song in answer["songs"]} for answer in alone]
    expected = {path: np.mean([of_seed[path] for of_seed in scores]) for path in scores[0] if path not in seeds}
    assert {song["path"]: song["score"] for song in together["songs"]} == pytest.approx(expected, abs=2e-4)
    header, *lines = (project / "all.m3u8").read_text().splitlines()
    assert header == "#EXTM3U" and lines[0] == f"#EXTINF:-1,{together['songs'][0]['song']}"
    assert lines[1::2] == [str(project / song["path"]) for song in together["songs"] if song["score"] > 0]


def test_the_text_of_similar_has_the_votes_and_no_song_below_0(
    answers: Answers, capsys: pytest.CaptureFixture[str]
) -> None:
    song = "dataset/tiny/rock/0.wav"
    (answer,) = answers(similar, song, "--top", "1000")
    assert min(similar_song["score"] for similar_song in answer["songs"]) < 0
    assert similar.main([song, "--top", "1000"]) == 0
    printed = capsys.readouterr().out
    chunks = f"{answer['votes'][answer['genre']]} of {sum(answer['votes'].values())} chunks"
    last = f"genre of most neighbours: {answer['genre']} ({chunks})"
    weighted = f"genre of the neighbours weighted by similarity: {answer['weighted_genre']}"
    assert printed.splitlines()[-3:] == [last, weighted, f"warning: {answer['warnings'][0]}"]
    assert "  -0." not in printed
    nearest = answer["songs"][0]
    assert f"  {nearest['score']:.3f}  {nearest['genre']}/{nearest['song']}  {nearest['path']}" in printed


def test_similar_and_identify_as_csv(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    song = "dataset/tiny/rock/0.wav"
    for command, arguments in ((identify, []), (similar, ["--top", "3"])):
        assert command.main([song, "--format", "csv", *arguments]) == 0
        rows = list(csv.DictReader(capsys.readouterr().out.splitlines()))
        assert len(rows) == (3 if arguments else 1)
        assert {row["file"] for row in rows} == {song}
        assert all((project / (row.get("path") or row["similar_path"])).is_file() for row in rows)
    shutil.rmtree("chunks")  # not fetched: the paths are unknown, the answer is the same
    assert identify.main([song, "--format", "csv"]) == 0
    assert re.fullmatch(rf"{song},0,rock,-?0\.0\d?,1\.0,", capsys.readouterr().out.splitlines()[1])


def test_indexing_again_changes_nothing_and_a_song_that_changed_after_split_is_refused(project: Path) -> None:
    outputs = [path for path in project.glob("vectors/**/*.[jn]*") if "songs.db" not in path.parts]
    before = [path.read_bytes() for path in outputs]
    for _ in range(2):
        assert index.main([]) == 0
        assert [path.read_bytes() for path in outputs] == before and len(before) == 4
        for folder in (".cache", "vectors"):
            shutil.rmtree(folder)
    shutil.copy("dataset/tiny/rock/0.wav", "dataset/tiny/rock/2.wav")
    with pytest.raises(DatasetError, match=r"rock/2\.wav was changed .*: run `dvc repro`"):
        index.main([])


def test_removed_songs_leave_the_index_and_an_index_that_failed_changes_no_answer(answers: Answers) -> None:
    description = Path("vectors/index.json")
    before = json.loads(description.read_text())
    removed = Path("dataset/tiny/jazz/3.wav").rename("removed.wav")
    scores = [song["score"] for song in answers(similar, "dataset/tiny/rock/0.wav")[0]["songs"]]
    assert split.main([]) == 0
    with contextlib.closing(MilvusLite("vectors/songs.db")), pytest.raises(SearchError, match="in use"):
        index.main([])
    assert [song["score"] for song in answers(similar, "dataset/tiny/rock/0.wav")[0]["songs"]] == scores
    assert index.main([]) == 0
    after = json.loads(description.read_text())
    assert after["songs"] == 5 and after["contents"] != before["contents"]
    assert answers(identify, str(removed))[0]["song"] is None
    assert "3" not in {song["song"] for song in answers(similar, str(removed), "--top", "20")[0]["songs"]}


def test_without_an_index_or_with_a_damaged_one_the_commands_name_the_stage_which_repairs_it(project: Path) -> None:
    song = "dataset/tiny/rock/0.wav"
    (damaged,) = Path("vectors/songs.db/collections").glob("chunks_*/manifest.json")
    damaged.write_text("{")
    with pytest.raises(SearchError, match=r"damaged or incomplete: run `python -m stages\.index`"):
        similar.main([song])
    assert index.main([]) == 0
    assert similar.main([song]) == 0
    description = Path("vectors/index.json").read_text()
    Path("vectors/index.json").write_text(json.dumps({**json.loads(description), "dimension": 3}))
    with pytest.raises(SearchError, match=r"projection\.npz does not belong to"):
        similar.main([song])
    Path("vectors/index.json").write_text(description)
    shutil.rmtree("vectors/songs.db")
    with pytest.raises(SearchError, match=r"python -m stages\.index"):
        similar.main([song])
    shutil.rmtree("vectors")
    for command in (identify, similar):
        with pytest.raises(SearchError, match="dvc repro index"):
            command.main([song])


def test_evaluate_search_prints_and_writes_the_measures(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert evaluate_search.main(["--snippets", "1", "--seconds", "4", "--out", "measures.json"]) == 0
    assert "identify, landmarks, 4 s: 100.0 % recognised" in capsys.readouterr().out
    metrics = json.loads(Path("measures.json").read_text())
    assert metrics["landmarks"]["4 s"]["false_acceptance"] < 20  # made-up songs have the same notes
    assert set(metrics["similar"]["leave one song out"]) == {"genre", "weighted_genre"}


def test_the_python_lines_of_the_readme_and_the_notebook_run(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_svm(project, default=True)
    shutil.copy(project / "dataset" / "tiny" / "rock" / "0.wav", "song.mp3")
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    capsys.readouterr()
    exec(re.findall(r"^```python\n(.*?)^```", readme, re.DOTALL | re.MULTILINE)[0], {})
    assert "['" in capsys.readouterr().out.splitlines()[-1]
    names: dict[str, Any] = {}
    for cell in json.loads((ROOT / "docs" / "python.ipynb").read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            exec("".join(cell["source"]), names)
    assert names["match"]["song"] == names["song"].stem
    assert list(names["table"].columns) == ["high", "low"]


def test_a_package_with_the_index_identifies_and_finds_similar_songs(project: Path, answers: Answers) -> None:
    save_svm(project, default=True, name="tiny", songs=6)
    song = str(project / "dataset" / "tiny" / "rock" / "0.wav")
    expected = [answers(command, song) for command in (identify, similar)]
    assert pack.main(["--index", "genres.zip"]) == 0
    shutil.rmtree("vectors")
    for command, answer in zip((identify, similar), expected, strict=True):
        packed = answers(command, "--models", "genres.zip", song)
        assert packed == json.loads(re.sub(r'"path": "[^"]*"', '"path": null', json.dumps(answer)))
