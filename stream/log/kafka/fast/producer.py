"""Messages handed to kafka-python's producer a batch at a time.

Its `send` takes each record through some fifty calls and four locks. Here the records of a partition are encoded in one
loop, and the producer's accumulator afterwards holds what as many calls of `send` would have left there, with one
future for each batch. The rest of the way (transactions, retries, sequence numbers) is the producer's own.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import kafka
import kafka.errors as errors
from kafka.producer.future import FutureRecordMetadata
from kafka.producer.producer_batch import ProducerBatch
from kafka.record.memory_records import MemoryRecordsBuilder

from stream.log.base import TopicPartition
from stream.log.kafka.calls import PAUSE_S
from stream.log.kafka.fast.encoder import Encoded, encoded
from stream.log.kafka.fast.pipelining import pipeline
from stream.log.kafka.producer import LogProducer, OpenTransaction, PartitionMessages, client_offsets


class FastProducer(LogProducer):
    """A `LogProducer` that hands over whole batches and sends what need not wait for an answer at once."""

    marks: ClassVar[bool] = True

    def __init__(self, client: Any) -> None:
        super().__init__(client)
        self._batch_bytes: int = client.config["batch_size"]
        self._request_bytes: int = client.config["max_request_size"]
        # A batch that is larger than its topic takes fails instead of being split in two: the future would not learn
        # of those, and a flush would wait for the batch that they replace.
        client._sender._can_split = lambda *_: False  # noqa: SLF001
        if self._is_transactional():
            pipeline(client)

    @property
    def _manager(self) -> Any:
        return self._client._transaction_manager  # noqa: SLF001

    def _is_transactional(self) -> bool:
        return self._manager is not None and bool(self._manager.is_transactional())

    def identity(self) -> tuple[int, int] | None:
        """Producer id and epoch, by which the coordinator knows this producer."""
        found = self._manager.producer_id_and_epoch
        return found.producer_id, found.epoch

    def prepare(
        self, positions: Mapping[TopicPartition, int], consumer_group: str, partitions: Sequence[TopicPartition]
    ) -> OpenTransaction | None:
        """Begin a transaction and send ahead what belongs to it: the offsets, and partitions that it will write to."""
        manager, began_at, written = self._manager, time.monotonic(), None
        self._client.begin_transaction()
        if positions:
            written = manager.send_offsets_to_transaction(client_offsets(positions), consumer_group)
        for tp in partitions:
            manager.maybe_add_partition_to_transaction(kafka.TopicPartition(tp.topic, tp.partition))
        self._client._sender.wakeup()  # noqa: SLF001
        return OpenTransaction(dict(positions), consumer_group, began_at, written)

    def begin(self, positions: Mapping[TopicPartition, int], consumer_group: str) -> OpenTransaction:
        """Begin a transaction that moves the consumer group to these positions."""
        begun = self.prepare(positions, consumer_group, ())
        assert begun is not None
        return begun

    def fill(self, transaction: OpenTransaction, parts: Sequence[PartitionMessages]) -> int:
        """Write the messages; returns the offset of the first when the brokers have them and the transaction's offsets.

        Without messages, -1.
        """
        return self._write(parts, transaction.offsets_written)

    def mark(self, partitions: Sequence[Any], timeout_ms: int, *, committed: bool) -> None:
        """End a transaction without records in these partitions."""
        deadline = time.monotonic() + timeout_ms / 1000
        manager = self._manager
        self._client.begin_transaction()
        for tp in partitions:
            manager.maybe_add_partition_to_transaction(tp)  # what `send` does before a record
        if committed:
            self.commit()
            return
        while not all(map(manager.is_partition_added, partitions)) and time.monotonic() < deadline:
            self._client.flush()  # an abort would not wait until the coordinator knows the partitions
            time.sleep(PAUSE_S)
        self.abort()

    def close(self, timeout_s: float) -> None:
        """Close; records that no broker took are given up after the time, and the producer's thread ends."""
        try:
            super().close(timeout_s)
        except errors.KafkaTimeoutError:  # records that nobody took, which would keep its thread
            self._client._sender.force_close()  # noqa: SLF001

    def _send(self, parts: Sequence[PartitionMessages]) -> list[Any]:
        """Put the messages into the producer's accumulator; `flush` sends them. Returns a future for each batch.

        Raises
        ------
        MessageSizeTooLargeError
            A message is larger than a request may be; some may have been put in.
        """
        accumulator, manager = self._client._accumulator, self._manager  # noqa: SLF001
        known: set[str] = set()
        futures = []
        for topic, partition, messages in parts:
            if topic not in known:
                self._client.partitions_for(topic)  # waits for what the producer has to know before it can send
                known.add(topic)
            tp = kafka.TopicPartition(topic, partition)
            if self._is_transactional():
                manager.maybe_add_partition_to_transaction(tp)
            for records in encoded(messages, self._batch_bytes):
                if len(records.data) > self._request_bytes:
                    raise errors.MessageSizeTooLargeError(f"{len(records.data)} bytes to {tp.topic}[{tp.partition}]")
                batch = ProducerBatch(tp, builder_of(records))
                batch.max_record_size = len(records.data)
                future = FutureRecordMetadata(batch.produce_future, 0, records.first_ms, None, -1, -1, -1)
                with accumulator._tp_lock(tp):  # noqa: SLF001
                    accumulator._batches[tp].append(batch)  # noqa: SLF001
                    accumulator._incomplete.add(batch)  # noqa: SLF001
                futures.append(future)
        return futures


def builder_of(records: Encoded) -> Any:
    """The client's builder, as if the records had been appended to it one by one."""
    whole = MemoryRecordsBuilder(2, 0, len(records.data))
    inner = whole._builder  # noqa: SLF001
    inner._buffer += records.data  # noqa: SLF001
    inner._num_records, inner._last_offset = records.number, records.number - 1  # noqa: SLF001
    inner._first_timestamp, inner._max_timestamp = records.first_ms, records.last_ms  # noqa: SLF001
    whole._next_offset = records.number  # noqa: SLF001
    return whole
