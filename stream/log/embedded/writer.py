"""Everything that writes to an embedded log: messages into entries, the spool, retention and compaction."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, groupby
from operator import attrgetter
from typing import Final

from rocksdict import WriteBatch

from stream.log.base import AppendRequest, Headers, LogError, Message
from stream.log.embedded.cleaner import LogCleaner, chunks
from stream.log.embedded.idempotency_keys import IdempotencyKeys, is_known
from stream.log.embedded.layout import Bounds, Topic, entry_key, partition_key
from stream.log.embedded.packing import pack
from stream.log.embedded.primary import PrimaryStore
from stream.log.embedded.spool import SpoolReader
from stream.log.idempotency import select
from stream.log.partitioner import rows_by_partition
from stream.log.topic_checks import check_messages, missing_topic

logger = logging.getLogger(__name__)

_CLEANING_EVERY: Final = 64  # writes
_CLEANING_AFTER_MS: Final = 60_000


@dataclass(frozen=True, slots=True)
class MessageColumns:
    """Messages to one topic; the lists have the same length. `headers` None: no message has any."""

    keys: Sequence[bytes | None]
    values: Sequence[bytes | None]
    timestamps_ms: Sequence[int]
    headers: Sequence[Headers] | None

    @staticmethod
    def of(messages: Sequence[Message]) -> MessageColumns:
        """The columns of these messages."""
        headers = [m.headers for m in messages]
        return MessageColumns(
            [m.key for m in messages],
            [m.value for m in messages],
            [m.timestamp_ms for m in messages],
            headers if any(headers) else None,
        )

    def rows(self, rows: Sequence[int]) -> MessageColumns:
        """These rows only."""
        return MessageColumns(
            [self.keys[i] for i in rows],
            [self.values[i] for i in rows],
            [self.timestamps_ms[i] for i in rows],
            [self.headers[i] for i in rows] if self.headers is not None else None,
        )


@dataclass(slots=True)
class _Staged:
    """Entries ready to be written, and the bounds of their partitions afterwards, by topic id and partition."""

    entries: dict[bytes, bytes] = field(default_factory=dict)
    bounds: dict[tuple[int, int], Bounds] = field(default_factory=dict)


class LogWriter:
    """The writer of one store; all users of the store in this process share it."""

    def __init__(self, store: PrimaryStore, clock_ms: Callable[[], int]) -> None:
        self.store = store
        self._clock_ms = clock_ms
        self._writes = 0
        self._records = 0
        self._cleaned_at = clock_ms()
        self.reload()

    def reload(self) -> None:
        """Forget what was read from the store: it was closed and opened again."""
        self._cleaner = LogCleaner(self.store)
        self._keys = IdempotencyKeys(self.store)
        self.spool = SpoolReader(self.store, self.write)

    def write(self, requests: Sequence[AppendRequest], values: Mapping[bytes, bytes] | None = None) -> list[bool]:
        """Append what is new of the requests and put further `values` by key, all or nothing.

        Everything is durable when this returns: for each request, whether it was new.
        """
        with self.store.writing():
            now_ms = self._clock_ms()
            selection = select(requests, lambda digest: is_known(self.store, digest, now_ms))
            staged = self._stage(chain.from_iterable(request.messages for request in selection.fresh))
            batch = WriteBatch(raw_mode=True)
            for part in (staged.entries, self._keys.values(selection.digests, now_ms), values or {}):
                for key, raw in part.items():
                    batch[key] = raw
            if len(batch):
                self.store.write(batch)
            self._keys.wrote(selection.digests)
            for (topic_id, partition), bounds in staged.bounds.items():
                self._records += bounds.end - self.store.end_of(topic_id, partition)
                self.store.set_bounds(topic_id, partition, bounds)
            self.store.changed.notify_all()
            self._writes += 1
            try:
                self.clean()
            except LogError as exc:  # the messages are durable all the same
                logger.warning("%s", exc)
            return selection.answers

    def clean(self) -> None:
        """Do a portion of retention and compaction when it is due. The caller is within `writing`."""
        now = self._clock_ms()
        if self._writes >= _CLEANING_EVERY or now - self._cleaned_at >= _CLEANING_AFTER_MS:
            records, self._records, self._writes, self._cleaned_at = self._records, 0, 0, now
            self._cleaner.run(now, records)
            self._keys.forget(now, records)

    def _stage(self, messages: Iterable[Message]) -> _Staged:
        """Pack the messages into entries; raises before anything is written when a topic does not take one."""
        by_topic: dict[str, list[Message]] = {}
        for topic_name, run in groupby(messages, attrgetter("topic")):
            by_topic.setdefault(topic_name, []).extend(run)
        staged = _Staged()
        for name, group in by_topic.items():
            topic = self.store.topic(name)
            if topic is None:
                raise missing_topic(name, f"file://{self.store.path}")
            columns = MessageColumns.of(group)
            check_messages(topic.spec, columns.keys, columns.values, columns.headers)
            for partition, rows in rows_by_partition(topic.spec, columns.keys, [m.partition for m in group]):
                part = self._entries(topic, partition, columns if rows is None else columns.rows(rows))
                staged.entries |= part.entries
                staged.bounds |= part.bounds
        return staged

    def _entries(self, topic: Topic, partition: int, columns: MessageColumns) -> _Staged:
        bounds = self.store.bounds(topic, partition)
        end, size, now = bounds.end, bounds.size, self._clock_ms()
        staged = _Staged()
        for chunk in chunks([0 if value is None else len(value) for value in columns.values]):
            count = chunk.stop - chunk.start
            raw = pack(
                columns.keys[chunk],
                columns.values[chunk],
                columns.timestamps_ms[chunk],
                columns.headers[chunk] if columns.headers is not None else None,
                next_offset=end + count,
                appended_ms=now,
            )
            staged.entries[entry_key(topic.id, partition, end)] = raw
            end, size = end + count, size + len(raw)
        bounds = replace(bounds, end=end, size=size)
        staged.bounds[topic.id, partition] = bounds
        staged.entries[partition_key(topic.id, partition)] = bounds.pack()
        return staged
