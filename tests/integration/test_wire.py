"""Avro records on Kafka, exactly once, while the worker is killed with -9 and the schema registry comes and goes."""

from __future__ import annotations

import json
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from benchmarks.crash import settings, spawn
from learner.runtime import set_threads
from stream.engine.engine import Engine
from stream.log import open_log
from stream.schema import topics
from stream.worker.verify import verify
from tests.integration.test_keys import CONFIG, Event, made
from tests.unit.stream.mapping.registry_server import RegistryServer, running_registry

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

TOPIC = "clicks"
SCHEMA = {
    "type": "record",
    "name": "Click",
    "fields": [
        {"name": "who", "type": "string"},
        {"name": "what", "type": "string"},
        {"name": "at", "type": "long"},
    ],
}
NEWER: dict[str, Any] = {**SCHEMA, "fields": [*SCHEMA["fields"], {"name": "shop", "type": "string", "default": ""}]}
EVENTS = """[events]
topic = "clicks"
format = "avro"
registry_url = "{url}"
user = "who"
item = "what"
ts = "at"
"""


def produce(broker: str, server: RegistryServer, schema: dict[str, Any], events: list[Event]) -> None:
    """Frame, encode and place the records as Confluent's own client does."""
    serialize = AvroSerializer(SchemaRegistryClient({"url": server.url}), json.dumps(schema))
    context = SerializationContext(TOPIC, MessageField.VALUE)
    producer = confluent_kafka.Producer({"bootstrap.servers": broker.removeprefix("kafka://"), "linger.ms": 1})
    for user, item, ts in events:
        value = serialize({"who": user, "what": item, "at": ts, "shop": "north"}, context)
        producer.produce(TOPIC, key=user.encode(), value=value)
    producer.produce(TOPIC, key=b"x", value=b"\x00\x7f\xff\xff\xff\x00")  # a schema that nobody registered
    assert producer.flush() == 0


def test_killed_with_a_registry_that_comes_and_goes_nothing_is_lost_or_twice(
    tmp_path: Path, make_broker: Callable[[], Any]
) -> None:
    set_threads(1)
    url = make_broker().url
    first, second = made(600, seed=1), made(600, seed=2)
    with running_registry() as server:
        own = CONFIG.replace('[events]\nkey = "ignore"\n', EVENTS.format(url=server.url))
        config = settings(tmp_path, url, own)
        with open_log(url) as log:
            log.create_topics(topics.topic_specs(2, TOPIC))
        produce(url, server, SCHEMA, first)
        for aim, count in (("before-commit", 2), ("after-commit", 2), ("in-learn", 1)):
            server.failing = 2  # the registry is down when the worker starts
            with spawn(tmp_path, url, aim, count) as process:
                assert process.wait() == -signal.SIGKILL, aim
        produce(url, server, NEWER, second)
        server.failing = 3
        with spawn(tmp_path, url) as process:
            assert process.wait() == 0
        state = tmp_path / "state"
        with open_log(url) as log, tempfile.TemporaryDirectory() as scratch:
            assert verify(config, log, state, Path(scratch)).difference == ""
            assert sum(log.end_offsets(TOPIC)) == len(first) + len(second) + 2
        engine = Engine.open(config, state)
        try:
            counters = engine.counters
            assert counters["events"] + counters["duplicates"] == len(first) + len(second)
            assert counters["events"] >= len({*first, *second}) and counters["dead_letters"] == 2
        finally:
            engine.close()
