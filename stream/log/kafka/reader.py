"""Reading from Kafka: offsets of partitions, fair polls, exact ranges."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any, Final

from stream.log.base import LogUnavailable, OffsetOutOfRange, OffsetRange, RecordBatch, TopicPartition
from stream.log.columns import RecordColumns
from stream.log.kafka.connection import KafkaConnection
from stream.log.kafka.errors import explained
from stream.log.kafka.fetch import Fetcher, take_fairly
from stream.log.kafka.topics import KafkaTopics
from stream.log.topic_checks import missing_topic

_AGAIN_MS: Final = 5  # longer than a broker nearby takes for a fetch


class KafkaReader:
    """One user's reads, with a consumer for polls, one for ranges and one for offsets, each made when first needed."""

    def __init__(self, connection: KafkaConnection, topics: KafkaTopics) -> None:
        self._connection = connection
        self._topics = topics
        self._polls: Fetcher | None = None
        self._ranges: Fetcher | None = None
        self._offsets: Any = None
        self._known_ends: dict[TopicPartition, int] = {}
        self._turn = itertools.count()

    def current_partition_count(self, topic: str) -> int:
        """Number of partitions that a topic has now; `TopicMismatch` when there is no such topic."""
        with explained(self._connection.url, f"ask for the partitions of {topic}"):
            consumer = self._uncommitted()
            known = topic in consumer.topics()  # asks the brokers
            count = len(consumer.partitions_for_topic(topic)) if known else 0
        if not count:
            raise missing_topic(topic, self._connection.url)
        self._topics.remember(topic, count)
        return count

    def begin_offsets(self, topic: str) -> list[int]:
        """First offset that is still there, per partition."""
        partitions = self._topics.partitions(topic)
        with explained(self._connection.url, f"ask for the begin of {topic}"):
            return self._connection.offsets(self._uncommitted().beginning_offsets, partitions)

    def end_offsets(self, topic: str) -> list[int]:
        """Offset of the next record to come, per partition, records of open transactions included."""
        partitions = self._topics.partitions(topic)
        with explained(self._connection.url, f"ask for the end of {topic}"):
            ends = self._connection.offsets(self._uncommitted().end_offsets, partitions)
        self._known_ends |= {TopicPartition(topic, p): end for p, end in enumerate(ends)}
        return ends

    def stable_offsets(self, topic: str) -> list[int]:
        """Offset before which every transaction is decided, per partition."""
        partitions = self._topics.partitions(topic)
        with explained(self._connection.url, f"ask for the stable end of {topic}"):
            return self._connection.offsets(self._range_fetcher().end_offsets, partitions)

    def undecided(self, topics: list[str]) -> list[Any]:
        """Partitions of these topics with an open transaction, as the client names them."""
        partitions = [tp for topic in topics for tp in self._topics.partitions(topic)]
        with explained(self._connection.url, "look for transactions left open"):
            ends = self._connection.offsets(self._uncommitted().end_offsets, partitions)
            stable = self._connection.offsets(self._range_fetcher().end_offsets, partitions)
        return [tp for tp, decided, end in zip(partitions, stable, ends, strict=True) if decided < end]

    def poll(self, positions: Mapping[TopicPartition, int], max_records: int, max_wait_ms: int) -> list[RecordBatch]:
        """Committed records from these positions on; waits at most `max_wait_ms` for the first."""
        if self._polls is None:
            self._polls = Fetcher(self._connection)
        fetcher = self._polls
        for topic in {tp.topic for tp in positions}:
            self._topics.partition_count(topic)
        deadline = time.monotonic() + max_wait_ms / 1000
        buffers = fetcher.buffers(positions, keep_others=False)
        while True:
            fetcher.fill(0)
            ready = sum(map(len, buffers.values()))
            if 0 < ready < max_records:
                # These came while the caller was busy, and a broker answers a fetch with the first records that come:
                # a second fetch brings what came after them, which would otherwise wait for the next step.
                fetcher.fill(_AGAIN_MS)
                ready = sum(map(len, buffers.values()))
            moved = True
            # Everything that has come is taken together: under backlog, few large steps cost less than many small ones.
            while moved and ready < max_records:
                left_s = 0.0 if ready else max(0.0, deadline - time.monotonic())
                moved = fetcher.fill(1000 * left_s)
                ready = sum(map(len, buffers.values()))
            batches = take_fairly(buffers, max_records, next(self._turn))
            if batches or time.monotonic() >= deadline:
                return batches

    def read(self, span: OffsetRange, *, wait_ms: int | None = None) -> RecordBatch:
        """Exactly the committed records of the range, for recovery.

        wait_ms: longest wait for the next record; None: the request timeout.

        Raises
        ------
        OffsetOutOfRange
            Some are gone, or not there yet.
        LogUnavailable
            A transaction of another writer stays open inside the range.
        """
        tp = TopicPartition(span.topic, span.partition)
        if span.stop > self._known_ends.get(tp, -1):
            end = self.end_offsets(span.topic)[span.partition]
            if span.stop > end:
                raise OffsetOutOfRange(
                    f"{tp} of {self._connection.url}: offsets up to {span.stop} asked for, the end is {end}"
                )
        if span.start >= span.stop:
            return RecordColumns().batch(span.topic, span.partition, span.stop)
        fetcher = self._range_fetcher()
        try:
            return self._read(fetcher, span, wait_ms or self._connection.config.request_timeout_ms)
        except OffsetOutOfRange as exc:
            fetcher.close()  # from now on it would raise this for every partition
            self._ranges = None
            begin = self.begin_offsets(span.topic)[span.partition]
            if begin <= span.start:
                return self.read(span, wait_ms=wait_ms)  # the error was another partition's
            raise OffsetOutOfRange(
                f"{tp} of {self._connection.url}: offsets [{span.start}, {span.stop}) asked for, the first one there "
                f"is {begin}"
            ) from exc

    def _read(self, fetcher: Fetcher, span: OffsetRange, wait_ms: int) -> RecordBatch:
        tp = TopicPartition(span.topic, span.partition)
        columns = RecordColumns()
        buffer = fetcher.buffers({tp: span.start}, keep_others=True)[tp]
        deadline = time.monotonic() + wait_ms / 1000
        while buffer.position < span.stop:
            batch = buffer.take(tp, span.stop - span.start, span.stop)
            if len(batch):
                columns.extend(RecordColumns.of(batch))
                deadline = time.monotonic() + wait_ms / 1000
            elif buffer.position < span.stop and not fetcher.fill(500) and time.monotonic() > deadline:
                raise LogUnavailable(
                    f"{tp} of {self._connection.url}: offsets [{buffer.position}, {span.stop}) do not come"
                )
        return columns.batch(span.topic, span.partition, span.stop)

    def _uncommitted(self) -> Any:
        """A read_uncommitted consumer: a read_committed one's end stops at the last stable offset."""
        if self._offsets is None:
            with explained(self._connection.url, "connect"):
                self._offsets = self._connection.consumer(isolation_level="read_uncommitted")
        return self._offsets

    def _range_fetcher(self) -> Fetcher:
        if self._ranges is None:
            self._ranges = Fetcher(self._connection)
        return self._ranges

    def close(self) -> None:
        """Close the consumers; a second call does nothing."""
        for fetcher in (self._polls, self._ranges):
            if fetcher is not None:
                fetcher.close()
        if self._offsets is not None:
            self._offsets.close(autocommit=False, timeout_ms=1000)
        self._polls = self._ranges = self._offsets = None
