"""Write pictures of the page, ui-light.png, ui-dark.png and ui-phone.png, with the answer about a song.

    python -m stages.serve &
    python -m benchmarks.screenshots http://127.0.0.1:5000 song.mp3 docs

Needs Chromium and the package playwright.
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

VIEWS = (("light", 1100, "light"), ("dark", 1100, "dark"), ("phone", 390, "light"))  # name, width in pixels, scheme
ANSWER_MS = 60_000  # time-out


def main() -> None:
    """Write the pictures."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.screenshots", description=__doc__.splitlines()[0])
    parser.add_argument("url", help="address of a running service")
    parser.add_argument("song", type=Path)
    parser.add_argument("folder", type=Path)
    arguments = parser.parse_args()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=shutil.which("chromium"), args=["--headless", "--no-sandbox"])
        for name, width, scheme in VIEWS:
            page = browser.new_page(viewport={"width": width, "height": 800}, color_scheme=scheme)
            page.goto(arguments.url + "/ui")
            page.wait_for_selector("body.ready", timeout=ANSWER_MS)
            page.set_input_files("#file", str(arguments.song))
            page.wait_for_selector("#similar .play", timeout=ANSWER_MS)
            page.wait_for_selector("#status:empty", state="attached", timeout=ANSWER_MS)
            page.screenshot(path=arguments.folder / f"ui-{name}.png", full_page=True)
        browser.close()


if __name__ == "__main__":
    main()
