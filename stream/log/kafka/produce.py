"""Messages handed to kafka-python's producer a batch at a time.

Its `send` takes each record through some fifty calls and four locks. Here the records of a partition are encoded in one
loop, and what stands in the producer's accumulator afterwards is what as many calls of `send` would have left there,
with one future for each batch. The rest of the way (transactions, retries, sequence numbers) is the producer's own.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import kafka
import kafka.errors as errors
from kafka.producer.future import FutureRecordMetadata
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder
from kafka.structs import OffsetAndMetadata

from stream.log.base import Headers, Message, TopicPartition
from stream.log.kafka.client import PAUSE_S


class Group(NamedTuple):
    """Messages to one partition, in order."""

    topic: str
    partition: int
    messages: Sequence[Message]


class Encoded(NamedTuple):
    """The records of a batch, as they stand after its header."""

    data: bytes
    number: int
    first_ms: int
    last_ms: int  # the latest


def _varint(value: int) -> bytes:
    """Zigzag, seven bits a byte."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


_SHORT: Final = [_varint(value) for value in range(8192)]  # those of one and two bytes
_NONE: Final = _varint(-1)


def _number(value: int) -> bytes:
    return _SHORT[value] if 0 <= value < 8192 else _varint(value)


def _data(value: bytes | None) -> bytes:
    return _NONE if value is None else _number(len(value)) + value


def _headers(headers: Headers) -> bytes:
    return _number(len(headers)) + b"".join(_data(name.encode()) + _data(value) for name, value in headers)


def encoded(messages: Sequence[Message], most_bytes: int) -> Iterator[Encoded]:
    """The messages as batches of at most so many bytes; a larger message is a batch of its own."""
    parts: list[bytes] = []
    size = count = first = last = 0
    for message in messages:
        ts = message.timestamp_ms
        key, value, headers = _data(message.key), _data(message.value), message.headers
        while True:
            delta = _number(ts - first) if count else b"\0"
            body = b"".join((b"\0", delta, _number(count), key, value, _headers(headers) if headers else b"\0"))
            head = _number(len(body))
            if not count or size + len(head) + len(body) <= most_bytes:
                break
            yield Encoded(b"".join(parts), count, first, last)
            parts, size, count = [], 0, 0
        if not count:
            first = last = ts
        last = max(last, ts)
        parts += (head, body)
        size += len(head) + len(body)
        count += 1
    if count:
        yield Encoded(b"".join(parts), count, first, last)


def unsplit(producer: Any) -> Any:
    """The producer, which from now on fails a batch that is larger than its topic takes, instead of making two of it.

    Of those the future would not hear, and a flush would wait for the batch that they replace.
    """
    producer._sender._can_split = lambda *_: False  # noqa: SLF001
    return producer


def send(producer: Any, groups: Sequence[Group], most_bytes: int, most_request_bytes: int) -> list[Any]:
    """Put the messages into the producer's accumulator; `flush` sends them. Returns a future for each batch.

    Raises
    ------
    MessageSizeTooLargeError
        A message is larger than a request may be; some may have been put in.
    """
    accumulator, manager = producer._accumulator, producer._transaction_manager  # noqa: SLF001
    known: set[str] = set()
    futures = []
    for topic, partition, messages in groups:
        if topic not in known:
            producer.partitions_for(topic)  # waits for what the producer has to know before it can send
            known.add(topic)
        tp = kafka.TopicPartition(topic, partition)
        if manager is not None and manager.is_transactional():
            manager.maybe_add_partition_to_transaction(tp)
        for records in encoded(messages, most_bytes):
            if len(records.data) > most_request_bytes:
                raise errors.MessageSizeTooLargeError(f"{len(records.data)} bytes to {tp.topic}[{tp.partition}]")
            batch = ProducerBatch(tp, _builder(records))
            batch.max_record_size = len(records.data)
            future = FutureRecordMetadata(batch.produce_future, 0, records.first_ms, None, -1, -1, -1)
            with accumulator._tp_lock(tp):  # noqa: SLF001
                accumulator._batches[tp].append(batch)  # noqa: SLF001
                accumulator._incomplete.add(batch)  # noqa: SLF001
            futures.append(future)
    return futures


def _builder(records: Encoded) -> Any:
    """The client's builder, as if the records had been appended to it one by one."""
    whole = MemoryRecordsBuilder(2, 0, len(records.data))
    inner = whole._builder  # noqa: SLF001
    inner._buffer += records.data  # noqa: SLF001
    inner._num_records, inner._last_offset = records.number, records.number - 1  # noqa: SLF001
    inner._first_timestamp, inner._max_timestamp = records.first_ms, records.last_ms  # noqa: SLF001
    whole._next_offset = records.number  # noqa: SLF001
    return whole


def check(futures: Sequence[Any]) -> None:
    """Raise what one of the batches failed with: the client commits a transaction without the records it gave up."""
    for future in futures:
        if future.failed():
            raise future.exception
        if not future.succeeded():
            raise errors.KafkaTimeoutError("a batch has no answer after a flush")


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """A transaction that has begun, with the consumer group's offsets on their way into it."""

    positions: Mapping[TopicPartition, int]
    written: Any  # done when the offsets are written; None when there are none
    at: float  # monotonic


def begin(
    producer: Any, positions: Mapping[TopicPartition, int], consumer_group: str, partitions: Sequence[TopicPartition]
) -> OpenTransaction:
    """Begin a transaction with these offsets, and say that these partitions will be written to; waits for nothing."""
    manager, at, written = producer._transaction_manager, time.monotonic(), None  # noqa: SLF001
    producer.begin_transaction()
    if positions:
        offsets = {_theirs(tp): OffsetAndMetadata(offset, "", -1) for tp, offset in positions.items()}
        written = manager.send_offsets_to_transaction(offsets, consumer_group)
    for tp in partitions:
        manager.maybe_add_partition_to_transaction(_theirs(tp))
    producer._sender.wakeup()  # noqa: SLF001
    return OpenTransaction(dict(positions), written, at)


def fill(
    producer: Any, begun: OpenTransaction, groups: Sequence[Group], most_bytes: int, most_request_bytes: int
) -> None:
    """Send the messages as part of the transaction; returns when all that belongs to it is written."""
    futures = send(producer, groups, most_bytes, most_request_bytes)
    producer.flush()
    if begun.written is not None:
        begun.written.wait()
    check(futures)


def _theirs(tp: TopicPartition) -> Any:
    return kafka.TopicPartition(tp.topic, tp.partition)


def mark(producer: Any, partitions: Sequence[Any], timeout_ms: int, *, committed: bool) -> None:
    """End a transaction without records in these partitions."""
    deadline = time.monotonic() + timeout_ms / 1000
    manager = producer._transaction_manager  # noqa: SLF001
    producer.begin_transaction()
    for tp in partitions:
        manager.maybe_add_partition_to_transaction(tp)  # what `send` does before a record
    if committed:
        producer.commit_transaction()
        return
    while not all(map(manager.is_partition_added, partitions)) and time.monotonic() < deadline:
        producer.flush()  # an abort would not wait until the coordinator knows the partitions
        time.sleep(PAUSE_S)
    producer.abort_transaction()
