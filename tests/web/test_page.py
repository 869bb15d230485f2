"""The page in a real browser, on the service as people start it."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from genre.audio.ffmpeg import executable
from genre.errors import GenreError
from genre.evaluation import plots
from genre.web import page_parts
from genre.web.page_guard import OPEN
from genre.web.page_listener import Listener
from genre.web.page_songs import Library
from tests.conftest import ROOT, MakeSong
from tests.web.conftest import MODEL, START_S, UNSET, wait_until

ANSWER_MS = 30_000  # that an answer may take on a busy machine
HOSTILE = '<img src=x onerror="window.pwned=1">${window.pwned=1}{{7*7}}'


@pytest.fixture(scope="module")
def site(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Return the address of a service with the page, in a process of its own."""
    pytest.importorskip("gradio", reason="the page needs gradio")
    base = tmp_path_factory.mktemp("page")
    shutil.copytree(trained, base / "project", ignore=shutil.ignore_patterns("pycache"))
    (base / "tmp").mkdir()
    log = base / "log"
    with log.open("w") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "stages.serve", "--port", "0", "--model", MODEL],
            cwd=base / "project",
            env={
                **{name: value for name, value in os.environ.items() if name not in UNSET},
                "PYTHONPATH": str(ROOT),
                "TMPDIR": str(base / "tmp"),
                "OMP_NUM_THREADS": "1",
            },
            stderr=stream,
        )
    try:
        wait_until(lambda: "http://" in log.read_text() or process.poll() is not None, "the service does not start")
        found = re.search(r"http://127\.0\.0\.1:\d+", log.read_text())
        assert found, log.read_text()
        wait_until(lambda: _status(found[0] + "/readyz") == 200 or process.poll() is not None, "not ready", START_S)
        yield found[0]
    finally:
        process.terminate()
        process.wait(30)
    assert f"ready: {found[0]} (page at /ui, interface at /docs)" in log.read_text()
    assert not list((base / "tmp").iterdir()), "uploads are left behind"
    assert "Traceback" not in log.read_text()


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return a headless Chromium, or skip."""
    playwright = pytest.importorskip("playwright.sync_api", reason="the browser is driven by playwright")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((found for name in names if (found := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser here ({', '.join(names)})")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser: Any, site: str) -> Iterator[Any]:
    """Return the page, opened as on a phone; no request may go to another host."""
    opened = browser.new_page(viewport={"width": 360, "height": 740})
    asked: list[str] = []
    opened.on("request", lambda request: asked.append(request.url))
    opened.goto(site + "/ui")
    opened.wait_for_selector(".gp-empty", timeout=ANSWER_MS)
    yield opened
    opened.close()
    assert [url for url in asked if not url.startswith((site, "data:", "blob:"))] == []


def test_a_dropped_song_is_answered(page: Any, songs: list[Path]) -> None:
    song = songs[0]
    _drop(page, song)
    page.wait_for_selector(".gp-near", timeout=ANSWER_MS)
    assert page.inner_text(".gp-genre") == song.parent.name
    assert "%" in page.inner_text(".gp-sure")
    assert page.inner_text(".gp-name") == song.name
    assert page.locator(".gp-chunk").count() == 3  # 8 s in chunks of 3 s
    assert page.inner_text(".gp-known .gp-title") == song.stem
    assert "from its beginning" in page.inner_text(".gp-known")
    assert song.stem not in page.locator(".gp-near .gp-title").all_inner_texts()
    assert page.locator(".gp-waiting").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, "the page is wider than the phone"


def test_every_genre_has_one_colour_on_the_page(page: Any, songs: list[Path]) -> None:
    _drop(page, songs[0])
    page.wait_for_selector(".gp-near", timeout=ANSWER_MS)
    tags = page.eval_on_selector_all(
        ".gp-tag", "all => all.map(t => [t.innerText, t.firstElementChild.style.background])"
    )
    bars = page.eval_on_selector_all(
        ".gp-bar", "all => all.map(b => [b.firstElementChild.innerText, b.querySelector('i').style.background])"
    )
    shown = {(genre.strip(), colour) for genre, colour in tags + bars if genre.strip()}
    assert len(shown) == len({genre for genre, _ in shown}) == 2


def test_chunks_are_chosen_by_touch_and_by_keys(page: Any, songs: list[Path]) -> None:
    _drop(page, songs[1])
    page.wait_for_selector(".gp-near", timeout=ANSWER_MS)
    chunks, shown = page.locator(".gp-chunk"), page.locator(".gp-detail:visible")
    chunks.nth(1).click()
    assert shown.inner_text().startswith("0:03–0:06")
    page.keyboard.press("ArrowRight")
    assert shown.inner_text().startswith("0:06–0:08")
    assert chunks.nth(2).get_attribute("aria-checked") == "true"
    page.wait_for_function("Math.abs(document.querySelector('#gp-song audio').currentTime - 6) < 0.1")


def test_a_similar_song_can_be_listened_to(page: Any, songs: list[Path]) -> None:
    _drop(page, songs[2])
    page.wait_for_selector(".gp-near", timeout=ANSWER_MS)
    with page.expect_response(re.compile(r"/ui/songs/[0-9a-f]{64}$")) as answered:
        page.locator(".gp-near .gp-play").first.click()
    assert answered.value.ok
    assert answered.value.headers["content-type"] == "audio/wav"
    page.wait_for_selector(".gp-near .gp-play.gp-on")


def test_a_file_that_is_no_music_is_told_in_words(page: Any, tmp_path: Path) -> None:
    bad = tmp_path / "holiday.mp3"
    bad.write_bytes(b"this is no music" * 100)
    _drop(page, bad)
    page.wait_for_selector(".gp-error", timeout=ANSWER_MS)
    told = page.inner_text(".gp-error")
    assert "holiday.mp3: cannot be decoded" in told
    assert "Take a sound file" in told
    assert "/" not in told, "a path of the server is shown"


def test_what_stands_in_a_file_name_is_not_executed(page: Any, songs: list[Path], tmp_path: Path) -> None:
    hostile = tmp_path / (HOSTILE.replace("/", "") + ".wav")
    shutil.copy(songs[0], hostile)
    _drop(page, hostile)
    page.wait_for_selector(".gp-near", timeout=ANSWER_MS)
    assert "onerror" in page.inner_text(".gp-name")
    assert page.evaluate("window.pwned") is None


def test_an_example_is_answered_at_a_click(page: Any) -> None:
    page.locator(".gp-examples button").first.click()
    page.wait_for_selector(".gp-near", timeout=ANSWER_MS)
    assert page.inner_text(".gp-genre") in ("high", "low")


def test_a_cleared_song_leaves_the_empty_page(page: Any, songs: list[Path]) -> None:
    _drop(page, songs[0])
    page.wait_for_selector(".gp-near", timeout=ANSWER_MS)
    page.get_by_label("Clear").click()
    page.wait_for_selector(".gp-empty")
    assert page.locator(".gp-verdict, .gp-known, .gp-near").count() == 0


def test_no_file_but_the_indexed_songs_can_be_fetched(site: str, songs: list[Path]) -> None:
    assert _status(f"{site}/ui/songs/{'0' * 64}") == 404
    for path in (
        *(
            "/ui/songs/../params.yaml",
            "/ui/songs/%2e%2e%2fparams.yaml",
            "/ui/songs/",
            "/ui/gradio_api/file=params.yaml",
        ),
        f"/ui/gradio_api/file={songs[0]}",
        "/ui/gradio_api/file=/etc/passwd",
        "/ui/gradio_api/file=http://example.org/",
        "/ui/gradio_api/file=/%2fexample.org",
        "/ui/gradio_api/proxy=http://example.org/",
    ):
        assert _status(site + path) in (403, 404), path


@pytest.mark.parametrize("path", ["/etc/passwd", "params.yaml", "http://127.0.0.1:9/song.wav"])
def test_a_client_cannot_name_a_file_of_the_server(site: str, path: str) -> None:
    listen = next(
        dependency["id"]
        for dependency in httpx.get(f"{site}/ui/config").json()["dependencies"]
        if dependency["api_name"].startswith("listen")
    )
    payload = {"path": path, "url": path, "orig_name": "x", "meta": {"_type": "gradio.FileData"}}
    body = {"data": [payload], "fn_index": listen, "session_hash": "hostile"}
    assert httpx.post(f"{site}/ui/gradio_api/run/predict", json=body).status_code == 404, "the queue is passed by"
    assert httpx.post(f"{site}/ui/gradio_api/queue/join", json=body).status_code == 200
    with httpx.stream("GET", f"{site}/ui/gradio_api/queue/data?session_hash=hostile", timeout=30) as events:
        told = "".join(line for line in events.iter_lines() if "process_completed" in line)
    answer = json.loads(told.removeprefix("data: "))
    assert not answer["success"], "a file that is no upload is taken"
    assert "data" not in answer["output"]


def test_a_header_cannot_tell_where_the_page_is(site: str) -> None:
    evil = {
        "x-forwarded-host": "evil.example",
        "forwarded": "host=evil.example",
        "x-gradio-server": "http://evil.example/",
    }
    assert "evil.example" not in httpx.get(f"{site}/ui/", headers=evil).text
    assert httpx.get(f"{site}/ui/config", headers=evil).json()["root"] == f"{site}/ui"
    proxied = httpx.get(f"{site}/ui/config", headers={"host": "localhost", "x-forwarded-proto": "https"})
    assert proxied.json()["root"] == "https://localhost/ui", "behind TLS the page's addresses are wrong"


def test_what_the_page_does_not_know_is_no_fault(site: str) -> None:
    """The site's log is looked at for tracebacks when all is done."""
    told = httpx.get(f"{site}/ui/gradio_api/queue/data?session_hash=zzz")
    assert '"session_not_found":true' in told.text
    for form in ({"files": "no file"}, {"other": "x"}):
        answer = httpx.post(f"{site}/ui/gradio_api/upload", files={"a": b""}, data=form)
        assert answer.status_code in (200, 400), answer.text
    host, port = site.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:  # and goes away in its upload
        head = f"POST /ui/gradio_api/upload HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Length: 1000\r\n"
        connection.sendall(f"{head}Content-Type: multipart/form-data; boundary=x\r\n\r\n--x\r\n".encode())
        wait_until(lambda: "\ngenre_uploads 1.0\n" in httpx.get(f"{site}/metrics").text, "the upload is not counted")
    wait_until(lambda: "\ngenre_uploads 0.0\n" in httpx.get(f"{site}/metrics").text, "its place stays taken")


