"""The embedded log: durable, partitioned, one writer process, any number of readers; on RocksDB, no server.

Records lie in entries of up to 1,024 (see packing.py), one RocksDB value each: a poll of 2,000 events is a few reads.
A commit is one synced write batch: messages, positions and the writer's epoch together.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal, Self

import msgspec
import numpy as np
from rocksdict import WriteBatch

from stream.log.base import (
    Headers,
    LogError,
    LogInUse,
    Message,
    MessageTooLarge,
    OffsetOutOfRange,
    OffsetRange,
    RecordBatch,
    TopicMismatch,
    TopicPartition,
    TopicSpec,
    WriterFenced,
)
from stream.log.embedded.cleaner import LogCleaner, chunks
from stream.log.embedded.packing import Columns, pack, unpack_into
from stream.log.embedded.spool import SpoolReader, SpoolWriter
from stream.log.embedded.store import (
    Bounds,
    PrimaryStore,
    SecondaryStore,
    Store,
    Topic,
    Writer,
    entry_key,
    explained,
    offset_of,
    partition_key,
    positions_of,
    writer_key,
)
from stream.log.partitioner import partitions_of

Mode = Literal["owner", "reader", "producer"]

_SPOOL_TICK_S: Final = 0.01  # how often a waiting owner looks into the spool
_UPKEEP_EVERY: Final = 64  # writes
_UPKEEP_AFTER_MS: Final = 60_000
_RECORD_OVERHEAD: Final = 128  # bytes counted for a record beside key, value and headers; above what Kafka adds


def wall_clock_ms() -> int:
    """Now, epoch milliseconds."""
    return time.time_ns() // 1_000_000


def check_sizes(spec: TopicSpec, keys: Sequence[bytes | None], values: Sequence[bytes | None], extra: int = 0) -> None:
    """Raise `MessageTooLarge` for the first message that the topic does not take; nothing is written yet."""
    limit = spec.max_message_bytes - _RECORD_OVERHEAD - extra
    for key, value in zip(keys, values, strict=True):
        size = (len(value) if value is not None else 0) + (len(key) if key is not None else 0)
        if size > limit:
            raise MessageTooLarge(
                f"message for topic {spec.name} with key {(key or b'')[:64]!r}: {size + _RECORD_OVERHEAD + extra} "
                f"bytes, the topic takes {spec.max_message_bytes} (max_message_bytes)"
            )
    if spec.cleanup == "compact" and None in keys:
        raise LogError(f"message for topic {spec.name} without a key: the topic is compacted, which needs one")


class LogWriter:
    """Everything that writes: messages into entries, the spool, the upkeep. One per store."""

    def __init__(self, store: PrimaryStore, clock_ms: Callable[[], int]) -> None:
        self.store = store
        self._clock_ms = clock_ms
        self._upkeep = LogCleaner(store)
        self._writes = 0
        self._records = 0
        self._kept_at = clock_ms()
        self.spool = SpoolReader(store, self.stage_messages)

    def stage_messages(self, batch: WriteBatch, messages: Iterable[Message]) -> Callable[[], None]:
        """Put the messages into the batch; the function returned makes the new ends known once it is written."""
        ends: dict[tuple[int, int], Bounds] = {}
        pending: dict[str, list[Message]] = {}
        for topic, run in groupby(messages, attrgetter("topic")):
            pending.setdefault(topic, []).extend(run)
        for name, group in pending.items():
            headers = [m.headers for m in group]
            self._stage(
                batch,
                ends,
                name,
                [m.key for m in group],
                [m.value for m in group],
                [m.timestamp_ms for m in group],
                headers if any(headers) else None,
                [m.partition for m in group],
            )
        return lambda: self._publish(batch, ends)

    def stage_columns(
        self,
        batch: WriteBatch,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
    ) -> Callable[[], None]:
        """Like `stage_messages`, for one topic's messages as columns."""
        ends: dict[tuple[int, int], Bounds] = {}
        self._stage(batch, ends, topic, keys, values, timestamps_ms, None, None)
        return lambda: self._publish(batch, ends)

    def _stage(
        self,
        batch: WriteBatch,
        ends: dict[tuple[int, int], Bounds],
        name: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        headers: Sequence[Headers] | None,
        partitions: Sequence[int | None] | None,
    ) -> None:
        topic = self.store.topic(name)
        if topic is None:
            raise missing(name, f"file://{self.store.path}")
        widest = max((sum(len(k) + len(v) for k, v in h) for h in headers), default=0) if headers else 0
        check_sizes(topic.spec, keys, values, widest)
        for partition, rows in by_partition(topic.spec, keys, partitions):
            if rows is None:
                self._entries(batch, ends, topic, partition, keys, values, timestamps_ms, headers)
            else:
                self._entries(
                    batch,
                    ends,
                    topic,
                    partition,
                    [keys[i] for i in rows],
                    [values[i] for i in rows],
                    [timestamps_ms[i] for i in rows],
                    [headers[i] for i in rows] if headers is not None else None,
                )

    def _entries(
        self,
        batch: WriteBatch,
        ends: dict[tuple[int, int], Bounds],
        topic: Topic,
        partition: int,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
        headers: Sequence[Headers] | None,
    ) -> None:
        bounds = ends.get((topic.id, partition)) or self.store.bounds(topic, partition)
        end, size, now = bounds.end, bounds.size, self._clock_ms()
        for chunk in chunks([0 if v is None else len(v) for v in values]):
            count = chunk.stop - chunk.start
            raw = pack(
                keys[chunk],
                values[chunk],
                timestamps_ms[chunk],
                headers[chunk] if headers is not None else None,
                next_offset=end + count,
                appended_ms=now,
            )
            batch[entry_key(topic.id, partition, end)] = raw
            end, size = end + count, size + len(raw)
        bounds = replace(bounds, end=end, size=size)
        ends[topic.id, partition] = bounds
        batch[partition_key(topic.id, partition)] = bounds.pack()

    def _publish(self, batch: WriteBatch, ends: dict[tuple[int, int], Bounds]) -> None:
        for (topic_id, partition), bounds in ends.items():
            self._records += bounds.end - self.store.end_of(topic_id, partition)
            self.store.set_bounds(topic_id, partition, bounds)

    def wrote(self) -> None:
        """Count a write; now and then do a portion of upkeep. The caller holds the store's lock."""
        self._writes += 1
        self.keep()

    def keep(self) -> None:
        """Do a portion of upkeep when it is due. The caller holds the store's lock."""
        now = self._clock_ms()
        if self._writes >= _UPKEEP_EVERY or now - self._kept_at >= _UPKEEP_AFTER_MS:
            records, self._records, self._writes, self._kept_at = self._records, 0, 0, now
            self._upkeep.run(now, records)


