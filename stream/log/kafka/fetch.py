"""Reading from Kafka: one read_committed consumer whose partitions share a bounded read-ahead."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import kafka
import kafka.errors as errors

from stream.log.base import OffsetOutOfRange, RecordBatch, TopicPartition
from stream.log.columns import RecordColumns
from stream.log.fairness import split_fairly
from stream.log.kafka.connection import KafkaConnection
from stream.log.kafka.errors import explained, translated

_BUFFERED: Final = 8_000  # records read ahead per partition before it is paused; one fetch may come on top
_FETCH_BYTES: Final = 256 * 1024  # of a partition in one fetch: what one poll takes at once stays small
# A poll takes all that a fetch brought. kafka-python 3.0.12 parks the rest of a half-taken fetch when its partition is
# paused, and never looks at it again when every partition with records is parked so: the consumer stands still.
_ALL: Final = 2**31 - 1


@dataclass(slots=True)
class Buffer:
    """Records of one partition that were fetched and not yet taken."""

    position: int  # of the first record that was not taken
    fetched_to: int  # where the consumer is
    first: int = 0  # rows before it were taken
    columns: RecordColumns = field(default_factory=RecordColumns)

    def __len__(self) -> int:
        return len(self.columns) - self.first

    def add(self, fetched: RecordColumns) -> None:
        """Append fetched records."""
        if self.first:
            self.columns.drop(self.first)
            self.first = 0
        self.columns.extend(fetched)

    def take(self, tp: TopicPartition, limit: int, stop: int | None = None) -> RecordBatch:
        """The next records, at most `limit` and before `stop`; moves the position."""
        offsets, a = self.columns.offsets, self.first
        b = min(len(offsets), a + limit)
        if stop is not None:
            while b > a and offsets[b - 1] >= stop:
                b -= 1
        if b < len(offsets):
            after = offsets[b] if stop is not None and offsets[b] >= stop else offsets[b - 1] + 1
        else:
            after = self.fetched_to
        after = after if stop is None else min(after, stop)
        self.first, self.position = b, max(self.position, after)
        return self.columns.rows(a, b).batch(tp.topic, tp.partition, self.position)


class Fetcher:
    """One read_committed consumer with a bounded read-ahead per partition, so that partitions share fairly."""

    def __init__(self, connection: KafkaConnection) -> None:
        self._url = connection.url
        with explained(connection.url, "connect"):
            self._consumer = connection.consumer(
                fetch_max_wait_ms=min(500, connection.config.request_timeout_ms - 1),
                max_partition_fetch_bytes=_FETCH_BYTES,
            )
        self._decoder = connection.path.decoder(self._consumer)
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
        except (errors.KafkaError, ValueError) as exc:
            raise translated(exc, self._url, "read") from exc
        failed: dict[TopicPartition, Exception] = {}
        for key, records in found.items():
            tp = TopicPartition(key.topic, key.partition)
            fetched = self._decoder.columns(records)
            self._buffers[tp].add(fetched)
            if fetched.error is not None:
                failed[tp] = fetched.error
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


def take_fairly(buffers: Mapping[TopicPartition, Buffer], max_records: int, turn: int) -> list[RecordBatch]:
    """Take equal parts of what is buffered, see `split_fairly`; a partition whose position moved gives a batch too."""
    shares = split_fairly({tp: len(buffer) for tp, buffer in buffers.items() if len(buffer)}, max_records, turn)
    batches = []
    for tp in sorted(buffers):
        before = buffers[tp].position
        batch = buffers[tp].take(tp, shares.get(tp, 0))
        if batch.next_offset > before:
            batches.append(batch)
    return batches
