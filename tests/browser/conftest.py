"""The page, served over a log with invented topics, in the system's Chromium."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from stream.log import EventLog, Message, open_log
from tests.unit.monitor import feed as feeds

CHROMIUM = shutil.which("chromium") or "/usr/bin/chromium"
_SERVER = """
import sys
from pathlib import Path
from monitor import MonitorConfig, run
from stream.log import open_log
url, folder, port, token = sys.argv[1:5]
with open_log(url, mode="reader") as reader, open_log(url, mode="producer") as producer:
    run(reader, MonitorConfig(port=int(port), token=token, stale_after_s=60), Path(folder), producer)
"""


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@dataclass
class Site:
    """A served page, and the log behind it."""

    url: str
    log: EventLog
    feed: feeds.Feed
    messages: list[Message]
    process: subprocess.Popen[bytes]

    def append(self, messages: list[Message]) -> None:
        self.log.append(messages)
        self.messages += messages


def serve(folder: Path, log_url: str, token: str = "") -> tuple[subprocess.Popen[bytes], str]:
    """Start a monitor in a process of its own: NiceGUI has one application per process."""
    port = free_port()
    process = subprocess.Popen([sys.executable, "-c", _SERVER, log_url, str(folder), str(port), token])
    for _ in range(600):
        with socket.socket() as sock:
            if sock.connect_ex(("127.0.0.1", port)) == 0:
                return process, f"http://127.0.0.1:{port}"
        assert process.poll() is None, "the monitor ended"
        time.sleep(0.1)
    raise AssertionError("the monitor did not start")


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        if os.environ.get("REQUIRE_BROWSER") == "1":
            pytest.fail("REQUIRE_BROWSER=1, but there is no chromium on this machine")
        pytest.skip("no chromium on this machine: browser tests are skipped")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture(scope="session")
def make_site(tmp_path_factory: pytest.TempPathFactory, browser: Browser) -> Iterator[Callable[..., Site]]:
    """A site per call, with so many steps in its log."""
    processes, logs = [], []

    def make(steps: int, token: str = "") -> Site:
        folder = tmp_path_factory.mktemp("site")
        url = f"file://{folder}/log"
        log = open_log(url)
        logs.append(log)
        feeds.create(log)
        made = feeds.Feed(start_ms=int(time.time() * 1000) - 5000 * steps)
        messages = feeds.history(made, steps) if steps else []
        log.append(messages)
        process, address = serve(folder / "view", url, token)
        processes.append(process)
        return Site(address, log, made, messages, process)

    yield make
    for process in processes:
        process.terminate()
    for process in processes:
        process.wait(timeout=20)
    for log in logs:
        log.close()


@pytest.fixture(scope="session")
def long_site(make_site: Callable[..., Site]) -> Site:
    return make_site(300)


@pytest.fixture
def site(long_site: Site) -> Site:
    """A log with a history that all tests share, and a worker that has reported just now."""
    long_site.feed.now_ms = int(time.time() * 1000)
    long_site.append([long_site.feed.metrics()])
    return long_site


class Watched:
    """A page on which every console error and every request to another host is noted."""

    def __init__(self, page: Page, url: str) -> None:
        self.page, self.faults = page, list[str]()
        page.on("console", lambda m: self.faults.append(m.text) if m.type == "error" else None)
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        own = (url, url.replace("http", "ws"), "data:", "blob:")
        page.on("request", lambda r: None if r.url.startswith(own) else self.faults.append(f"request to {r.url}"))


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Callable[..., Watched]]:
    contexts = []

    def opened(url: str, path: str = "/", width: int = 1600, height: int = 1000, theme: str = "light") -> Watched:
        context = browser.new_context(
            viewport={"width": width, "height": height},
            color_scheme=theme,  # type: ignore[arg-type]  # a Literal there, a str here
        )
        contexts.append(context)
        watched = Watched(context.new_page(), url)
        watched.page.goto(url + path)
        return watched

    yield opened
    for context in contexts:
        context.close()
