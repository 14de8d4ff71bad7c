"""Calls of the Kafka client that hang: given up after a time, and not without end."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any

import kafka
import kafka.errors as errors
import pytest
from kafka.structs import OffsetAndMetadata

from stream.log.base import LogError, LogUnavailable, TopicPartition
from stream.log.kafka import calls
from stream.log.kafka.calls import bounded
from stream.log.kafka.coordinators import group_positions
from stream.log.kafka.log import KafkaLog


@pytest.fixture
def answer() -> Iterator[threading.Event]:
    """What the calls wait for; set at the end, so that no thread outlives its test."""
    event, before = threading.Event(), set(threading.enumerate())
    yield event
    event.set()
    for thread in set(threading.enumerate()) - before:
        thread.join()


def test_the_error_of_a_call_is_given() -> None:
    failure = ValueError("no")

    def call() -> None:
        raise failure

    assert bounded(call, 60_000, "call") is failure
    assert bounded(lambda: None, 60_000, "call") is None


def test_calls_that_do_not_come_back_end_the_process_before_there_are_too_many(
    answer: threading.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Call(threading.Thread):
        """One of this test: tests on a real broker may have left some asleep."""

    monkeypatch.setattr(calls, "_Call", Call)
    monkeypatch.setattr(calls, "MOST_ASLEEP", 2)

    def hang() -> None:
        answer.wait()

    for _ in range(2):
        assert isinstance(bounded(hang, 1, "call"), TimeoutError)
    before = threading.active_count()
    failure = bounded(hang, 1, "call")
    assert isinstance(failure, LogError)
    assert not failure.retriable
    assert "2 calls of the Kafka client have not come back" in str(failure)
    assert threading.active_count() == before


def test_the_positions_of_a_worker_that_hangs_in_a_step_are_told_without_waiting(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its transaction is open with the next ones; the brokers keep these back from who asks for decided ones only."""
    tp, waited = kafka.TopicPartition("events", 0), []

    class Admin:
        def list_group_offsets(self, groups: dict[str, None]) -> dict[str, Any]:
            return {group: {tp: OffsetAndMetadata(7, "", -1)} for group in groups}

    class Consumer:
        def committed(self, tp: Any, timeout_ms: int) -> int:
            waited.append(timeout_ms)
            raise errors.KafkaTimeoutError("UnstableOffsetCommit")

        def close(self, **options: Any) -> None: ...

    log: Any = KafkaLog("kafka://nowhere:9092")
    monkeypatch.setattr(log._connection, "consumer", lambda **_: Consumer())
    monkeypatch.setattr(log._connection, "admin", lambda _: contextlib.nullcontext(Admin()))
    assert log.committed("w") == {TopicPartition("events", 0): 7}
    assert waited == [2_000]
    with pytest.raises(LogUnavailable):  # who claims has to know
        group_positions(log._connection, "w", wait_until_decided=True)
