"""The review: its queue, the answers, and the page in a real browser."""

from __future__ import annotations

import csv
import dataclasses
import io
import shutil
import wave
from pathlib import Path
from typing import Any

import httpx
import pandas as pd
import pytest

from genre import params
from genre.audio import corrections
from genre.audit import findings
from genre.audit.review import Review, queue
from genre.audit.songs import AuditedSongs
from genre.evaluation import metrics
from genre.models import cards
from genre.paths import Paths
from stages import review as command
from tests.made import save_svm
from tests.web.conftest import Server, StartServer, opened

SONGS = [f"{('rock', 'jazz')[n % 2]}/{n}.wav" for n in range(6)]
PREDICTIONS = pd.DataFrame({"rock": [0.9, 0.2, 0.45, 0.6, 0.8, 0.3], "jazz": [0.1, 0.8, 0.55, 0.4, 0.2, 0.7]}, SONGS)
ORDER = [SONGS[n] for n in (3, 2, 5, 1, 4, 0)]  # the finding, then by margin: 0.1, 0.4, 0.6, 0.6, 0.8
LABEL = findings.Finding(SONGS[3], "label", "rock is more probable", "listen", 1.0, (SONGS[0], SONGS[5]))


def _with_audit(folder: Path) -> None:
    paths = Paths(folder)
    findings.write(paths.audit, findings.ranked([LABEL]), "dataset/tiny", 6)
    table = pd.DataFrame(0, pd.Index(SONGS, name="song"), metrics.COLUMNS).join(PREDICTIONS)
    table.to_csv(paths.audit / "predictions.csv")


@pytest.fixture
def project(copied: Path) -> Paths:
    _with_audit(copied)
    return Paths()


def test_findings_about_labels_are_asked_first_then_the_least_sure_songs() -> None:
    songs = ["a/1", "a/2", "b/3", "b/4"]
    genres = dict(zip(songs, "aabb", strict=True))
    table = pd.DataFrame({"a": [0.7, 0.9, 0.52, 0.1], "b": [0.3, 0.1, 0.48, 0.9]}, songs)
    found = [
        findings.Finding("a/1", "duplicate", "", "", others=("a/2",)),  # of one genre: no question
        findings.Finding("b/4", "label", "", "", others=("a/1",)),
        findings.Finding("b/4", "outlier", "", ""),
        findings.Finding("b/3", "clipped", "", ""),
        findings.Finding("a/gone", "label", "", ""),
    ]
    asked = queue(found, table, genres)
    assert [(q.song, q.finding, q.suggested) for q in asked] == [
        ("b/4", "label", "b"), ("b/3", "", "a"), ("a/1", "", "a"), ("a/2", "", "a")
    ]  # fmt: skip
    copies = findings.Finding("a/2", "leak", "", "", others=("b/3",))
    assert [(q.song, q.others) for q in queue([copies, *found], table, genres)][:2] == [
        ("a/2", {"b/3": "b"}),
        ("b/3", {"a/2": "a"}),
    ]


def test_answers_are_saved_at_once_and_undone_one_by_one(project: Paths) -> None:
    review = Review(AuditedSongs(params.load(), project))
    assert [question.song for question in review.remaining()] == ORDER
    corrections.add(project.corrections("tiny"), ORDER[5].removesuffix(".wav"), "jazz", "by hand")
    review.answer(ORDER[0], "rock")
    review.answer(ORDER[1], None)  # skipped
    review.answer(ORDER[2], "jazz")  # confirmed
    review.answer(ORDER[3], corrections.DROP)
    saved = [(c.song, c.genre) for c in corrections.read(project.corrections("tiny"))]
    assert saved[1:] == [(ORDER[0], "rock"), (ORDER[2], "jazz"), (ORDER[3], "drop")]
    assert review.state()["asked"] == 4
    assert [question.song for question in review.remaining()] == [ORDER[4]]
    restarted = Review(AuditedSongs(params.load(), project))
    assert [question.song for question in restarted.remaining()] == [ORDER[1], ORDER[4]]
    for song in (ORDER[3], ORDER[2], ORDER[1], ORDER[0]):
        assert review.undo()
        assert review.remaining()[0].song == song
    assert not review.undo(), "a correction by hand is kept"
    assert len(corrections.read(project.corrections("tiny"))) == 1


