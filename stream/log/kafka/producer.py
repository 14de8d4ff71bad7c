"""Writing through kafka-python's producer by its public methods; the fast path overrides what it does better."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import kafka
import kafka.errors as errors
from kafka.structs import OffsetAndMetadata

from stream.log.base import Message, TopicPartition


class PartitionMessages(NamedTuple):
    """Messages to one partition, in order."""

    topic: str
    partition: int
    messages: Sequence[Message]


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """A transaction that has begun.

    positions: what the consumer group's offsets will be; began_at: monotonic seconds; offsets_written: the client's
    future of the offsets when they are on their way already.
    """

    positions: Mapping[TopicPartition, int]
    consumer_group: str
    began_at: float
    offsets_written: Any = None


class LogProducer:
    """One `KafkaProducer`. Methods raise the client's errors; those that wait may hang with the brokers."""

    marks: ClassVar[bool] = False  # whether `mark` is available

    def __init__(self, client: Any) -> None:
        self._client = client

    def partition_count(self, topic: str) -> int:
        """Number of partitions, as of the client's newest metadata."""
        return len(self._client.partitions_for(topic))

    def init_transactions(self) -> None:
        """Fence earlier producers with the same transactional id and wait until their transactions are decided."""
        self._client.init_transactions()

    def identity(self) -> tuple[int, int] | None:
        """Producer id and epoch, by which the coordinator knows this producer; None: unknown."""
        return None

    def write(self, parts: Sequence[PartitionMessages]) -> None:
        """Write outside of any transaction; returns when the brokers have the messages."""
        self._write(parts, None)

    def prepare(
        self, positions: Mapping[TopicPartition, int], consumer_group: str, partitions: Sequence[TopicPartition]
    ) -> OpenTransaction | None:
        """Begin a transaction ahead of its messages, without waiting; None: this client can only wait."""
        del positions, consumer_group, partitions
        return None

    def begin(self, positions: Mapping[TopicPartition, int], consumer_group: str) -> OpenTransaction:
        """Begin a transaction that moves the consumer group to these positions."""
        began_at = time.monotonic()
        self._client.begin_transaction()
        return OpenTransaction(dict(positions), consumer_group, began_at)

    def fill(self, transaction: OpenTransaction, parts: Sequence[PartitionMessages]) -> int:
        """Write the messages; returns the offset of the first when the brokers have them and the transaction's offsets.

        Without messages, -1.
        """
        if transaction.positions:
            offsets = client_offsets(transaction.positions)
            self._client.send_offsets_to_transaction(offsets, transaction.consumer_group)
        return self._write(parts, None)

    def commit(self) -> None:
        """End the transaction: everything in it becomes visible."""
        self._client.commit_transaction()

    def abort(self) -> None:
        """End the transaction: nothing of it becomes visible."""
        self._client.abort_transaction()

    def mark(self, partitions: Sequence[Any], timeout_ms: int, *, committed: bool) -> None:
        """End a transaction without records in these partitions; only where `marks` says so."""
        raise NotImplementedError("the client's public methods add no partition without a record")

    def close(self, timeout_s: float) -> None:
        """Close; records that no broker took are given up after the time."""
        self._client.close(timeout=timeout_s)

    def _write(self, parts: Sequence[PartitionMessages], also: Any) -> int:
        """Send the messages and wait for their answers, and for `also`, a future of the client; the first offset."""
        futures = self._send(parts)
        self._client.flush()
        if also is not None:
            also.wait()
        check(futures)
        return int(futures[0].get(timeout=0).offset) if futures else -1

    def _send(self, parts: Sequence[PartitionMessages]) -> list[Any]:
        return [
            self._client.send(topic, m.value, m.key, list(m.headers), partition=partition, timestamp_ms=m.timestamp_ms)
            for topic, partition, messages in parts
            for m in messages
        ]


def client_offsets(positions: Mapping[TopicPartition, int]) -> dict[Any, Any]:
    """Positions as the client's offsets."""
    return {
        kafka.TopicPartition(tp.topic, tp.partition): OffsetAndMetadata(offset, "", -1)
        for tp, offset in positions.items()
    }


def check(futures: Sequence[Any]) -> None:
    """Raise what a batch or record failed with: the client commits a transaction without the records it gave up."""
    for future in futures:
        if future.failed():
            raise future.exception
        if not future.succeeded():
            raise errors.KafkaTimeoutError("a batch has no answer after a flush")
