"""Calls of the Kafka client that hang: given up after a time, and not without end."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from stream.log import kafkaclient
from stream.log.base import LogError
from stream.log.kafkaclient import bounded


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

    monkeypatch.setattr(kafkaclient, "_Call", Call)
    monkeypatch.setattr(kafkaclient, "MOST_ASLEEP", 2)

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
