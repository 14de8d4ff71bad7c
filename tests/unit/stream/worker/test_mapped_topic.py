"""A worker on a topic of another name and shape: several events a record, crashes, dead letters sent again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from intentstream.config import Config
from stream.log import open_log
from stream.log.base import EventLog, Message, OffsetRange
from stream.mapping.config import EventsConfig
from stream.schema import topics
from stream.worker.dead_letters import replay_dead_letters
from stream.worker.status import worker_health
from stream.worker.verify import verify
from stream.worker.worker import Worker
from tests.unit.stream.streams import START_MS, small_config

TOPIC = "orders"
EVENTS = EventsConfig(
    topic=TOPIC,
    user="buyer.id",
    item="sku",
    ts="at",
    items="lines",
    action="=purchase",
    key="ignore",
    where={"ok": "true"},
)


def order(number: int, **changes: Any) -> dict[str, Any]:
    lines = [{"sku": f"i{(7 * number + k) % 40}"} for k in range(1 + number % 3)]
    return {"ok": True, "buyer": {"id": f"u{number % 11}"}, "at": START_MS // 1000 + number, "lines": lines} | changes


def opened(tmp_path: Path, records: list[dict[str, Any]]) -> tuple[Config, EventLog]:
    config = msgspec.structs.replace(small_config(url=f"file://{tmp_path / 'log'}"), events=EVENTS)
    log = open_log(config.log.url)
    log.create_topics(topics.topic_specs(config.log.partitions, TOPIC))
    log.append([Message(TOPIC, b"order-%d" % n, json.dumps(one).encode(), START_MS) for n, one in enumerate(records)])
    return config, log


def drain(worker: Worker, log: EventLog, steps: int = 10**6) -> None:
    ends = log.end_offsets(TOPIC)
    while steps and any(worker.engine.positions[p] < end for p, end in enumerate(ends)):
        worker.turn()
        steps -= 1


def test_a_worker_that_vanished_takes_all_events_of_a_record_once(tmp_path: Path) -> None:
    records = [order(n) for n in range(120)] + [order(n, ok=False) for n in range(5)]
    wanted = sum(len(one["lines"]) for one in records if one["ok"])
    config, log = opened(tmp_path, records)
    with log:
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        drain(worker, log, steps=2)
        worker.close()  # no checkpoint: the next one makes the steps again from the journal
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        drain(worker, log)
        assert worker.engine.counters["events"] == wanted and worker.engine.counters["duplicates"] == 0
        assert worker.engine.counters["skipped"] == 5 and worker.engine.counters["users"] == 11
        worker.checkpoint()
        worker.close()
        assert verify(config, log, tmp_path / "state", tmp_path / "scratch").difference == ""
        health = worker_health(config, log, tmp_path / "state", now_ms=START_MS, max_lag=0)
        assert sum(health.lag.values()) == 0


def test_a_dead_letter_goes_back_to_its_topic(tmp_path: Path) -> None:
    bad = order(1, lines=[{"sku": "x"}, {"sku": None}])
    config, log = opened(tmp_path, [order(0), bad, order(2)])
    with log:
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        drain(worker, log)
        assert worker.engine.counters["dead_letters"] == 1
        taken = worker.engine.counters["events"]
        end = log.end_offsets(topics.DEAD_LETTERS)[0]
        letter = log.read(OffsetRange(topics.DEAD_LETTERS, 0, 0, end))
        assert dict(letter.headers[0])["topic"] == TOPIC.encode() and json.loads(letter.values[0] or b"") == bad
        assert replay_dead_letters(log, now_ms=START_MS, topic=TOPIC).sent == 1
        log.claim(config.engine.worker)
        drain(worker, log)
        assert worker.engine.counters["events"] == taken  # the good item is there already
        assert worker.engine.counters["duplicates"] == 1 and worker.engine.counters["dead_letters"] == 2
        worker.close()
