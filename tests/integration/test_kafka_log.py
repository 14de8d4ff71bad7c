"""The log's contract on a real broker."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from kafka.net.compat import KafkaNetClient

import stream.log.kafka.connection
import stream.log.kafka.reader
from stream.log import open_log
from stream.log.base import Message, RecordBatch, TopicPartition, TopicSpec
from stream.log.kafka.log import KafkaLog
from stream.log.partitioner import partition_of
from tests.contracts.log_checks import LOG_CHECKS, LogCase, messages_of, starts, values

pytestmark = [
    pytest.mark.integration,
    # kafka-python leaves the sockets of connections that failed to the garbage collector, those of other modules too
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]


@pytest.mark.parametrize("check", LOG_CHECKS, ids=lambda c: c.__name__)
def test_kafka(check: Callable[[LogCase], None], kafka_url: str, each_client_path: str) -> None:
    check(LogCase(lambda mode: open_log(kafka_url, mode=mode), uuid.uuid4().hex[:12]))


@pytest.mark.parametrize(
    ("each_client_path", "most"), [("fast", 700), ("fast", 20_000), ("public", 700)], indirect=["each_client_path"]
)
def test_a_long_backlog_is_read_to_its_end(most: int, kafka_url: str, each_client_path: str) -> None:
    """Partitions of unlike length: each is paused and resumed while the others are read."""
    topic, lengths = f"long-{uuid.uuid4().hex[:12]}", [30_000, 9_000, 1_000]
    with open_log(kafka_url) as log:
        log.create_topics([TopicSpec(topic, len(lengths))])
        for partition, length in enumerate(lengths):
            log.append([Message(topic, b"%d" % i, b"x" * 60, 0, partition=partition) for i in range(length)])
        positions = {TopicPartition(topic, partition): 0 for partition in range(len(lengths))}
        found: list[list[bytes | None]] = [[] for _ in lengths]
        silent = 0
        while silent < 20:
            batches = log.poll(positions, most, 200)
            silent = 0 if any(len(batch) for batch in batches) else silent + 1
            for batch in batches:
                found[batch.partition] += batch.keys
                positions[TopicPartition(topic, batch.partition)] = batch.next_offset
            if [len(keys) for keys in found] == lengths:
                break
        assert [keys == [b"%d" % i for i in range(n)] for keys, n in zip(found, lengths, strict=True)] == [True] * 3


def test_a_producer_puts_keys_into_partitions_that_were_added_under_it(
    kafka_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream.log.kafka.connection, "_METADATA_MS", 200)
    case = LogCase(lambda mode: KafkaLog(kafka_url, mode), uuid.uuid4().hex[:12])
    spec = case.spec(partitions=1)
    with case.open("producer") as log, case.open("owner") as other:
        log.create_topics([spec])
        assert log.append(messages_of(spec.name, 20))
        assert log.append(messages_of(spec.name, 1), idempotency_key=case.name("k").encode())
        other.add_partitions(spec.name, 4)
        deadline = time.monotonic() + 30
        while min(other.end_offsets(spec.name)) == 0 and time.monotonic() < deadline:
            time.sleep(0.1)
            log.append(messages_of(spec.name, 100, users=97))
        assert min(other.end_offsets(spec.name)) > 0
        before = other.end_offsets(spec.name)
        key = next(b"%d" % i for i in range(100) if partition_of(b"%d" % i, 4) == 3)
        log.append([Message(spec.name, key, b"v", 0)], idempotency_key=case.name("l").encode())
        assert other.end_offsets(spec.name)[3] > before[3]


def test_what_came_behind_an_answered_fetch_is_taken_with_it(kafka_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A fetch is answered with the first record: those that come while a worker is busy are not in it."""
    monkeypatch.setattr(stream.log.kafka.reader, "_AGAIN_MS", 30_000)  # however slow the machine is
    case = LogCase(lambda mode: KafkaLog(kafka_url, mode), uuid.uuid4().hex[:12])
    spec = case.spec()
    with case.open("owner") as log, case.open("producer") as producer:
        assert isinstance(log, KafkaLog)
        log.create_topics([spec])
        assert log.poll(starts(spec), 10, 0) == []
        fetcher = log._reader._polls._consumer._fetcher  # type: ignore[union-attr]
        while not fetcher.in_flight_fetches():
            assert log.poll(starts(spec), 10, 0) == []
        producer.append(messages_of(spec.name, 1))
        while fetcher.in_flight_fetches() and not fetcher._completed_fetches:
            time.sleep(0.001)
        producer.append(messages_of(spec.name, 1, start=1))
        found: list[RecordBatch] = []
        while not found:  # the fetch may have ended before the first came
            found = log.poll(starts(spec), 10, 0)
        assert values(found) == [b"value-0", b"value-1"]


def test_what_need_not_wait_for_an_answer_is_sent_at_once(kafka_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A commit is three rounds of requests instead of five; one that was prepared sends the first two meanwhile."""
    case = LogCase(lambda mode: KafkaLog(kafka_url, mode), uuid.uuid4().hex[:12])
    spec = case.spec()
    sent: list[tuple[str, int]] = []  # with the number of transactional and produce requests on the way before it
    flying: list[str] = []
    send = KafkaNetClient.send

    def spy(client: KafkaNetClient, node_id: int, request: Any, **options: Any) -> Any:
        name = type(request).__name__.removesuffix("Request")
        future = send(client, node_id, request, **options)
        if name in ("AddOffsetsToTxn", "AddPartitionsToTxn", "TxnOffsetCommit", "Produce", "EndTxn"):
            sent.append((name, len(flying)))
            flying.append(name)
            future.add_both(lambda _: flying.remove(name))
        return future

    with case.open("owner") as log:
        log.create_topics([spec])
        log.claim(case.name("w"))
        log.commit(messages_of(spec.name, 1), {TopicPartition(spec.name, 0): 1})  # coordinators are looked up
        monkeypatch.setattr(KafkaNetClient, "send", spy)
        for step in range(
            2, 30
        ):  # a request that is repeated goes by itself: the brokers are still at the commit before
            time.sleep(0.1)
            sent.clear()
            log.commit(messages_of(spec.name, 1), {TopicPartition(spec.name, 0): step})
            rounds = ["AddOffsetsToTxn", "AddPartitionsToTxn", "Produce", "TxnOffsetCommit", "EndTxn"]
            if sent == list(zip(rounds, [0, 1, 0, 1, 0], strict=True)):
                break
        else:
            raise AssertionError(sent)
        tp = TopicPartition(spec.name, 0)
        for step in range(30, 60):
            time.sleep(0.1)
            log.prepare({tp: step}, [tp])
            time.sleep(0.1)
            prepared = {name for name, _ in sent}
            sent.clear()
            log.commit(messages_of(spec.name, 1), {tp: step})
            if [name for name, _ in sent] == ["Produce", "EndTxn"]:
                break
            sent.clear()
        else:
            raise AssertionError(sent)
        assert {"AddOffsetsToTxn", "AddPartitionsToTxn", "TxnOffsetCommit"} <= prepared
