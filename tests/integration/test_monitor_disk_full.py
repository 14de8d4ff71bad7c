"""A monitor whose disk, or whose log's disk, is full: it says so, loses nothing and goes on by itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from monitor import MonitorConfig, serve
from stream.log import open_log
from stream.schema import topics
from tests.integration.test_disk_full import fill, small_disk
from tests.unit.monitor import feed as feeds

pytestmark = pytest.mark.integration
__all__ = ["small_disk"]
KEY = {"idempotency-key": "order-17"}
CONFIG = MonitorConfig(port=0, poll_interval_s=0.01)


def until(check: Callable[[], bool], seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < end, "it did not get there"
        time.sleep(0.05)


def test_a_view_on_a_full_disk_can_be_read_and_goes_on(small_disk: Path, tmp_path: Path) -> None:
    url = f"file://{tmp_path}/log"
    with open_log(url) as log, open_log(url, mode="reader") as reader:
        feeds.create(log)
        feed = feeds.Feed(start_ms=int(time.time() * 1000))
        log.append([*feed.event("before"), feed.metrics()])
        with (
            serve(reader, CONFIG, small_disk / "view", None, page=False) as address,
            httpx.Client(base_url=address, timeout=20) as client,
        ):
            until(lambda: client.get("/users/before").status_code == 200)
            full = fill(small_disk)
            log.append(feed.event("during") + [m for n in range(20) for m in feed.event(f"other{n}")])
            until(lambda: "No space left" in client.get("/readyz").text)
            assert client.get("/healthz").status_code == 200
            assert client.get("/users/before").status_code == 200
            log.append(feed.event("later"))
            full.unlink()
            until(lambda: client.get("/users/later").status_code == 200)
            assert client.get("/users/during").status_code == 200
            until(lambda: "No space left" not in client.get("/readyz").text)
            counted = client.get("/metrics").text
            assert f'monitor_records_total{{topic="{topics.EVENTS}"}} 23.0' in counted  # each once


def test_events_wait_for_room_in_the_log(small_disk: Path, tmp_path: Path) -> None:
    url = f"file://{small_disk}/log"
    with (
        open_log(url) as log,
        open_log(url, mode="reader") as reader,
        open_log(url, mode="producer") as producer,
    ):
        feeds.create(log)
        full = fill(small_disk)
        with (
            serve(reader, CONFIG, tmp_path / "view", producer, page=False) as address,
            httpx.Client(base_url=address, timeout=20) as client,
        ):
            now_ms = int(time.time() * 1000)
            events = [{"user": f"u{n}", "item": "i" * 60, "ts": now_ms} for n in range(200)]
            answer = client.post("/events", json=events, headers=KEY)
            assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
            assert answer.headers["content-type"] == "application/problem+json"
            full.unlink()
            until(lambda: client.post("/events", json=events, headers=KEY).status_code == 200)
        until(lambda: sum(log.end_offsets(topics.EVENTS)) == 200)
        assert not any(path.name.startswith(".") for path in (small_disk / "log" / "spool").iterdir())