def test_the_gain_of_a_training_is_remembered(project: Paths) -> None:
    def gain() -> Any:
        return Review(AuditedSongs(params.load(), project)).state()["gain"]

    def train(accuracy: float) -> Any:
        scores = {cards.ENSEMBLE: {"song_accuracy": accuracy, "n_songs": 6}}
        cards.write(dataclasses.replace(cards.read(cards.ENSEMBLE, project), scores=scores), project)
        return gain()

    save_svm(project.root, default=True)
    assert gain() == ""
    assert train(0.5) == "Out-of-fold accuracy 50.0 % (6 songs)"
    Review(AuditedSongs(params.load(), project)).answer(ORDER[0], "rock")
    assert train(0.5) == "Out-of-fold accuracy 50.0 % (6 songs)", "not trained since"
    gained = "Last training, with 1 more answers: out-of-fold accuracy 50.0 % (6 songs) -> 66.7 % (6 songs)"
    assert train(2 / 3) == gained == gain()


def test_the_queue_is_listed(project: Paths, capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--list", "--format", "csv"]) == 0
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert [row["song"] for row in rows] == ORDER
    assert (rows[0]["genre"], rows[0]["suggested"], rows[0]["finding"]) == ("jazz", "rock", "label")
    shutil.rmtree(project.audit)
    with pytest.raises(Exception, match=r"audit\.json'\): run `python -m stages\.audit`"):
        command.main(["--list"])


@pytest.fixture(scope="module")
def server(start_server: StartServer) -> Server:
    return start_server("--no-browser", module="stages.review", without="model_weights", prepare=_with_audit)


@pytest.mark.slow
def test_questions_are_answered_over_http_from_this_machine_only(server: Server) -> None:
    with httpx.Client(base_url=server.url, timeout=60) as client:
        state = client.get("/v1/review").json()
        question = state["question"]
        assert (question["song"], question["suggested"], question["evidence"]) == (SONGS[3], "rock", LABEL.evidence)
        assert question["others"] == {SONGS[0]: "rock", SONGS[5]: "jazz"}
        audio = client.get("/v1/review/audio", params={"song": SONGS[3]})
        with wave.open(io.BytesIO(audio.content)) as sound:
            assert sound.getnframes() / sound.getframerate() == pytest.approx(8.0, abs=0.01)  # the whole song
        reply = {"song": SONGS[3], "genre": "rock"}
        for other in ("../../params.yaml", str(server.folder / "params.yaml"), "rock/none.wav"):
            assert client.get("/v1/review/audio", params={"song": other}).status_code == 404
            assert client.post("/v1/review", json=reply | {"song": other}).status_code == 422
        for headers, status in (
            ({"origin": "https://evil.example"}, 403),
            ({"host": "evil.example"}, 421),
            ({"content-type": "text/plain"}, 422),
        ):
            assert client.post("/v1/review", json=reply, headers=headers).status_code == status
        assert client.post("/v1/review", json=reply | {"genre": "polka"}).status_code == 422
        assert client.delete("/v1/review").status_code == 409
        (folder := server.folder / "corrections").touch(exist_ok=False)
        refused = client.post("/v1/review", json=reply)
        assert (refused.status_code, "'corrections'" in refused.json()["message"]) == (503, True)
        folder.unlink()
        after = client.post("/v1/review", json=reply).json()
        assert (after["question"]["song"], after["asked"], after["remaining"]) == (ORDER[1], 1, 5)
        assert client.delete("/v1/review").json()["question"] == question
        assert client.post("/v1/query").status_code in (404, 405)


@pytest.mark.slow
def test_the_page_is_used_with_keys(browser: Any, server: Server) -> None:
    with opened(browser, f"{server.url}/") as page:
        page.get_by_text(SONGS[3]).wait_for()
        for key, song in (("2", ORDER[1]), ("s", ORDER[2]), ("d", ORDER[3]), ("u", ORDER[2]), ("u", ORDER[1])):
            page.keyboard.press(key)
            page.wait_for_function("text => document.getElementById('song').textContent === text", arg=song)
        page.wait_for_function("!document.getElementById('player').paused")
        page.evaluate("document.getElementById('player').currentTime = 5")
        page.keyboard.press("Space")
        page.wait_for_function("document.getElementById('player').currentTime < 4")
        page.get_by_role("button", name="jazz").click()
        page.get_by_text("2 answered, 4 to go, 0 of them with findings").wait_for()
        saved = [(c.song, c.genre) for c in corrections.read(Paths(server.folder).corrections("tiny"))]
        assert saved == [(ORDER[0], "rock"), (ORDER[1], "jazz")]
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
