"""Reading an embedded log: bounds of partitions, fair polls, exact ranges."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import count
from typing import Any

from stream.log.base import LogDamaged, LogError, OffsetOutOfRange, OffsetRange, RecordBatch, TopicPartition
from stream.log.columns import RecordColumns
from stream.log.embedded.folder import explained
from stream.log.embedded.layout import Bounds, Topic, entry_key, offset_of
from stream.log.embedded.packing import unpack
from stream.log.embedded.store import Store
from stream.log.fairness import split_fairly
from stream.log.topic_checks import missing_topic


class LogReader:
    """One user's reads from a store."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._turn = count()

    def topic(self, name: str) -> Topic:
        """The topic of this name; `TopicMismatch` when there is none, also after a refresh."""
        topic = self._store.topic(name)
        if topic is None:
            self._store.refresh()
            topic = self._store.topic(name)
        if topic is None:
            raise missing_topic(name, f"file://{self._store.path}")
        return topic

    def all_bounds(self, name: str) -> list[Bounds]:
        """Bounds of every partition of a topic."""
        topic = self.topic(name)
        return [self._store.bounds(topic, partition) for partition in range(topic.spec.partitions)]

    def bounds(self, tp: TopicPartition) -> Bounds:
        """Bounds of one partition; `LogError` when the topic does not have it."""
        topic = self.topic(tp.topic)
        if not 0 <= tp.partition < topic.spec.partitions:
            raise LogError(f"{tp}: the topic has {topic.spec.partitions} partitions")
        return self._store.bounds(topic, tp.partition)

    def poll(self, positions: Mapping[TopicPartition, int], max_records: int) -> list[RecordBatch]:
        """What is there from these positions on, at most `max_records`, without waiting."""
        ends: dict[TopicPartition, int] = {}
        for tp, offset in positions.items():
            bounds = self.bounds(tp)
            if not bounds.begin <= offset <= bounds.end:
                raise self._out_of_range(tp, f"offset {offset}", bounds)
            if bounds.end > offset:
                ends[tp] = bounds.end
        waiting = {tp: end - positions[tp] for tp, end in ends.items()}
        it = self._store.iterator() if waiting else None
        batches = []
        for tp, share in split_fairly(waiting, max_records, next(self._turn)).items():
            batch = self._records(it, OffsetRange(tp.topic, tp.partition, positions[tp], ends[tp]), share)
            if batch.next_offset > positions[tp]:
                batches.append(batch)
        return batches

    def read(self, span: OffsetRange) -> RecordBatch:
        """Exactly the records of the range; `OffsetOutOfRange` when some are gone or not there yet."""
        tp = TopicPartition(span.topic, span.partition)
        bounds = self.bounds(tp)
        if not bounds.begin <= span.start <= span.stop <= bounds.end:
            raise self._out_of_range(tp, f"offsets [{span.start}, {span.stop})", bounds)
        return self._records(self._store.iterator(), span, span.stop - span.start)

    def _out_of_range(self, tp: TopicPartition, wanted: str, bounds: Bounds) -> OffsetOutOfRange:
        return OffsetOutOfRange(
            f"{tp} of log {self._store.path}: {wanted} wanted, there are [{bounds.begin}, {bounds.end})"
        )

    def _records(self, it: Any, span: OffsetRange, limit: int) -> RecordBatch:
        """Up to `limit` records of the range, in as many reads as there are entries."""
        topic = self.topic(span.topic)
        columns = RecordColumns()
        start_key = entry_key(topic.id, span.partition, span.start)
        prefix = start_key[:-8]
        with explained(self._store.path, f"read {TopicPartition(span.topic, span.partition)}"):
            it.seek_for_prev(start_key)
            if not it.valid() or it.key()[:-8] != prefix:
                it.seek(start_key)
            while len(columns) < limit and it.valid():
                key = it.key()
                base = offset_of(key)
                if key[:-8] != prefix or base >= span.stop:
                    break
                part = unpack(it.value(), base, span.start, span.stop, limit - len(columns))
                columns = columns.joined(part)
                it.next()
            it.status()  # a block that cannot be read ends the iteration like the last one
        if topic.spec.cleanup == "delete":
            self._refuse_gaps(columns.offsets, span, limit)
        full = len(columns) >= limit and columns.offsets
        return columns.batch(span.topic, span.partition, columns.offsets[-1] + 1 if full else span.stop)

    def _refuse_gaps(self, offsets: list[int], span: OffsetRange, limit: int) -> None:
        """Raise `LogDamaged` where records are missing: only a compaction leaves offsets out."""
        wanted = min(limit, span.stop - span.start)
        if len(offsets) == wanted and (not wanted or offsets[-1] == span.start + wanted - 1):
            return
        tp = TopicPartition(span.topic, span.partition)
        bounds = self.bounds(tp)
        if bounds.begin > span.start:  # retention, meanwhile
            raise self._out_of_range(tp, f"offset {span.start}", bounds)
        raise LogDamaged(
            f"{tp} of log {self._store.path}: {len(offsets)} of {wanted} records from offset {span.start} on are there:"
            " the log is damaged, `intentstream verify` names the files"
        )
