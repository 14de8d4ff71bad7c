"""Reading from Kafka: one read_committed consumer whose partitions share a bounded read-ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import kafka
import kafka.errors as errors

from stream.log.base import Headers, OffsetOutOfRange, OffsetRange, RecordBatch, TopicPartition
from stream.log.kafka.client import connect, explained, translated
from stream.log.kafka.records import ColumnRecords, Columns

_BUFFERED: Final = 8_000  # records read ahead per partition before it is paused; one fetch may come on top
_FETCH_BYTES: Final = 256 * 1024  # of a partition in one fetch: what one poll takes over at once stays small
# All that a fetch brought is taken over. kafka-python 3.0.12 parks the rest of a half-taken fetch when its partition is
# paused, and never looks at it again when every partition with records is parked so: the consumer stands still.
_ALL: Final = 2**31 - 1


@dataclass(slots=True)
class Buffer:
    """Records of one partition that were fetched and not yet asked for, as columns."""

    position: int  # of the first record asked for
    fetched_to: int  # where the consumer is
    first: int = 0  # rows before it were given out
    offsets: list[int] = field(default_factory=list)
    keys: list[bytes | None] = field(default_factory=list)
    values: list[bytes | None] = field(default_factory=list)
    timestamps_ms: list[int] = field(default_factory=list)
    headers: list[Headers] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.offsets) - self.first

    def add(self, batches: Sequence[Columns]) -> None:
        """Take over fetched records."""
        if self.first:
            for column in (self.offsets, self.keys, self.values, self.timestamps_ms, self.headers):
                del column[: self.first]
            self.first = 0
        for batch in batches:
            self.offsets += batch.offsets
            self.keys += batch.keys
            self.values += batch.values
            self.timestamps_ms += batch.timestamps_ms
            self.headers += batch.headers

    def take(self, tp: TopicPartition, limit: int, stop: int | None = None) -> RecordBatch:
        """The next records, at most `limit` and before `stop`; moves the position."""
        a = self.first
        b = min(len(self.offsets), a + limit)
        if stop is not None:
            while b > a and self.offsets[b - 1] >= stop:
                b -= 1
        if b < len(self.offsets):
            after = self.offsets[b] if stop is not None and self.offsets[b] >= stop else self.offsets[b - 1] + 1
        else:
            after = self.fetched_to
        after = after if stop is None else min(after, stop)
        self.first, self.position = b, max(self.position, after)
        return RecordBatch(
            tp.topic,
            tp.partition,
            self.offsets[a:b],
            self.keys[a:b],
            self.values[a:b],
            self.timestamps_ms[a:b],
            self.headers[a:b],
            self.position,
        )


class Fetcher:
    """One read_committed consumer with a bounded read-ahead per partition, so that partitions share fairly."""

    def __init__(self, url: str, options: Mapping[str, Any]) -> None:
        self._url = url
        with explained(url, "connect"):
            self._consumer = connect(
                kafka.KafkaConsumer,
                group_id=None,
                enable_auto_commit=False,
                auto_offset_reset="none",
                isolation_level="read_committed",
                fetch_max_wait_ms=min(500, options["request_timeout_ms"] - 1),
                max_partition_fetch_bytes=_FETCH_BYTES,
                metrics_enabled=False,
                **options,
            )
        self._consumer._fetcher.PartitionRecords = ColumnRecords  # noqa: SLF001  # see there
        self._buffers: dict[TopicPartition, Buffer] = {}
        self._paused: set[TopicPartition] = set()

    def buffers(self, positions: Mapping[TopicPartition, int], *, keep_others: bool) -> dict[TopicPartition, Buffer]:
        """The buffers of these partitions, moved to the positions."""
        if not (positions.keys() <= self._buffers.keys() if keep_others else positions.keys() == self._buffers.keys()):
            self._assign({*positions, *self._buffers} if keep_others else set(positions), positions)
        for tp, offset in positions.items():
            buffer = self._buffers[tp]
            if buffer.position != offset:
                self._seek(tp, offset)
        return self._buffers

    def _assign(self, wanted: set[TopicPartition], positions: Mapping[TopicPartition, int]) -> None:
        with explained(self._url, "assign partitions"):
            self._consumer.assign([kafka.TopicPartition(tp.topic, tp.partition) for tp in sorted(wanted)])
        # Assigning anew forgets what the consumer had fetched and paused.
        self._paused.clear()
        old = self._buffers
        self._buffers = {}
        for tp in wanted:
            self._seek(tp, old[tp].position if tp in old else positions[tp])

    def _seek(self, tp: TopicPartition, offset: int) -> None:
        self._consumer.seek(kafka.TopicPartition(tp.topic, tp.partition), offset)
        self._buffers[tp] = Buffer(offset, offset)

    def fill(self, timeout_ms: float) -> bool:
        """Fetch what there is, waiting at most this long for the first; whether any position moved."""
        self._pause_the_full()
        if len(self._paused) == len(self._buffers):
            return False
        try:
            found = self._consumer.poll(timeout_ms=max(0, int(timeout_ms)), max_records=_ALL)
        except errors.OffsetOutOfRangeError as exc:
            offsets = {TopicPartition(tp.topic, tp.partition): offset for tp, offset in exc.args[0].items()}
            for tp in offsets:
                self._seek(tp, self._buffers[tp].position)
            tp, offset = next(iter(offsets.items()))
            raise OffsetOutOfRange(f"{tp} of {self._url}: offset {offset} is not there") from exc
        except errors.KafkaError as exc:
            raise translated(exc, self._url, "read") from exc
        failed: dict[TopicPartition, Exception] = {}
        for key, batches in found.items():
            tp = TopicPartition(key.topic, key.partition)
            self._buffers[tp].add(batches)
            if batches[-1].error is not None:
                failed[tp] = batches[-1].error
        moved = False
        for tp, buffer in self._buffers.items():
            at = self._consumer.position(kafka.TopicPartition(tp.topic, tp.partition), timeout_ms=0)
            if at is not None and at > buffer.fetched_to:
                buffer.fetched_to, moved = at, True
        for tp, error in failed.items():
            if not len(self._buffers[tp]):  # what came before it is given out first; the error comes again
                raise translated(error, self._url, f"read {tp} at offset {self._buffers[tp].fetched_to}") from error
        return moved

    def end_offsets(self, partitions: Sequence[Any]) -> dict[Any, int]:
        """The last stable offsets, by the client's kind of partition: before them every transaction is decided."""
        found: dict[Any, int] = self._consumer.end_offsets(partitions)
        return found

    def _pause_the_full(self) -> None:
        full = {tp for tp, buffer in self._buffers.items() if len(buffer) >= _BUFFERED}
        for tp in full - self._paused:
            self._consumer.pause(kafka.TopicPartition(tp.topic, tp.partition))
        for tp in self._paused - full:
            self._consumer.resume(kafka.TopicPartition(tp.topic, tp.partition))
        self._paused = full

    def close(self) -> None:
        """Close the consumer."""
        self._consumer.close(autocommit=False, timeout_ms=1000)


