"""A small project with a model and an index, and the service in a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from genre.audio.ffmpeg import executable
from tests.made import ROOT, write_params

MODEL = "stats_svm"  # trained in a second, without TensorFlow
START_S = 60.0  # time-out of the start and of requests, generous for a busy machine
KEY = "a key with an é".encode()  # of the services that need one
HEADERS = {b"x-api-key": KEY}
http = httpx.Client(timeout=START_S, limits=httpx.Limits(max_keepalive_connections=0))
UNSET = ("MILVUS_URI", "GENRE_API_KEY", "PYTHONDONTWRITEBYTECODE")
OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"),
)

StartServer = Callable[..., "Server"]


@dataclass(frozen=True, slots=True)
class Server:
    """The service in a process of its own."""

    process: subprocess.Popen[bytes]
    url: str
    folder: Path  # working directory, a project
    temporary: Path  # folder for temporary files
    log: Path  # standard error
    hold: Path  # while this file is there, songs wait before they are decoded

    def metric(self, name: str) -> float:
        """Return the sum of a metric over its labels."""
        text = http.get(f"{self.url}/metrics", headers=HEADERS).text
        return sum(float(value) for value in re.findall(rf"^{name}(?:{{.*}})? (\S+)$", text, re.MULTILINE))

    @property
    def uploads(self) -> list[Path]:
        """Temporary files of uploads."""
        return list(self.temporary.glob("genre-*"))

    @property
    def is_decoding(self) -> bool:
        """Whether one of its decoders runs."""
        return subprocess.run(["pgrep", "-f", self.hold.parent], capture_output=True, check=False).returncode == 0

    def wait_for(self, name: str, value: float) -> None:
        """Wait until a metric has a value."""
        wait_until(lambda: self.metric(name) == value, f"{name} is not {value}")

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Keep songs from being decoded for a while."""
        self.hold.touch()
        try:
            yield
        finally:
            self.hold.unlink(missing_ok=True)


@pytest.fixture(scope="session")
def songs(trained: Path) -> list[Path]:
    """Return the songs of the project, genre by genre."""
    return sorted(trained.glob("dataset/tiny/*/*.wav"))


@pytest.fixture(scope="module")
def start_server(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartServer]:
    """Return a function that starts a service on a copy of the project; it may leave no traceback and no upload."""
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, **options: Any) -> Server:
            return stack.enter_context(_started(trained, tmp_path_factory.mktemp("server"), arguments, **options))

        yield start


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Return a headless Chromium with a fake microphone, or skip."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    names = ("chromium", "chromium-browser", "google-chrome")
    program = next((path for name in names if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip(f"no browser is installed ({', '.join(names)})")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program, args=list(OPTIONS))
        yield started
        started.close()


@contextlib.contextmanager
def opened(browser: Any, url: str) -> Iterator[Any]:
    """Open a page on a phone; it may call no other host, violate no policy and raise no error."""
    page = browser.new_page(viewport={"width": 360, "height": 740})
    urls: list[str] = []
    problems: list[str] = []
    page.on("request", lambda request: urls.append(request.url))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(url)
    yield page
    page.close()
    assert [other for other in urls if not other.startswith((url.rpartition("/")[0], "data:", "blob:"))] == []
    assert [problem for problem in problems if "Failed to load resource" not in problem] == []  # responses 4xx


def form(path: Path) -> dict[str, Any]:
    """Return the form that uploads a song."""
    return {"audio": (path.name, path.read_bytes())}


def wait_until(condition: Callable[[], bool], otherwise: str, seconds: float = START_S) -> None:
    """Wait until a condition holds, or fail with the message `otherwise`."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, otherwise
        time.sleep(0.02)


@contextlib.contextmanager
def _started(
    trained: Path,
    base: Path,
    arguments: tuple[str, ...],
    *,
    environment: Mapping[str, str] | None = None,
    without: str = "",  # a folder that is not copied
    held: bool = False,
    module: str = "stages.serve",
    prepare: Callable[[Path], None] = lambda _: None,  # called with the project
    wrapper: Sequence[str] = (),  # command that runs the service
    **changes: object,  # of params.yaml, as of write_params
) -> Iterator[Server]:
    folder, temporary, hold, script, log = (base / name for name in ("project", "tmp", "hold", "ffmpeg-held", "log"))
    shutil.copytree(trained, folder, ignore=shutil.ignore_patterns(without))
    write_params(folder, parallel__workers=1, **changes)
    prepare(folder)
    temporary.mkdir()
    script.write_text(f'#!/bin/sh\nwhile [ -e "{hold}" ]; do sleep 0.02; done\nexec "{executable()}" "$@"\n')
    script.chmod(0o755)
    if held:
        hold.touch()
    model = ["--model", MODEL] if module == "stages.serve" else []
    command = [*wrapper, sys.executable, "-m", module, "--port", "0", *model, *arguments]
    variables = {
        **{name: value for name, value in os.environ.items() if name not in UNSET},
        "IMAGEIO_FFMPEG_EXE": str(script),
        "PYTHONPATH": str(ROOT),
        "TMPDIR": str(temporary),
        "PYTHONPYCACHEPREFIX": str(base.parent / "pycache"),  # compiled once for all servers
        "OMP_NUM_THREADS": "1",
        **(environment or {}),
    }

    def urls() -> list[str]:
        return re.findall(r"http://\S+(?=\n)", log.read_text())

    with log.open("w") as stream, subprocess.Popen(command, cwd=folder, env=variables, stderr=stream) as process:
        try:
            wait_until(lambda: bool(urls()) or process.poll() is not None, "the service does not start")
            server = Server(process, "".join(urls()[:1]), folder, temporary, log, hold)
            if model and not held:
                wait_until(lambda: is_ready(server) or process.poll() is not None, "the service is not ready")
            yield server
        finally:
            hold.unlink(missing_ok=True)
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()
    assert "Traceback" not in log.read_text()
    assert server.uploads == []


def is_ready(server: Server) -> bool:
    """Whether a service has loaded its models."""
    try:
        return http.get(f"{server.url}/readyz").status_code == 200
    except httpx.TransportError:
        return False
