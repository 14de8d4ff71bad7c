"""One history per user on Kafka, exactly once, for records that librdkafka placed, some of them without a key or with
another, and with partitions added in the middle: a worker is killed with -9 before, at and after the step that takes
them over.
"""

from __future__ import annotations

import json
import random
import signal
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks.crash import settings, spawn
from intentstream.cli.app import app
from learner.runtime import set_threads
from stream.engine.engine import Engine
from stream.log import EventLog, open_log
from stream.log.base import Message, OffsetRange
from stream.log.partitioner import partition_of
from stream.schema import topics
from stream.worker.verify import verify
from tests.unit.intentstream.commands import invoke
from tests.unit.stream.streams import START_MS

confluent_kafka = pytest.importorskip("confluent_kafka")
pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

CONFIG = """
[log]
partitions = 2
[events]
key = "ignore"
[state]
history_ttl_ms = 0
[engine]
max_step_records = 100
checkpoint_every_steps = 5
metrics_every_s = 0.2
[learner]
max_len = 20
capacity = 2000
batch = 64
replay = 64
[learner.encoder]
hidden = 16
layers = 1
[learner.intents]
count = 8
queue = 64
"""
KILLS = (("before-commit", 3), ("after-commit", 4), ("in-checkpoint", 1))
# by then there are five partitions: the first commit is that of the step that takes the new ones over
LATER = (("before-commit", 1), ("after-commit", 1), ("in-learn", 1), ("", 0))
Event = tuple[str, str, int]


def made(count: int, seed: int) -> list[Event]:
    """Events of 40 users, 1 second apart, 1 in 30 of them twice."""
    rng = random.Random(seed)
    found: list[Event] = []
    for number in range(count):
        twice = found and rng.random() < 1 / 30
        ts = START_MS + (seed * count + number) * 1000
        found.append(found[-1] if twice else (f"u{rng.randrange(40)}", f"i{rng.randrange(60)}", ts))
    return found


def keyed(events: Sequence[Event]) -> list[tuple[bytes | None, bytes]]:
    """Key and value of each record: the key is the user, a session, or none."""
    return [
        (
            (user.encode(), user.encode(), b"session-%d" % number, None)[number % 4],
            json.dumps({"user": user, "item": item, "ts": ts}).encode(),
        )
        for number, (user, item, ts) in enumerate(events)
    ]


def append(url: str, events: Sequence[Event]) -> None:
    """Place them on the embedded log as librdkafka does on Kafka."""
    rng = random.Random(len(events))
    with open_log(url) as log:
        count = log.partition_count(topics.EVENTS)
        places = [rng.randrange(count) if key is None else zlib.crc32(key) % count for key, _ in keyed(events)]
        rows = zip(keyed(events), places, strict=True)
        log.append([Message(topics.EVENTS, key, value, START_MS, partition=place) for (key, value), place in rows])


def produce(url: str, events: Sequence[Event]) -> None:
    """Let librdkafka place them, as it does by default: by CRC32 of the key, at random without one."""
    producer = confluent_kafka.Producer({"bootstrap.servers": url.removeprefix("kafka://"), "linger.ms": 1})
    for number, (key, value) in enumerate(keyed(events)):
        producer.produce(topics.EVENTS, key=key, value=value)
        if number % 20 == 0:
            producer.flush()  # many small batches: librdkafka keeps to one partition within one
    assert producer.flush() == 0


def kill(folder: Path, url: str, aim: str, count: int) -> None:
    """Run the worker until it kills itself at the planned moment, or until a random one."""
    with spawn(folder, url, aim, count) as process:
        assert process.stdout is not None
        if not aim:
            while process.stdout.readline().strip() != "first":
                pass
            time.sleep(random.Random(1).uniform(0.0, 0.3))
            process.kill()
        process.stdout.read()
        assert process.wait() == -signal.SIGKILL, aim


def input_users(log: EventLog) -> dict[int, set[bytes]]:
    """Users with records in each partition of the input."""
    users = {}
    for partition, end in enumerate(log.end_offsets(topics.EVENTS)):
        values = log.read(OffsetRange(topics.EVENTS, partition, 0, end)).values
        users[partition] = {json.loads(value)["user"].encode() for value in values if value is not None}
    return users


@pytest.mark.parametrize("kind", ["kafka", "embedded"])
def test_killed_on_a_misplaced_topic_that_gets_partitions_each_user_has_one_whole_history(
    tmp_path: Path, kind: str, request: pytest.FixtureRequest
) -> None:
    set_threads(1)
    url = request.getfixturevalue("make_broker")().url if kind == "kafka" else f"file://{tmp_path / 'log'}"
    fill: Callable[[str, Sequence[Event]], None] = produce if kind == "kafka" else append
    config = settings(tmp_path, url, CONFIG)
    first, second = made(1_500, seed=1), made(1_500, seed=2)
    with open_log(url) as log:
        log.create_topics(topics.topic_specs(2))
    fill(url, first)
    kills, later = (KILLS, LATER) if kind == "kafka" else (KILLS[:1], LATER[:2])
    for aim, count in kills:
        kill(tmp_path, url, aim, count)
    with open_log(url) as log:
        assert sum(log.committed(config.engine.worker).values()) < len(first)  # in the middle
        log.add_partitions(topics.EVENTS, 5)
    fill(url, second)
    for aim, count in later:
        kill(tmp_path, url, aim, count)
    with spawn(tmp_path, url) as process:
        assert process.wait() == 0

    state = tmp_path / "state"
    with open_log(url) as log, tempfile.TemporaryDirectory() as scratch:
        found = verify(config, log, state, Path(scratch))
        assert found.difference == ""  # every message exactly once, and the state of an uninterrupted run
        assert sum(log.committed(config.engine.worker).values()) == sum(log.end_offsets(topics.EVENTS)) == 3_000
        users = input_users(log)
    assert all(users[partition] for partition in range(5))
    engine = Engine.open(config, state)
    try:
        stored = [name for p in range(engine.store.partitions) for names, _ in engine.store.scan(p) for name in names]
        assert sorted(stored) == sorted({user.encode() for user, _, _ in first + second})
        for user in stored:
            own = sorted({event for event in first + second if event[0] == user.decode()}, key=lambda one: one[2])
            assert engine.recommend(user, 5).history == [item for _, item, _ in own][-20:]
        assert len({*first, *second}) <= engine.counters["events"] < 3_000  # twice, and the first long gone from it
        assert engine.counters["misplaced"] > 500
    finally:
        engine.close()
    spread = next(user for user in stored if sum(user in there for there in users.values()) == 5)
    assert partition_of(spread, 2) in range(2)
    done = invoke(app, "why", spread.decode(), "--state", state, "--config", tmp_path / "config.toml")
    code, said = done.exit_code, done.output
    newest = sorted({e for e in first + second if e[0] == spread.decode()}, key=lambda one: one[2])[-20:]
    assert (code, ", ".join(item for _, item, _ in newest) in " ".join(said.split())) == (0, True), said
    done = invoke(app, "status", "--log", url, "--state", state, "--config", tmp_path / "config.toml")
    assert "repartitioned" in done.output
