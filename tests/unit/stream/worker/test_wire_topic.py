"""A worker on a topic of Avro records, and a schema registry that comes and goes."""

from __future__ import annotations

import io
import json
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import avro.io
import avro.schema
import msgspec
import pytest

from intentstream.config import Config
from stream.log import open_log
from stream.log.base import EventLog, Message
from stream.mapping.config import EventsConfig
from stream.schema import topics
from stream.worker import event_input
from stream.worker.worker import Worker
from tests.unit.stream.mapping.registry_server import RegistryServer, running_registry
from tests.unit.stream.streams import START_MS, small_config

TOPIC = "clicks"
SCHEMA = json.dumps(
    {
        "type": "record",
        "name": "Click",
        "fields": [
            {"name": "who", "type": "string"},
            {"name": "what", "type": "string"},
            {"name": "at", "type": "long"},
        ],
    }
)


@pytest.fixture
def server() -> Iterator[RegistryServer]:
    with running_registry() as running:
        yield running


def click(schema_id: int, number: int) -> Message:
    written = io.BytesIO(struct.pack(">bI", 0, schema_id))
    written.seek(5)
    record: dict[str, Any] = {"who": f"u{number % 9}", "what": f"i{number % 40}", "at": START_MS + number}
    avro.io.DatumWriter(avro.schema.parse(SCHEMA)).write(record, avro.io.BinaryEncoder(written))
    return Message(TOPIC, record["who"].encode(), written.getvalue(), START_MS)


def opened(server: RegistryServer, tmp_path: Path, count: int) -> tuple[Config, EventLog]:
    events = EventsConfig(topic=TOPIC, format="avro", registry_url=server.url, user="who", item="what", ts="at")
    config = msgspec.structs.replace(small_config(url=f"file://{tmp_path / 'log'}"), events=events)
    log = open_log(config.log.url)
    log.create_topics(topics.topic_specs(config.log.partitions, TOPIC))
    number = server.register("clicks-value", {"schema": SCHEMA})
    log.append([click(number, one) for one in range(count)])
    return config, log


def drain(worker: Worker, log: EventLog, steps: int = 10**6) -> None:
    ends = log.end_offsets(TOPIC)
    while steps and any(worker.engine.positions[p] < end for p, end in enumerate(ends)):
        worker.turn()
        steps -= 1


def test_a_worker_waits_for_the_registry_with_one_line_and_goes_on(
    server: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(event_input, "RETRY_S", 0.0)
    config, log = opened(server, tmp_path, 200)
    server.trouble = 503
    with log:
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        before = dict(worker.engine.positions)
        with caplog.at_level(logging.INFO):
            assert [worker.turn() for _ in range(5)] == [False] * 5
            assert worker.engine.positions == before and worker.engine.step_number == 0
            server.trouble = None
            drain(worker, log)
        assert worker.engine.counters["events"] == 200 and worker.engine.counters["dead_letters"] == 0
        lines = [one.getMessage() for one in caplog.records if "schemas of the events" in one.getMessage()]
        assert len(lines) == 2 and "503" in lines[0] and "goes on after" in lines[1]
        worker.close()


def test_recovery_waits_too_and_makes_the_same_bits(
    server: RegistryServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, log = opened(server, tmp_path, 300)
    with log:
        worker = Worker(config, log, tmp_path / "state")
        worker.recover()
        drain(worker, log)
        digest = worker.engine.digest()
        worker.close()  # without a checkpoint of the last steps
        worker = Worker(config, log, tmp_path / "state")  # a new process: it knows no schema
        server.trouble, waited = 503, list[Any]()

        def sleep(seconds: float) -> None:
            waited.append(seconds)
            server.trouble = None if len(waited) == 3 else 503

        monkeypatch.setattr("stream.worker.recovery.time.sleep", sleep)
        worker.recover()
        assert len(waited) == 3 and worker.engine.digest() == digest
        worker.close()
