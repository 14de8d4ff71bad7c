"""The log on Apache Kafka: one transaction per step, stable transactional ids, explicit assignment, read_committed.

What a commit is: messages, the journal's entry among them, and the input positions (as offsets of the consumer
group `intentstream-WORKER`) in one transaction of the producer `intentstream-WORKER`. A second process with the same
worker id fences the first. Nothing here subscribes, so no rebalance can take a partition away during a long step.

Retention counts from the append here as in the embedded log: topics are created with LogAppendTime, since a replay of
old events would otherwise be deleted as it arrives.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from types import TracebackType
from typing import Self

from stream.log.base import AppendRequest, LogError, Message, Mode, OffsetRange, RecordBatch, TopicPartition, TopicSpec
from stream.log.kafka.calls import bounded
from stream.log.kafka.config import KafkaConfig
from stream.log.kafka.connection import KafkaConnection
from stream.log.kafka.errors import explained
from stream.log.kafka.keyed_appends import KeyedAppender
from stream.log.kafka.producer import LogProducer, PartitionMessages
from stream.log.kafka.reader import KafkaReader
from stream.log.kafka.topics import KafkaTopics
from stream.log.kafka.transactions import KafkaTransactions
from stream.log.partitioner import rows_by_partition
from stream.log.topic_checks import check_messages


class KafkaLog:
    """One user's connection to Kafka; see `EventLog` for what the methods promise.

    Parameters
    ----------
    url
        `kafka://host:port[,host:port]`.
    mode
        `owner`: everything; `reader`: reads; `producer`: appends and reads.
    config
        Security and timeouts.
    """

    def __init__(self, url: str, mode: Mode = "owner", config: KafkaConfig | None = None) -> None:
        self._connection = KafkaConnection(url, config or KafkaConfig())
        self._mode = mode
        self._topics = KafkaTopics(self._connection)
        self._reader = KafkaReader(self._connection, self._topics)
        self._transactions = KafkaTransactions(self._connection, self._topics, self._reader)
        self._appender: LogProducer | None = None
        self._keyed: KeyedAppender | None = None

    @property
    def url(self) -> str:
        """The URL of this log."""
        return self._connection.url

    # Topics

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics that are missing; leave those that are there."""
        if self._mode == "reader":
            raise LogError(f"{self.url}: opened for reading, cannot create topics")
        self._topics.create(specs)

    def check_topics(self, specs: Sequence[TopicSpec], *, may_have_grown: Collection[str] = ()) -> None:
        """Raise `TopicMismatch` when a topic is missing or has other settings than these; retention is not compared."""
        self._topics.check(specs, may_have_grown=may_have_grown)

    def add_partitions(self, topic: str, partitions: int) -> None:
        """Give a topic that many partitions; keys move to others from then on. `LogError` when it has more."""
        if self._mode == "reader":
            raise LogError(f"{self.url}: opened for reading, cannot add partitions")
        self._topics.add_partitions(topic, partitions)

    def partition_count(self, topic: str, *, current: bool = False) -> int:
        """Number of partitions; `TopicMismatch` when there is no such topic."""
        return self._reader.current_partition_count(topic) if current else self._topics.partition_count(topic)

    def begin_offsets(self, topic: str) -> list[int]:
        """First offset that is still there, per partition."""
        return self._reader.begin_offsets(topic)

    def end_offsets(self, topic: str) -> list[int]:
        """Offset of the next record to come, per partition, records of open transactions included."""
        return self._reader.end_offsets(topic)

    def stable_offsets(self, topic: str) -> list[int]:
        """Offset before which every transaction is decided, per partition."""
        return self._reader.stable_offsets(topic)

    # Writing

    def append(self, messages: Sequence[Message], *, idempotency_key: bytes | None = None) -> bool:
        """Append outside of any transaction, once for an idempotency key; False when the key is known.

        After `LogUnavailable` some of the messages may have been written, with a key all or none.
        """
        return self.append_each([AppendRequest(messages, idempotency_key)])[0]

    def append_each(self, requests: Sequence[AppendRequest]) -> list[bool]:
        """Append every request whose key is new; when one has a key, all are one transaction."""
        if any(request.idempotency_key is not None for request in requests):
            if self._keyed is None:
                self._keyed = KeyedAppender(self._connection, self._topics, self._by_partition)
            return self._keyed.append_each(requests)
        messages = [message for request in requests for message in request.messages]
        if messages:
            if self._appender is None:
                self._by_partition(messages)  # refuses before a client is made
            with explained(self.url, "append"):
                if self._appender is None:
                    self._appender = self._connection.producer()
                self._appender.write(self._by_partition(messages, self._appender))
        return [True] * len(requests)

    def claim(self, worker_id: str) -> None:
        """Become the one writer that may `commit` as this worker; an earlier one gets `WriterFenced` from then on."""
        if self._mode != "owner":
            raise LogError(f"{self.url}: opened as {self._mode}, only an owner may claim worker {worker_id}")
        self._transactions.claim(worker_id)

    def prepare(self, positions: Mapping[TopicPartition, int], partitions: Sequence[TopicPartition]) -> None:
        """Begin the next commit's transaction: its first requests are under way while the caller works."""
        self._transactions.prepare(positions, partitions)

    def commit(self, messages: Sequence[Message], positions: Mapping[TopicPartition, int]) -> None:
        """Append the messages and record the input positions of the claimed worker, all or nothing, durably.

        Checks everything that can be checked without the broker before anything is sent.
        """
        self._transactions.check_claimed()
        self._transactions.commit(self._by_partition(messages), positions)

    def committed(self, worker_id: str) -> dict[TopicPartition, int]:
        """The positions of the worker's last commit; empty when there was none."""
        return self._transactions.committed(worker_id)

    def _by_partition(
        self, messages: Sequence[Message], producer: LogProducer | None = None
    ) -> list[PartitionMessages]:
        """The messages by partition; refuses what the topics do not take, before anything is sent.

        producer: knows within seconds of partitions that were added; None: the number that was checked or looked up.
        """
        if self._mode == "reader":
            raise LogError(f"{self.url}: opened for reading, cannot append")
        by_topic: dict[str, list[Message]] = {}
        for message in messages:
            by_topic.setdefault(message.topic, []).append(message)
        parts: list[PartitionMessages] = []
        for topic, group in by_topic.items():
            spec = self._topics.spec(topic)
            if producer is not None:
                spec = replace(spec, partitions=producer.partition_count(topic))
            keys = [m.key for m in group]
            check_messages(spec, keys, [m.value for m in group], [m.headers for m in group])
            for partition, rows in rows_by_partition(spec, keys, [m.partition for m in group]):
                chosen = group if rows is None else [group[i] for i in rows]
                parts.append(PartitionMessages(topic, partition, chosen))
        return parts

    # Reading

    def poll(self, positions: Mapping[TopicPartition, int], max_records: int, max_wait_ms: int) -> list[RecordBatch]:
        """Committed records from these positions on; waits at most `max_wait_ms` for the first."""
        return self._reader.poll(positions, max_records, max_wait_ms)

    def read(self, span: OffsetRange) -> RecordBatch:
        """Exactly the committed records of the range, for recovery; `OffsetOutOfRange` when some are gone."""
        return self._reader.read(span)

    def verify_files(self) -> int:
        """Nothing: brokers look after their own files."""
        return 0

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        self._transactions.drop_producer()
        appender, self._appender = self._appender, None
        if appender is not None:
            bounded(lambda: appender.close(1), 5_000, "kafka-close")
        if self._keyed is not None:
            self._keyed.close()
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
