"""The page in a real browser, driven through what users see: labels, buttons, keys."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from genre.evaluation import plots
from tests.made import make_song
from tests.web.conftest import Server, StartServer, opened

pytestmark = pytest.mark.slow

ANSWER_MS = 30_000  # time-out, generous for a busy machine
HOSTILE = '<img src=x onerror="window.pwned=1">${window.pwned=1}{{7*7}}'


@pytest.fixture(scope="module")
def site(start_server: StartServer) -> Server:
    return start_server(serve__max_upload_bytes=2_000_000)


@pytest.fixture
def page(browser: Any, site: Server) -> Iterator[Any]:
    with opened(browser, site.url + "/ui") as page:
        page.wait_for_selector("body.ready", timeout=ANSWER_MS)
        yield page


def _analyse(page: Any, song: Path) -> None:
    page.set_input_files("#file", str(song))
    page.wait_for_selector("#similar .play", timeout=ANSWER_MS)
    page.wait_for_selector("#match .song-title, #match .note", timeout=ANSWER_MS)  # or no song matches


def test_a_song_is_answered_and_similar_ones_can_be_played(page: Any, songs: list[Path]) -> None:
    song = songs[0]
    _analyse(page, song)
    assert page.inner_text("#genre") == song.parent.name
    assert "%" in page.inner_text("#confidence")
    assert page.inner_text("#name") == song.name
    assert page.inner_text("#warnings").startswith("Warning: the model was trained on synthetic songs (data set tiny)")
    assert page.get_by_role("radio").count() == 3  # 8 s in chunks of 3 s
    assert page.inner_text("#match .song-title") == song.stem
    assert "from its beginning" in page.inner_text("#match")
    assert song.stem not in page.locator("#similar .song-title").all_inner_texts()
    page.wait_for_function("document.getElementById('status').textContent === ''")
    assert page.evaluate("document.documentElement.scrollWidth") <= 360, "the page is wider than the phone"
    colour = plots.colours(["jazz", "rock"])[song.parent.name]
    middle = "(c => [...c.getContext('2d').getImageData(0, c.height / 2, c.width, 1).data])"
    pixels = page.evaluate(f"{middle}(document.getElementById('waveform'))")
    opaque = [pixels[i : i + 3] for i in range(0, len(pixels), 4) if pixels[i + 3] == 255]
    assert [int(colour[i : i + 2], 16) for i in (1, 3, 5)] in opaque
    with page.expect_response(re.compile(r"/v1/audio\?genre=")) as response:
        page.locator("#similar .play").first.click()
    assert (response.value.ok, response.value.headers["content-type"]) == (True, "audio/wav")
    page.wait_for_selector("#similar .play.on")


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ({"genre": "unknown", "reason": "noise"}, {"genre": "Unknown", "certainty": "noise", "set": ""}),
        ({"genre_set": ["jazz", "rock"]}, {"genre": "jazz", "set": "jazz or rock"}),
        ({"genre_set": ["jazz"]}, {"genre": "jazz", "set": ""}),
    ],
)
def test_an_unknown_song_has_a_reason_and_likely_genres_are_named(
    page: Any, songs: list[Path], changes: dict[str, object], shown: dict[str, str]
) -> None:
    _analyse(page, songs[0])
    page.evaluate("changes => { Object.assign(song.answer, changes); showAnswer(); }", changes)
    assert {name: page.inner_text(f"#{name}") for name in shown} == shown
    neutral = page.evaluate("getComputedStyle(verdict).getPropertyValue('--genre') === colour('unknown')")
    assert neutral == ("%" not in page.inner_text("#confidence")) == (shown["genre"] == "Unknown")


def test_a_dropped_song_is_answered_and_its_name_is_not_executed(page: Any, songs: list[Path]) -> None:
    page.evaluate(
        """([bytes, name]) => {
          const transfer = new DataTransfer();
          transfer.items.add(new File([new Uint8Array(bytes)], name));
          document.body.dispatchEvent(new DragEvent("drop", { dataTransfer: transfer, bubbles: true }));
        }""",
        [list(songs[0].read_bytes()), HOSTILE],
    )
    page.wait_for_selector("#similar .play", timeout=ANSWER_MS)
    assert "onerror" in page.inner_text("#name")
    assert page.evaluate("window.pwned") is None


def test_a_recording_is_answered(page: Any) -> None:
    page.get_by_role("button", name="Record").click()
    page.get_by_role("button", name="Stop").wait_for()
    page.wait_for_timeout(2500)
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector("#genre:not(:empty)", timeout=ANSWER_MS)
    assert page.inner_text("#name").startswith("recording.")
    assert page.inner_text("#genre") in ("jazz", "rock")


def test_an_example_is_answered_at_a_click(page: Any) -> None:
    page.locator("#examples button").first.click()
    page.wait_for_selector("#similar .play", timeout=ANSWER_MS)
    assert page.inner_text("#genre") in ("jazz", "rock")


def test_a_tail_that_is_too_short_for_a_chunk_is_grey_and_explained(page: Any, tmp_path: Path) -> None:
    for seconds, shown in ((6.5, True), (7.5, False)):  # chunks of 3 s, and a last one of 1 s or more
        _analyse(page, make_song(tmp_path / f"{seconds}.wav", seconds=seconds))
        assert page.locator("#cut").is_visible() == shown
        assert not shown or "Grey: the last 0.5 s" in page.inner_text("#cut")
        end = page.evaluate("parseFloat(chunks.lastChild.style.left) + parseFloat(chunks.lastChild.style.width)")
        assert end == pytest.approx(100 * 6 / 6.5 if shown else 100, abs=0.5)


def test_chunks_are_selected_by_click_and_by_keys(page: Any, songs: list[Path]) -> None:
    _analyse(page, songs[1])
    chunks = page.get_by_role("radio")
    chunks.nth(1).click()
    assert page.inner_text("#bars-title") == "Chunk 0:03–0:06"
    page.wait_for_function("!document.getElementById('player').paused")
    page.keyboard.press("Space")
    page.wait_for_function("document.getElementById('player').paused")
    page.keyboard.press("ArrowRight")
    assert chunks.nth(2).get_attribute("aria-checked") == "true"
    assert page.inner_text("#bars-title") == "Chunk 0:06–0:08"
    page.wait_for_function("Math.abs(document.getElementById('player').currentTime - 6) < 0.1")
    page.get_by_role("button", name="Whole song").click()
    assert page.inner_text("#bars-title") == "Mean probabilities"


def test_the_focus_is_visible(page: Any) -> None:
    outline = "getComputedStyle(document.activeElement.labels?.[0] ?? document.activeElement).outlineStyle"
    for _ in range(2):
        page.keyboard.press("Tab")
        assert page.evaluate(outline) == "solid"


@pytest.mark.parametrize(
    ("name", "n_bytes", "messages"),
    [
        ("holiday.mp3", 1600, ["Choose an audio or video file that is not damaged", "holiday.mp3: cannot be decoded"]),
        ("large.wav", 2_100_000, ["large.wav is larger than 1 MB"]),  # without an upload
    ],
)
def test_a_file_that_cannot_be_analysed_is_reported_in_words(
    page: Any, tmp_path: Path, name: str, n_bytes: int, messages: list[str]
) -> None:
    (tmp_path / name).write_bytes(b"this is no music" * (n_bytes // 16))
    page.set_input_files("#file", str(tmp_path / name))
    page.wait_for_selector("#error", timeout=ANSWER_MS)
    shown = page.inner_text("#error")
    assert all(message in shown for message in messages)
    assert "/" not in shown, "a path of the server is shown"


def test_the_documentation_works_under_the_policy(browser: Any, site: Server) -> None:
    with opened(browser, site.url + "/docs") as page:
        page.get_by_text("/v1/query").wait_for(timeout=ANSWER_MS)
