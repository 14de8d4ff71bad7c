"""Erasure from end to end: a real worker on the embedded log, a real monitor beside it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import msgspec
import numpy as np
import pytest

from intentstream.config import Config
from monitor import MonitorConfig, serve
from monitor.view.db import ViewDb
from stream.engine.engine import Engine
from stream.engine.read_only import open_checkpoint
from stream.log import EventLog, OffsetRange, open_log
from stream.log.base import Message, RecordBatch
from stream.schema import topics
from stream.schema.messages import ErasureReceipt
from stream.schema.user_keys import user_keys
from stream.worker.verify import verify
from stream.worker.worker import Worker
from tests.unit.monitor.conftest import until
from tests.unit.stream.streams import START_MS, as_messages, events, small_config

USER = b"u1"  # the one of whom `events` also makes records that are refused


def newest(log: EventLog, topic: str, key: bytes) -> bytes | None:
    """The value of the key's last record; fails when there is none."""
    found: list[bytes | None] = []
    for partition, end in enumerate(log.end_offsets(topic)):
        batch = log.read(OffsetRange(topic, partition, log.begin_offsets(topic)[partition], end))
        found += [value for one, value in zip(batch.keys, batch.values, strict=True) if one == key]
    return found[-1]


class Site:
    """A worker, and a monitor's client; `work` lets the worker take all there is."""

    def __init__(self, config: Config, log: EventLog, worker: Worker, client: httpx.Client, folder: Path) -> None:
        self.config, self.log, self.worker, self.client, self.folder = config, log, worker, client, folder

    def work(self) -> None:
        ends = self.log.end_offsets(topics.EVENTS)
        while any(self.worker.engine.positions[p] < end for p, end in enumerate(ends)):
            self.worker.turn()

    def get(self, path: str) -> Any:
        answer = self.client.get(path)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def status(self, path: str) -> int:
        return self.client.get(path).status_code


@contextmanager
def monitored(config: Config, folder: Path) -> Iterator[httpx.Client]:
    with ExitStack() as stack:
        reader = stack.enter_context(open_log(config.log.url, mode="reader"))
        producer = stack.enter_context(open_log(config.log.url, mode="producer"))
        chosen = MonitorConfig(port=0, poll_interval_s=0.01)
        url = stack.enter_context(serve(reader, chosen, folder / "view", producer, page=False))
        yield stack.enter_context(httpx.Client(base_url=url, timeout=20))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    config = small_config(url=f"file://{tmp_path / 'log'}", keep_checkpoints=2)
    with open_log(config.log.url) as log:
        log.create_topics(topics.topic_specs(config.log.partitions))
        log.append(as_messages(events(600)))
        with (
            closing(Worker(config, log, tmp_path / "state")) as worker,
            monitored(config, tmp_path) as client,
        ):
            worker.recover()
            made = Site(config, log, worker, client, tmp_path)
            made.work()
            until(lambda: made.status("/recommendations/u1") == 200)
            until(lambda: any(one["key"] == "u1" for one in made.get("/dead-letters?limit=500")["letters"]))
            yield made


def erase(site: Site) -> None:
    answer = site.client.delete("/users/u1")
    assert answer.status_code == 202
    assert site.status(answer.json()["receipt"]) == 404  # accepted, not done: the worker has not seen it
    site.work()
    until(lambda: site.status(answer.json()["receipt"]) == 200)


def in_replay(engine: Engine, user: bytes) -> int:
    replay = engine.learner._parts.replay
    key = np.uint64(int(user_keys([user])[0]))
    return sum(int((ring.users == key).sum()) for ring in (replay._recent, replay._uniform))


def in_store(engine: Engine, user: bytes) -> int:
    store = engine.store
    return sum(user in users for p in range(store.partitions) for users, _ in store.scan(p))


def test_nothing_of_the_user_is_left_where_it_can_be_removed(site: Site) -> None:
    engine = site.worker.engine
    assert in_store(engine, USER) == 1 and in_replay(engine, USER) > 0
    assert newest(site.log, topics.RECOMMENDATIONS, USER) is not None
    erase(site)
    assert in_store(engine, USER) == 0 == in_replay(engine, USER)
    assert not engine.learner._parts.network.refused
    assert newest(site.log, topics.RECOMMENDATIONS, USER) is None  # the tombstone, by which the topic forgets too
    assert site.status("/recommendations/u1") == 404
    found = site.get("/users/u1")
    assert found["history"] == found["shifts"] == [] and found.get("recommendations") is None
    assert found["erased"]["user"] == "u1"
    assert all(one["key"] != "u1" for one in site.get("/dead-letters?limit=500")["letters"])
    assert site.status("/users/u2") == 200  # nobody else is forgotten
    assert in_store(engine, b"u2") == 1 and in_replay(engine, b"u2") > 0


