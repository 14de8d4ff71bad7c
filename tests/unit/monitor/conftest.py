"""A log with invented topics, and monitors over it, served on loopback."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from monitor import MonitorConfig, serve
from stream.log import EventLog, open_log
from stream.schema.ranked_items import Ranker
from tests.unit.monitor import feed

NOW_MS = 1_767_225_600_000

MakeClient = Callable[..., httpx.Client]


def until(check: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for another thread of the monitor."""
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "the monitor did not get there"
        time.sleep(0.01)


@pytest.fixture
def log(tmp_path: Path) -> Iterator[EventLog]:
    with open_log(f"file://{tmp_path}/log") as opened:
        feed.create(opened)
        yield opened


@pytest.fixture
def make_client(tmp_path: Path, log: EventLog) -> Iterator[MakeClient]:
    """A running monitor per call, and a client that talks to it."""
    with ExitStack() as stack:

        def make(view: str = "view", ranker: Ranker | None = None, **settings: object) -> httpx.Client:
            reader = stack.enter_context(open_log(f"file://{tmp_path}/log", mode="reader"))
            producer = stack.enter_context(open_log(f"file://{tmp_path}/log", mode="producer"))
            chosen = {"port": 0, "poll_interval_s": 0.01, **settings}
            config = MonitorConfig(**chosen)  # type: ignore[arg-type]  # the tests' own values
            url = stack.enter_context(serve(reader, config, tmp_path / view, producer, ranker=ranker, page=False))
            return stack.enter_context(httpx.Client(base_url=url, timeout=20))

        yield make
