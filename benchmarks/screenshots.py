"""Pictures of the page for docs/images/: runs `intentstream run` for a while and looks at it with Chromium.

    python -m benchmarks.screenshots [--minutes 5] [--rate 300] [--out docs/images] [--dir DIR]

With --dir the shop goes on where it was, so the pictures can be made again after a change of the page in a minute.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path
from urllib.parse import quote

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from benchmarks.api import get, running

SETTLE_S = 3.0


def opened(browser: Browser, url: str, width: int, height: int, theme: str) -> Page:
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme=theme,  # type: ignore[arg-type]  # a Literal there, a str here
        reduced_motion="reduce",
    )
    page = context.new_page()
    page.goto(url)
    page.wait_for_selector(".standing h1")
    time.sleep(SETTLE_S)
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--rate", type=float, default=300)
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--dir", type=Path)
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    sizes = {}
    with tempfile.TemporaryDirectory() as name:
        folder: Path = given.dir or Path(name)
        folder.mkdir(parents=True, exist_ok=True)
        with running(folder, given.rate, "") as port, sync_playwright() as playwright:
            time.sleep(given.minutes * 60)
            url = f"http://127.0.0.1:{port}"
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])

            def shoot(name: str, path: str, width: int, height: int, theme: str, whole: bool) -> None:
                page = opened(browser, url + path, width, height, theme)
                file = given.out / f"{name}.png"
                page.screenshot(path=file, full_page=whole)
                with Image.open(file) as taken:  # flat colours: a palette keeps them, at a third of the size
                    taken.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, optimize=True)
                sizes[name] = file.stat().st_size
                page.context.close()

            shoot("page", "/", 1600, 1000, "light", True)
            shoot("page-phone", "/", 390, 844, "dark", False)
            largest = json.loads(get(port, "/intents?limit=1"))["intents"][0]
            shoot("intent", f"/intent/{largest['intent']}", 1600, 1000, "light", False)
            shift = json.loads(get(port, f"/intents/{largest['intent']}"))["shifts"][0]
            shoot("user", f"/user?id={quote(shift['user'])}", 1600, 1000, "light", False)
            browser.close()
    print(json.dumps({"bytes": sizes}))


if __name__ == "__main__":
    main()