def test_the_view_on_disk_names_the_user_in_the_receipt_only(site: Site) -> None:
    erase(site)
    answer = site.get("/erasures/u1")
    site.client.close()
    naming = []
    with monitored(site.config, site.folder / "second") as client:  # a view made from the topics alone is as clean
        until(lambda: set(client.get("/status").json()["monitor_lag"].values()) == {0})
        assert client.get("/erasures/u1").json() == answer
        assert client.get("/recommendations/u1").status_code == 404
        assert client.get("/users/u1").json()["history"] == []
    view = ViewDb(site.folder / "second" / "view")
    for key, value in view.scan(b""):
        if b'"u1"' in value or msgspec.msgpack.encode("u1") in value:
            naming.append(key[:1])
    view.close()
    assert naming == [b"e"]


def test_the_receipt_says_what_remains_and_until_when(site: Site) -> None:
    erase(site)
    raw = newest(site.log, topics.ERASURES, USER)
    assert raw is not None
    receipt = msgspec.json.decode(raw, type=ErasureReceipt)
    assert {"history", "replay memory", "recommendations", "pending evaluation"} <= set(receipt.erased)
    kept = {spec.name: spec.retention_ms for spec in topics.topic_specs(1)}
    for topic in (topics.EVENTS, topics.INTENT_SHIFTS, topics.DEAD_LETTERS, topics.ERASURES):
        assert f" {(kept[topic] or 0) // topics.DAY_MS} days" in receipt.remains[topic]
    assert "compacts" in receipt.remains[topics.RECOMMENDATIONS]
    assert receipt.as_of.ts > 0 and receipt.step == site.worker.engine.step_number


def test_checkpoints_with_the_user_are_gone_when_newer_ones_have_taken_their_place(site: Site) -> None:
    site.worker.checkpoint()
    with open_checkpoint(site.config, site.folder / "state") as engine:
        assert in_store(engine, USER) == 1
    erase(site)
    for _ in range(site.config.engine.keep_checkpoints):
        site.log.append(as_messages(events(64, seed=1, users=1)))  # u0 only
        site.work()
        site.worker.checkpoint()
    folders = sorted((site.folder / "state" / "checkpoints").iterdir())
    assert len(folders) == site.config.engine.keep_checkpoints
    with open_checkpoint(site.config, site.folder / "state") as engine:
        assert in_store(engine, USER) == 0 == in_replay(engine, USER)


def test_a_rebuild_forgets_too_and_the_user_may_come_back(site: Site) -> None:
    erase(site)
    again = {"user": "u1", "item": "i7", "ts": START_MS + 10_000_000}
    site.log.append([Message(topics.EVENTS, USER, msgspec.json.encode(again), START_MS)])
    site.work()
    until(lambda: site.status("/recommendations/u1") == 200)
    assert [one["item"] for one in site.get("/users/u1")["history"]] == ["i7"]
    assert in_store(site.worker.engine, USER) == 1
    site.worker.checkpoint()
    found = verify(site.config, site.log, site.folder / "state", site.folder / "scratch")
    assert found.difference == "" and found.messages > 0


def test_events_on_another_partition_than_the_users_own_are_forgotten_too(tmp_path: Path) -> None:
    def batch(partition: int, *values: dict[str, Any]) -> RecordBatch:
        n, start = len(values), engine.positions[partition]
        raw: list[bytes | None] = [msgspec.json.encode(value) for value in values]
        offsets = list(range(start, start + n))
        return RecordBatch(topics.EVENTS, partition, offsets, [None] * n, raw, [START_MS] * n, [()] * n, start + n)

    engine = Engine.open(small_config(), tmp_path)
    event = {"user": "u1", "item": "i9", "ts": START_MS}
    engine.step([batch(0, event), batch(1, event)])
    assert in_store(engine, USER) == 1  # one record, whatever partitions its events came from
    engine.step([batch(0, event), batch(1, event, {"user": "u1", "action": "erase"})])
    assert in_store(engine, USER) == 0 == in_replay(engine, USER)
    engine.close()
