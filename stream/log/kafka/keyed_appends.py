"""Appends once per idempotency key: key and messages are one transaction, ordered by the record of the key.

1. A transaction begins with a record of its keys in the topic `intentstream-append-keys`, at offset n.
2. All records of keys before n are read, committed ones only: a transaction with a lower offset is waited for, one with
   a higher offset waits for this one. So of two appends under one key that run at once, the later one sees the other.
3. Messages whose keys are new are added, and the transaction is committed.

A producer that dies in between leaves an open transaction, which the brokers abort after `_OPEN_MS`.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Sequence
from typing import Final, TypeVar

import kafka.errors as errors

from stream.log.base import (
    KEY_TTL_MS,
    AppendRequest,
    LogError,
    LogUnavailable,
    Message,
    MessageTooLarge,
    OffsetOutOfRange,
    OffsetRange,
    TopicSpec,
)
from stream.log.clock import wall_clock_ms
from stream.log.idempotency import KEY_BYTES, key_digest, select
from stream.log.kafka.calls import bounded
from stream.log.kafka.connection import KafkaConnection
from stream.log.kafka.errors import translated
from stream.log.kafka.key_window import KeyWindow
from stream.log.kafka.producer import LogProducer, PartitionMessages
from stream.log.kafka.reader import KafkaReader
from stream.log.kafka.topics import KafkaTopics

T = TypeVar("T")

KEYS_TOPIC: Final = TopicSpec("intentstream-append-keys", 1, retention_ms=KEY_TTL_MS + 3_600_000)
_OPEN_MS: Final = 10_000
_PAGE: Final = 10_000  # records of keys read at once


class KeyedAppender:
    """Appends of one log object under idempotency keys.

    Parameters
    ----------
    by_partition
        Checks messages and arranges them by partition.
    """

    def __init__(
        self,
        connection: KafkaConnection,
        topics: KafkaTopics,
        by_partition: Callable[[Sequence[Message], LogProducer | None], list[PartitionMessages]],
        clock_ms: Callable[[], int] = wall_clock_ms,
    ) -> None:
        self._connection = connection
        self._topics = topics
        self._by_partition = by_partition
        self._clock_ms = clock_ms
        self._reader = KafkaReader(connection, topics)
        self._id = f"intentstream-append-{uuid.uuid4().hex}"
        self._producer: LogProducer | None = None
        self._window = KeyWindow()
        self._position: int | None = None  # of the next record of keys to read

    def append_each(self, requests: Sequence[AppendRequest]) -> list[bool]:
        """Append every request whose key is new, all in one transaction; for each, whether it was new.

        Raises
        ------
        LogUnavailable
            Whether the requests were appended is not known; the same call finds out.
        """
        keys = [r.idempotency_key for r in requests if r.idempotency_key is not None]
        self._by_partition(
            [message for request in requests for message in request.messages], None
        )  # raises before a write
        producer = self._open_producer()
        marker = Message(KEYS_TOPIC.name, None, b"".join(map(key_digest, keys)), self._clock_ms())
        try:
            transaction = producer.begin({}, self._id)
            parts = [PartitionMessages(KEYS_TOPIC.name, 0, [marker])]
            self._read_keys(self._call(lambda: producer.fill(transaction, parts)))
            now_ms = self._clock_ms()
            selection = select(requests, lambda digest: self._window.knows(digest, now_ms))
            messages = [message for request in selection.fresh for message in request.messages]
            if messages:
                parts = self._by_partition(messages, producer)
                self._call(lambda: producer.fill(transaction, parts))
            self._call(producer.commit if selection.fresh else producer.abort)
        except (errors.KafkaError, LogError, OSError) as exc:
            self._give_up(producer)
            raise self._undecided(exc) from exc
        return selection.answers

    def _open_producer(self) -> LogProducer:
        """A producer whose last transaction, if one was given up, is decided."""
        if self._producer is None:
            self._topics.create([KEYS_TOPIC])
            open_ms = min(self._connection.config.transaction_timeout_ms, _OPEN_MS)
            try:
                producer = self._connection.producer(transactional_id=self._id, transaction_timeout_ms=open_ms)
            except errors.KafkaError as exc:
                raise translated(exc, self._connection.url, "append") from exc
            try:
                self._call(producer.init_transactions)
            except (errors.KafkaError, LogError) as exc:
                self._give_up(producer)
                raise self._undecided(exc) from exc
            self._producer = producer
            self._read_keys(self._reader.stable_offsets(KEYS_TOPIC.name)[0])  # a day of them, before a transaction
        return self._producer

    def _read_keys(self, stop: int) -> None:
        """Read the records of keys up to the offset `stop`, from the begin of the topic at first."""
        while self._position is None or self._position < stop:
            if self._position is None:
                self._position = min(stop, self._reader.begin_offsets(KEYS_TOPIC.name)[0])
            span = OffsetRange(KEYS_TOPIC.name, 0, self._position, min(stop, self._position + _PAGE))
            try:
                batch = self._reader.read(span, wait_ms=_OPEN_MS)
            except OffsetOutOfRange:  # retention was faster
                self._position = None
                continue
            for value, used_ms in zip(batch.values, batch.timestamps_ms, strict=True):
                for at in range(0, len(value or b""), KEY_BYTES):
                    self._window.add((value or b"")[at : at + KEY_BYTES], used_ms)
            self._position = span.stop

    def _call(self, call: Callable[[], T]) -> T:
        """Make a call of the producer, which may hang."""
        results: list[T] = []
        failure = bounded(lambda: results.append(call()), self._connection.config.commit_timeout_ms, "kafka-append")
        if failure is not None:
            raise failure
        return results[0]

    def _undecided(self, exc: Exception) -> LogError:
        error = translated(exc, self._connection.url, "append")
        if isinstance(error, MessageTooLarge) or error.retriable:
            return error
        return LogUnavailable(str(error)) if isinstance(exc, errors.KafkaError | OSError) else error

    def _give_up(self, producer: LogProducer) -> None:
        """Drop a producer: the next one has the same transactional id, so its claim decides what this one left."""
        self._producer = None
        with contextlib.suppress(errors.KafkaError):
            bounded(lambda: producer.close(self._connection.config.commit_timeout_ms / 1000), 1_000, "kafka-close")

    def close(self) -> None:
        """Close the producer and the consumers."""
        if self._producer is not None:
            self._give_up(self._producer)
        self._reader.close()
