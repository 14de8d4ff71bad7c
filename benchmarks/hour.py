"""An hour of the whole thing with the page open: memory and latency of the first and of the last ten minutes.

    python -m benchmarks.hour [--minutes 60] [--rate 300] [--config FILE]

Starts `intentstream run` in a process of its own with a simulated shop of so many events a second, opens the page in
Chromium, and looks every ten seconds at the server's resident memory, the page's JavaScript heap, the time from an
event's arrival to its list, and the answer time of `GET /recommendations/{user}` (the median of 20). Reported are the
medians over the first and the last sixth of the looks. The last line is JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import tempfile
import time
import urllib.error
from pathlib import Path
from typing import Any

from playwright.sync_api import CDPSession, sync_playwright

from benchmarks.api import get, metric, running, wait_for

EVERY_S = 10.0
ASKED = 20
FIGURES = ("rss_mb", "page_heap_mb", "freshness_p50_ms", "freshness_p99_ms", "get_ms", "events_per_second")


def with_lists(port: int) -> list[str]:
    """Users of the simulated shop who have a list, as many as are asked for; fewer when there are not so many yet."""
    found: list[str] = []
    for number in range(50 * ASKED):
        with contextlib.suppress(urllib.error.HTTPError):
            get(port, f"/recommendations/u{number}")
            found.append(f"u{number}")
        if len(found) == ASKED:
            break
    return found


def answer_ms(port: int, users: list[str]) -> float:
    """Median milliseconds of asking for a list."""
    times = []
    for user in users:
        began = time.perf_counter()
        get(port, f"/recommendations/{user}")
        times.append((time.perf_counter() - began) * 1000)
    return statistics.median(times)


def look(port: int, page: CDPSession, users: list[str]) -> dict[str, float]:
    """The figures of this moment."""
    heap = {one["name"]: one["value"] for one in page.send("Performance.getMetrics")["metrics"]}["JSHeapUsedSize"]
    figures = (
        metric(port, "process_resident_memory_bytes") / 2**20,
        heap / 2**20,
        metric(port, "intentstream_freshness_p50_seconds") * 1000,
        metric(port, "intentstream_freshness_p99_seconds") * 1000,
        answer_ms(port, users),
        metric(port, "intentstream_events_per_second"),
    )
    return {name: round(value, 2) for name, value in zip(FIGURES, figures, strict=True)}


def medians(looks: list[dict[str, float]]) -> dict[str, float]:
    return {name: round(statistics.median(one[name] for one in looks), 2) for name in FIGURES}


def main() -> None:
    """Look until the time is over."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=300, help="events a second")
    parser.add_argument("--config", type=Path, help="more configuration, in TOML, without [monitor]")
    given = parser.parse_args()
    looks: list[dict[str, float]] = []
    errors: list[str] = []
    more = given.config.read_text() if given.config else ""
    with tempfile.TemporaryDirectory() as name, running(Path(name), given.rate, more) as port:
        wait_for(lambda: metric(port, "intentstream_events_per_second") > 0, 120)
        wait_for(lambda: len(with_lists(port)) == ASKED, 120)
        users = with_lists(port)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
            page = browser.new_context(viewport={"width": 1600, "height": 1000}).new_page()
            page.on("console", lambda line: errors.append(line.text) if line.type == "error" else None)
            page.goto(f"http://127.0.0.1:{port}/")
            session = page.context.new_cdp_session(page)
            session.send("Performance.enable")
            end = time.monotonic() + 60 * given.minutes
            while time.monotonic() < end:
                page.wait_for_timeout(1000 * EVERY_S)
                looks.append(look(port, session, users))
                if len(looks) % 30 == 0:
                    print(json.dumps({"minutes": round(len(looks) * EVERY_S / 60), **medians(looks[-30:])}), flush=True)
            browser.close()
    part = max(1, len(looks) // 6)
    first, last = medians(looks[:part]), medians(looks[-part:])
    found: dict[str, Any] = {"minutes": given.minutes, "rate": given.rate, "first": first, "last": last}
    found["ratio"] = {name: round(last[name] / max(first[name], 0.01), 3) for name in FIGURES}
    found["console_errors"] = errors
    print(json.dumps(found))


if __name__ == "__main__":
    main()