@pytest.mark.parametrize("ready", [True, False])
def test_what_is_not_there_yet_is_told_in_words(
    ready: bool, make_song: MakeSong, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("genre.web.page_listener.LOADING_S", 1)
    monkeypatch.setattr("genre.web.page_listener.time.sleep", lambda _: None)
    song = make_song(tmp_path / "song.wav", seconds=2.0)
    listener = Listener(_WithoutIndex(ready), Library(tmp_path), tmp_path, 60.0)
    status, answer, known, near = list(listener.listen({"path": str(song), "orig_name": "my song.wav"}))[-1]
    assert status == ""
    if ready:
        assert "my song.wav" in answer
        assert "vectors/landmarks.npz is not there: run `dvc repro index`" in known, "the name is changed"
        assert "run `dvc repro index`" in near
    else:
        assert "The models are still being loaded" in answer
        assert known == near == ""


def test_only_what_the_page_needs_is_open() -> None:
    assert all(OPEN.fullmatch(path) for path in ("", "/", "/assets/index.js", "/gradio_api/queue/join", "/theme.css"))
    for path in (
        "/gradio_api/heartbeat/s1",
        "/gradio_api/upload_progress",
        "/gradio_api/call/listen",
        "/gradio_api/vibe-edit",
        "/monitoring",
        "/gradio_api/run/listen",
        "/login",
    ):
        assert not OPEN.fullmatch(path), path


@pytest.mark.parametrize("n_chunks", [1, 60])
def test_the_timeline_shows_few_chunks_and_many(n_chunks: int) -> None:
    genres = ["<b>rock</b>", "jazz"]
    answer = {
        "genre": genres[0],
        "confidence": 0.75,
        "votes": {genres[0]: n_chunks},
        "chunks": [
            {
                "start": 30.0 * i,
                "end": 30.0 * (i + 1),
                "genre": genres[0],
                "probabilities": dict(zip(genres, (0.75, 0.25), strict=True)),
            }
            for i in range(n_chunks)
        ],
    }
    wave = page_parts.Wave(np.ones(page_parts.N_BARS, np.float32), seconds=30.0 * n_chunks)
    html = page_parts.render_answer(answer, wave, genres, name="song", cut_short=False)
    assert html.count('role="radio"') == n_chunks
    assert "<b>rock" not in html
    assert "&lt;b&gt;rock&lt;/b&gt;" in html
    assert "quite sure" in html


def test_the_loudness_of_a_song_is_drawn(make_song: MakeSong, tmp_path: Path) -> None:
    loud = make_song(tmp_path / "loud.wav", seconds=2.0)
    padded = tmp_path / "padded.wav"
    command = [executable(), "-v", "error", "-i", str(loud), "-af", "apad=pad_dur=2", str(padded)]
    subprocess.run(command, check=True)
    wave = page_parts.waveform(padded, duration=60.0)
    assert wave.seconds == pytest.approx(4.0, abs=0.01)
    assert wave.levels.max() == pytest.approx(1.0)
    assert wave.levels[page_parts.N_BARS // 2 + 1 :].max() < 0.01


def test_without_an_index_there_is_nothing_to_listen_to(tmp_path: Path) -> None:
    library = Library(tmp_path)
    assert library.songs() == {}
    assert library.examples(5) == []
    (tmp_path / "chunks").mkdir()
    head = "chunk,song,genre,split,start_s,seconds,source,source_sha256\n"
    rows = f"a.wav,a,rock,test,0,3,../secret.wav,{'a' * 64}\n../../b.wav,b,rock,test,0,3,dataset/t/b.wav,{'b' * 64}\n"
    (tmp_path / "chunks" / "index.csv").write_text(head + rows)
    assert library.songs() == {}, "a path that leads out of the data set is taken"


def test_many_genres_have_many_colours() -> None:
    genres = [str(i) for i in range(30)]
    colours = plots.colours(genres)
    assert len(set(colours.values())) == 30
    assert all(re.fullmatch("#[0-9a-f]{6}", colour) for colour in colours.values())
    assert (plots.text_on("#ffffff"), plots.text_on("#000000")) == ("#000000", "#ffffff")


class _WithoutIndex:
    """Answers about the genre only."""

    genres = ("rock", "jazz")
    model = "merged"

    def __init__(self, ready: bool) -> None:
        self.ready = ready

    def query(self, path: Path, *, start: float = 0.0, duration: float | None = None) -> dict[str, Any]:
        chunk = {"start": 0.0, "end": 2.0, "genre": "rock", "probabilities": {"rock": 0.6, "jazz": 0.4}}
        return {"genre": "rock", "confidence": 0.6, "votes": {"rock": 1}, "chunks": [chunk]}

    def identify(self, path: Path, **_: object) -> dict[str, Any]:
        raise GenreError("vectors/landmarks.npz is not there: run `dvc repro index`")

    def similar(self, path: Path, **_: object) -> dict[str, Any]:
        raise GenreError("vectors/index.json is not there: run `dvc repro index`")


def _drop(page: Any, song: Path) -> None:
    page.set_input_files("#gp-song input[type=file]", str(song))


def _status(url: str) -> int:
    try:
        return httpx.get(url, follow_redirects=True).status_code
    except httpx.TransportError:
        return 0