def by_partition(
    spec: TopicSpec, keys: Sequence[bytes | None], partitions: Sequence[int | None] | None
) -> list[tuple[int, list[int] | None]]:
    """Rows of each partition in their order; None: all rows. `LogError` for a partition that is not there."""
    if spec.partitions == 1 and (partitions is None or not any(partitions)):
        return [(0, None)] if len(keys) else []
    found = partitions_of(keys, spec.partitions)  # (n,)
    if partitions is not None:
        for i, given in enumerate(partitions):
            if given is not None:
                if not 0 <= given < spec.partitions:
                    raise LogError(f"message for {spec.name}[{given}]: the topic has {spec.partitions} partitions")
                found[i] = given
    order = np.argsort(found, kind="stable")
    edges = np.searchsorted(found[order], np.arange(spec.partitions + 1))
    return [(p, order[edges[p] : edges[p + 1]].tolist()) for p in range(spec.partitions) if edges[p] < edges[p + 1]]


def missing(topic: str, url: str) -> TopicMismatch:
    """The error for a topic that is not there."""
    return TopicMismatch(f"topic {topic} does not exist: create it with `intentstream topics --create --log {url}`")


def compare_topics(
    wanted: Sequence[TopicSpec],
    found: Mapping[str, TopicSpec | None],
    url: str,
    otherwise: Callable[[TopicSpec, int], str] = lambda *_: ", or start over on other topics (keys change partition)",
) -> None:
    """Raise `TopicMismatch` for the first topic that is missing or has another policy or number of partitions.

    `otherwise`: what can be done about a topic with so many partitions, other than to leave them as they are.
    """
    for spec in wanted:
        there = found[spec.name]
        if there is None:
            raise missing(spec.name, url)
        if there.partitions != spec.partitions:
            raise TopicMismatch(
                f"topic {spec.name} has {there.partitions} partitions, the configuration says {spec.partitions}: set "
                f"log.partitions = {there.partitions}{otherwise(spec, there.partitions)}"
            )
        if there.cleanup != spec.cleanup:
            raise TopicMismatch(
                f"topic {spec.name} has cleanup.policy={there.cleanup}, this version needs {spec.cleanup}: create the "
                "log anew in another folder"
            )


