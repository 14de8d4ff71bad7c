"""A request with an idempotency key is appended once, whatever happens between the append and its answer."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import pytest

from monitor.idempotency import RecentKeys
from stream.log import EventLog
from stream.schema import topics
from tests.unit.monitor.conftest import NOW_MS, MakeClient
from tests.unit.monitor.test_api import records

EVENTS = [{"user": "anna", "item": f"i{n}", "ts": NOW_MS + n} for n in range(3)]
KEY = {"Idempotency-Key": "order-17"}

# A monitor that is killed when its append has returned and before it answers.
DEADLY = """
import os, signal, sys
from pathlib import Path
from monitor import MonitorConfig, serve
from stream.log import open_log

class Deadly:
    def __init__(self, log):
        self._log = log
    def __getattr__(self, name):
        return getattr(self._log, name)
    def append_each(self, requests):
        self._log.append_each(requests)
        os.kill(os.getpid(), signal.SIGKILL)

url, view = sys.argv[1:]
reader, producer = open_log(url, mode="reader"), Deadly(open_log(url, mode="producer"))
with serve(reader, MonitorConfig(port=0), Path(view), producer, page=False) as address:
    print(address, flush=True)
    signal.pause()
"""


def test_a_request_whose_answer_was_lost_to_a_kill_is_not_appended_again(
    log: EventLog, tmp_path: Path, make_client: MakeClient
) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", DEADLY, f"file://{tmp_path}/log", str(tmp_path / "killed")],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert child.stdout is not None
        address = child.stdout.readline().strip()
        with pytest.raises(httpx.HTTPError):
            httpx.post(f"{address}/events", json=EVENTS, headers=KEY, timeout=20)
        assert child.wait(20) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait()
        if child.stdout is not None:
            child.stdout.close()
    end = time.monotonic() + 10
    while len(records(log, topics.EVENTS)) < len(EVENTS):
        assert time.monotonic() < end, "the append was not durable"
        time.sleep(0.02)
    for view in ("view", "another"):  # another monitor and another folder: the log knows the key
        answer = make_client(view).post("/events", json=EVENTS, headers=KEY)
        assert answer.status_code == 200 and answer.headers["idempotent-replayed"] == "true"
        assert answer.json() == {"appended": 3, "refused": []}
    time.sleep(0.3)
    assert sorted(json.loads(value or b"")["item"] for value in records(log, topics.EVENTS)) == ["i0", "i1", "i2"]


def test_a_key_that_may_be_forgotten_is_refused(log: EventLog, make_client: MakeClient) -> None:
    client = make_client()

    def post(made_ms: float) -> httpx.Response:
        key = uuid.UUID(int=int(made_ms) << 80 | 0x7 << 76 | 0x2 << 62)
        return client.post("/events", json=EVENTS[0], headers={"Idempotency-Key": str(key)})

    now_ms = time.time() * 1000
    answer = post(now_ms - 25 * 3_600_000)
    assert answer.status_code == 422 and "more than a day ago" in answer.json()["detail"]
    assert sum(log.end_offsets(topics.EVENTS)) == 0
    assert post(now_ms - 23 * 3_600_000).status_code == 200


def test_more_requests_than_are_remembered_in_memory_are_still_appended_once(
    log: EventLog, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("monitor.service.RecentKeys", lambda now_ms: RecentKeys(2, now_ms))
    client = make_client()
    for turn in range(2):
        for n in range(5):
            answer = client.post("/events", json=EVENTS[0], headers={"Idempotency-Key": f"k{n}"})
            assert answer.headers.get("idempotent-replayed") == ("true" if turn else None)
    time.sleep(0.3)
    assert len(records(log, topics.EVENTS)) == 5


def test_a_key_under_way_is_a_conflict_and_a_failed_one_is_free() -> None:
    keys = RecentKeys(2)
    assert keys.begin("a", b"1") == ""
    assert keys.begin("a", b"1") == "under way"
    assert keys.begin("a", b"2") == "other body"
    keys.finish("a", appended=False)
    assert keys.begin("a", b"2") == ""
    keys.finish("a", appended=True)
    assert [keys.begin(key, b"") for key in "bc"] == ["", ""]
    assert len(keys._digests) == 2


def test_an_answer_says_since_when_bodies_are_compared(log: EventLog, make_client: MakeClient) -> None:
    before = make_client("before")
    first = before.post("/events", json=EVENTS[0], headers=KEY)
    since = int(first.headers["idempotency-compared-since"])
    assert before.post("/events", json=EVENTS[1], headers=KEY).status_code == 422
    after = make_client("after")  # another monitor, or the same one after a restart, knows no bodies from before
    other = after.post("/events", json=EVENTS[1], headers=KEY)
    assert other.status_code == 200 and int(other.headers["idempotency-compared-since"]) >= since
    assert "idempotency-compared-since" not in after.post("/events", json=EVENTS[2]).headers
    keys = RecentKeys(2, now_ms=1)
    for now_ms, key in enumerate("abc", 10):
        assert keys.begin(key, b"", now_ms) == ""
        keys.finish(key, appended=True)
    assert keys.since_ms == 11  # "a", of 10, is forgotten
