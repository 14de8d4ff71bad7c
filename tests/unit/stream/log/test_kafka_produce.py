"""Batches for the producer: byte for byte what the client's own builder makes of the same records."""

from __future__ import annotations

from typing import Any

import kafka
import kafka.errors as errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.producer.future import FutureProduceResult, FutureRecordMetadata
from kafka.record.memory_records import MemoryRecordsBuilder

from stream.log.base import Message
from stream.log.kafka.fast.encoder import encoded
from stream.log.kafka.fast.producer import builder_of
from stream.log.kafka.fast.records import unpack
from stream.log.kafka.producer import check

LONG = st.integers(0, 2**16).map(lambda size: b"x" * size)
BYTES = st.none() | st.binary(max_size=100) | LONG
HEADERS = st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=100)), max_size=3).map(tuple)
MESSAGES = st.lists(
    st.builds(Message, st.just("t"), BYTES, BYTES, st.integers(0, 2**45), HEADERS), min_size=1, max_size=50
)


@given(MESSAGES)
def test_the_same_bytes_as_the_clients_own_builder(messages: list[Message]) -> None:
    (records,) = encoded(messages, 2**30)
    own, ours = MemoryRecordsBuilder(2, 0, 2**30), builder_of(records)
    for m in messages:
        own.append(m.timestamp_ms, m.key, m.value, list(m.headers))
    for builder in (own, ours):
        builder.set_producer_state(7, 1, 3, True)
        builder.close()
    assert ours.buffer() == own.buffer()
    assert ours.next_offset() == own.next_offset() == len(messages)


@given(MESSAGES, st.integers(1, 200_000))
def test_batches_are_cut_at_the_limit_and_nothing_is_left_out(messages: list[Message], most: int) -> None:
    found: list[Any] = []
    for records in encoded(messages, most):
        assert len(records.data) <= most or records.number == 1
        columns = unpack(records.data, records.number, 0, records.first_ms, True)
        assert records.last_ms == max(columns.timestamps_ms)
        found += zip(columns.keys, columns.values, columns.timestamps_ms, columns.headers, strict=True)
    assert found == [(m.key, m.value, m.timestamp_ms, m.headers) for m in messages]


def test_a_long_batch_of_small_records() -> None:
    messages = [Message("t", b"k", b"%d" % i, i) for i in range(20_000)]
    (records,) = encoded(messages, 2**30)
    columns = unpack(records.data, records.number, 5, 0, True)
    assert columns.offsets == list(range(5, 20_005))
    assert columns.values == [m.value for m in messages]


def test_a_batch_without_a_good_answer_is_an_error() -> None:
    written, refused, pending = (FutureProduceResult(kafka.TopicPartition("t", 0)) for _ in range(3))
    futures = [FutureRecordMetadata(result, 0, 0, None, -1, -1, -1) for result in (written, refused, pending)]
    written.success((0, -1, None))
    refused.success((-1, -1, lambda _: errors.KafkaTimeoutError("Expiring")))
    check(futures[:1])
    with pytest.raises(errors.KafkaTimeoutError, match="Expiring"):
        check(futures[:2])
    with pytest.raises(errors.KafkaTimeoutError, match="no answer"):
        check([futures[2]])