class EmbeddedLog:
    """One user's view of an embedded log; see `EventLog` for what the methods promise.

    Parameters
    ----------
    path
        The log's folder.
    mode
        `owner`: the writer of this machine (shared within the process); `reader`: reads, also beside a writer in
        another process; `producer`: appends, through the writer when it is in this process, else through the spool.
    clock_ms
        Wall clock for retention by age, epoch milliseconds.
    """

    def __init__(self, path: Path, mode: Mode = "owner", *, clock_ms: Callable[[], int] = wall_clock_ms) -> None:
        self._mode = mode
        self._clock_ms = clock_ms
        self._turn = 0
        self._worker: str | None = None
        self._epoch = 0
        self._closed = False
        self._writing: LogWriter | None = None
        self._store: Store
        self._spool: SpoolWriter | None = None
        if mode == "owner":
            self._own(PrimaryStore.open(path))
            return
        shared = PrimaryStore.shared(path)
        if shared is not None:
            self._own(shared)
        else:
            if mode == "producer":
                self._create_if_new(path)
                self._spool = SpoolWriter(path)
            self._store = SecondaryStore(path)

    def _own(self, store: PrimaryStore) -> None:
        self._store = store
        with store.lock:
            self._writing = store.attach(lambda: LogWriter(store, self._clock_ms))

    @staticmethod
    def _create_if_new(path: Path) -> None:
        """A producer may be the first to come: it makes the folder, and leaves it to the writer of later."""
        if not (path / "db" / "CURRENT").exists():
            try:
                PrimaryStore.open(path).release()
            except LogInUse:
                return

    @property
    def url(self) -> str:
        """The URL of this log."""
        return f"file://{self._store.path}"

    # Topics

    def create_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Create the topics that are missing; leave those that are there."""
        self._store.refresh()
        absent = [spec for spec in specs if self._store.topic(spec.name) is None]
        if not absent:
            return
        if self._writing is not None and self._mode != "reader":
            with self._writing.store.changed:
                for spec in absent:
                    if self._writing.store.topic(spec.name) is None:
                        self._writing.store.add_topic(spec)
            return
        if self._mode == "reader":
            raise LogError(f"log {self._store.path}: opened for reading, cannot create topic {absent[0].name}")
        with EmbeddedLog(self._store.path, "owner", clock_ms=self._clock_ms) as owner:
            owner.create_topics(absent)
        self._store.refresh()

    def check_topics(self, specs: Sequence[TopicSpec]) -> None:
        """Raise `TopicMismatch` when a topic is missing or has another cleanup policy or number of partitions."""
        self._store.refresh()
        found = {spec.name: self._store.topic(spec.name) for spec in specs}
        compare_topics(specs, {name: topic.spec if topic else None for name, topic in found.items()}, self.url)

    def partition_count(self, topic: str) -> int:
        """Number of partitions; `TopicMismatch` when there is no such topic."""
        return self._topic(topic).spec.partitions

    def begin_offsets(self, topic: str) -> list[int]:
        """First offset that is still there, per partition."""
        return [bounds.begin for bounds in self._all_bounds(topic)]

    def end_offsets(self, topic: str) -> list[int]:
        """Offset of the next record to come, per partition."""
        return [bounds.end for bounds in self._all_bounds(topic)]

    def stable_offsets(self, topic: str) -> list[int]:
        """The end: nothing here is undecided."""
        return self.end_offsets(topic)

    def _all_bounds(self, topic: str) -> list[Bounds]:
        self._look()
        found = self._topic(topic)
        return [self._store.bounds(found, partition) for partition in range(found.spec.partitions)]

    def _topic(self, name: str) -> Topic:
        topic = self._store.topic(name)
        if topic is None:
            self._store.refresh()
            topic = self._store.topic(name)
        if topic is None:
            raise missing(name, self.url)
        return topic

    # Writing

    def append(self, messages: Sequence[Message]) -> None:
        """Append outside of any transaction; when this returns, the messages are durable, in order per partition."""
        if not messages:
            return
        if self._writing is None:
            self._append_to_spool(messages)
        else:
            self._write(lambda writing, batch: writing.stage_messages(batch, messages))

    def append_columns(
        self,
        topic: str,
        keys: Sequence[bytes | None],
        values: Sequence[bytes | None],
        timestamps_ms: Sequence[int],
    ) -> None:
        """Like `append`, for many messages of one topic as columns of the same length: four times as fast."""
        if not keys:
            return
        if self._writing is None:
            rows = zip(keys, values, timestamps_ms, strict=True)
            self._append_to_spool([Message(topic, key, value, ts) for key, value, ts in rows])
        else:
            self._write(lambda writing, batch: writing.stage_columns(batch, topic, keys, values, timestamps_ms))

    def _append_to_spool(self, messages: Sequence[Message]) -> None:
        if self._spool is None:
            raise LogError(f"log {self._store.path}: opened for reading, cannot append")
        for name in {m.topic for m in messages}:
            spec = self._topic(name).spec
            group = [m for m in messages if m.topic == name]
            widest = max(sum(len(k) + len(v) for k, v in m.headers) for m in group)
            check_sizes(spec, [m.key for m in group], [m.value for m in group], widest)
            by_partition(spec, [m.key for m in group], [m.partition for m in group])
        self._spool.put(messages)

    def _write(self, stage: Callable[[LogWriter, WriteBatch], Callable[[], None]]) -> None:
        writing = self._writing
        assert writing is not None
        if self._mode == "reader":
            raise LogError(f"log {self._store.path}: opened for reading, cannot append")
        with writing.store.changed:
            batch = WriteBatch(raw_mode=True)
            done = stage(writing, batch)
            writing.store.write(batch)
            done()
            writing.wrote()
            writing.store.changed.notify_all()

    def claim(self, worker_id: str) -> None:
        """Become the one writer that may `commit` as this worker; an earlier one gets `WriterFenced` from then on."""
        if self._writing is None or self._mode != "owner":
            raise LogError(
                f"log {self._store.path}: opened as {self._mode}, only an owner may claim worker {worker_id}"
            )
        store = self._writing.store
        with store.lock:
            before = store.writer(worker_id)
            writer = Writer(before.epoch + 1, before.positions)
            batch = WriteBatch(raw_mode=True)
            batch[writer_key(worker_id)] = msgspec.msgpack.encode(writer)
            store.write(batch)
            store.writers[worker_id] = writer
            self._worker, self._epoch = worker_id, writer.epoch

    def prepare(self, positions: Mapping[TopicPartition, int], partitions: Sequence[TopicPartition]) -> None:
        """Nothing: a commit is one write."""

    def commit(self, messages: Sequence[Message], positions: Mapping[TopicPartition, int]) -> None:
        """Append the messages and record the input positions of the claimed worker, all or nothing, durably."""
        if self._worker is None:
            raise LogError(f"log {self._store.path}: commit without `claim` first")
        worker_id = self._worker

        def stage(writing: LogWriter, batch: WriteBatch) -> Callable[[], None]:
            before = writing.store.writer(worker_id)
            if before.epoch != self._epoch:
                raise WriterFenced(
                    f"worker {worker_id} on log {self._store.path}: epoch {self._epoch} was replaced by {before.epoch}"
                    ": another process or thread runs as this worker, this one must stop"
                )
            writer = Writer(self._epoch, {topic: list(offsets) for topic, offsets in before.positions.items()})
            for tp, offset in positions.items():
                offsets = writer.positions.setdefault(tp.topic, [])
                offsets += [-1] * (tp.partition + 1 - len(offsets))
                offsets[tp.partition] = offset
            publish = writing.stage_messages(batch, messages)
            batch[writer_key(worker_id)] = msgspec.msgpack.encode(writer)

            def done() -> None:
                publish()
                writing.store.writers[worker_id] = writer

            return done

        self._write(stage)

    def committed(self, worker_id: str) -> dict[TopicPartition, int]:
        """The positions of the worker's last commit; empty when there was none."""
        self._store.refresh()
        flat = positions_of(self._store.writer(worker_id))
        return {TopicPartition(topic, partition): offset for (topic, partition), offset in flat.items()}

    # Reading

    def poll(self, positions: Mapping[TopicPartition, int], max_records: int, max_wait_ms: int) -> list[RecordBatch]:
        """Committed records from these positions on; waits at most `max_wait_ms` for the first."""
        deadline = time.monotonic() + max_wait_ms / 1000
        while True:
            self._look()
            batches = self._take(positions, max_records)
            left = deadline - time.monotonic()
            if batches or left <= 0:
                return batches
            self._wait(positions, left)

    def drain(self) -> None:
        """Take in all that waits in the spool; the owner's polls do it in portions."""
        if self._writing is not None:
            with self._writing.store.lock:
                while self._writing.spool.take_in():
                    self._writing.wrote()

    def _look(self) -> None:
        """See what others wrote: the spool for the writer, the writer's files for a reader."""
        if self._writing is None:
            self._store.refresh()
            return
        with self._writing.store.lock:
            self._writing.spool.take_in()
            self._writing.keep()

    def _wait(self, positions: Mapping[TopicPartition, int], left_s: float) -> None:
        if self._writing is None:
            self._store.wait(left_s)
            return
        store = self._writing.store
        with store.changed:  # checked under the lock: an append between looking and waiting is not missed
            if not any(self._bounds(tp).end > offset for tp, offset in positions.items()):
                store.wait(min(left_s, _SPOOL_TICK_S))

    def _bounds(self, tp: TopicPartition) -> Bounds:
        topic = self._topic(tp.topic)
        if not 0 <= tp.partition < topic.spec.partitions:
            raise LogError(f"{tp}: the topic has {topic.spec.partitions} partitions")
        return self._store.bounds(topic, tp.partition)

    def _take(self, positions: Mapping[TopicPartition, int], max_records: int) -> list[RecordBatch]:
        waiting: dict[TopicPartition, int] = {}
        for tp, offset in positions.items():
            bounds = self._bounds(tp)
            if not bounds.begin <= offset <= bounds.end:
                raise OffsetOutOfRange(
                    f"{tp} of log {self._store.path}: offset {offset} asked for, "
                    f"there are [{bounds.begin}, {bounds.end})"
                )
            if bounds.end > offset:
                waiting[tp] = bounds.end - offset
        batches = []
        it = self._store.iterator() if waiting else None
        for tp, quota in self._shares(waiting, max_records):
            start = positions[tp]
            batch = self._collect(it, tp, start, start + waiting[tp], quota)
            if batch.next_offset > start:
                batches.append(batch)
        return batches

    def _shares(self, waiting: Mapping[TopicPartition, int], max_records: int) -> list[tuple[TopicPartition, int]]:
        """How many records each partition may give: equal parts, what one does not need goes to the others."""
        order = sorted(waiting, key=waiting.__getitem__)
        quotas: dict[TopicPartition, int] = {}
        left = max_records
        for i, tp in enumerate(order):
            quotas[tp] = min(waiting[tp], left // (len(order) - i))
            left -= quotas[tp]
        # Fewer records than partitions: the turn decides, and it moves on.
        names = sorted(waiting)
        self._turn += 1
        for i in range(len(names)):
            tp = names[(self._turn + i) % len(names)]
            if not quotas[tp] and left > 0:
                quotas[tp], left = 1, left - 1
        return [(tp, quotas[tp]) for tp in names if quotas[tp]]

    def _collect(self, it: Any, tp: TopicPartition, start: int, stop: int, limit: int) -> RecordBatch:
        """Up to `limit` records of [start, stop), in as many reads as there are entries."""
        topic = self._topic(tp.topic)
        columns = Columns()
        prefix = entry_key(topic.id, tp.partition, 0)[:-8]
        with explained(self._store.path, f"read {tp}"):
            it.seek_for_prev(entry_key(topic.id, tp.partition, start))
            if not it.valid() or it.key()[:-8] != prefix:
                it.seek(entry_key(topic.id, tp.partition, start))
            while len(columns.offsets) < limit and it.valid():
                key = it.key()
                base = offset_of(key)
                if key[:-8] != prefix or base >= stop:
                    break
                unpack_into(columns, it.value(), base, start, stop, limit - len(columns.offsets))
                it.next()
        full = len(columns.offsets) >= limit
        return columns.batch(tp.topic, tp.partition, columns.offsets[-1] + 1 if full and columns.offsets else stop)

    def read(self, span: OffsetRange) -> RecordBatch:
        """Exactly the committed records of the range, for recovery; `OffsetOutOfRange` when some are gone."""
        tp = TopicPartition(span.topic, span.partition)
        bounds = self._bounds(tp)
        if span.stop > bounds.end:
            self._look()
            bounds = self._bounds(tp)
        if not bounds.begin <= span.start <= span.stop <= bounds.end:
            raise OffsetOutOfRange(
                f"{tp} of log {self._store.path}: offsets [{span.start}, {span.stop}) asked for, "
                f"there are [{bounds.begin}, {bounds.end})"
            )
        return self._collect(self._store.iterator(), tp, span.start, span.stop, span.stop - span.start)

    def close(self) -> None:
        """Release everything; a second call does nothing."""
        if self._closed:
            return
        self._closed = True
        self._store.release()
        if self._spool is not None:
            self._hand_over()

    def _hand_over(self) -> None:
        """A producer that leaves takes its spool in itself when no writer runs, so that readers see what it wrote."""
        try:
            with EmbeddedLog(self._store.path, "owner", clock_ms=self._clock_ms) as owner:
                owner.drain()
        except LogInUse:
            return

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