def joined(span: OffsetRange, parts: Sequence[RecordBatch]) -> RecordBatch:
    """One batch of all that came of the range."""
    if len(parts) == 1:
        one = parts[0]
        columns = (one.offsets, one.keys, one.values, one.timestamps_ms, one.headers)
        return RecordBatch(span.topic, span.partition, *columns, span.stop)
    return RecordBatch(
        span.topic,
        span.partition,
        [x for p in parts for x in p.offsets],
        [x for p in parts for x in p.keys],
        [x for p in parts for x in p.values],
        [x for p in parts for x in p.timestamps_ms],
        [x for p in parts for x in p.headers],
        span.stop,
    )


def split_fairly(buffers: Mapping[TopicPartition, Buffer], max_records: int, turn: int) -> list[RecordBatch]:
    """Equal parts of what is buffered; what one partition does not need goes to the others.

    `turn` rises from call to call: with fewer records than partitions it decides who gets one.
    """
    waiting = sorted((tp for tp in buffers if len(buffers[tp])), key=lambda tp: len(buffers[tp]))
    quotas: dict[TopicPartition, int] = {}
    left = max_records
    for i in range(len(waiting)):
        tp = waiting[i] if left >= len(waiting) else waiting[(turn + i) % len(waiting)]
        share = left // (len(waiting) - i) if left >= len(waiting) - i else min(1, left)
        quotas[tp] = min(len(buffers[tp]), share)
        left -= quotas[tp]
    batches = []
    for tp in sorted(buffers):
        buffer = buffers[tp]
        before = buffer.position
        batch = buffer.take(tp, quotas.get(tp, 0))
        if batch.next_offset > before:
            batches.append(batch)
    return batches
