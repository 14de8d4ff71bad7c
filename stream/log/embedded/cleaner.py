"""Retention and compaction of the embedded log, in small portions beside the appends.

Every portion is one atomic write and correct by itself, so a crash between two of them costs nothing but work.
Retention counts from the time of the append, not from the message's timestamp: a replay of old events must not be
deleted as it arrives.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Final

from rocksdict import WriteBatch

from stream.log.columns import RecordColumns
from stream.log.embedded.folder import explained
from stream.log.embedded.layout import Bounds, Topic, entry_key, offset_of, partition_key
from stream.log.embedded.packing import info, pack, unpack
from stream.log.embedded.primary import PrimaryStore

TOMBSTONE_KEPT_MS: Final = 24 * 3600 * 1000  # readers that lag less than this see every deletion, as in Kafka
ENTRY_RECORDS: Final = 1024
ENTRY_BYTES: Final = 256 * 1024
_MIN_DIRTY: Final = 2_000  # records before a compaction is worth starting
_MAX_MAP: Final = 500_000  # keys held in memory by one compaction
_FEW_RECORDS: Final = 4_000  # a portion's least
_NO_END: Final = 2**62


@dataclass(slots=True)
class _Compaction:
    """A compaction under way: first the newest offset per key of [start, stop), then the entries again."""

    start: int
    stop: int
    mapped_to: int
    newest: dict[bytes | None, int] = field(default_factory=dict)
    cursor: int = -1  # -1: still mapping
    live: int = 0


class LogCleaner:
    """Keeps the partitions of one store within their retention. The caller holds the store's lock."""

    def __init__(self, store: PrimaryStore) -> None:
        self._store = store
        self._compactions: dict[tuple[int, int], _Compaction] = {}

    def run(self, now_ms: int, records: int) -> None:
        """One portion of work for every partition.

        Parameters
        ----------
        now_ms
            Time against which age is counted, epoch milliseconds.
        records
            Records appended since the last call: the work is proportional to it, so that it keeps up and stays bounded.
        """
        with explained(self._store.path, "remove what retention no longer keeps"):
            for topic in self._store.topics.values():
                for partition in range(topic.spec.partitions):
                    if topic.spec.cleanup == "compact":
                        self._compact(topic, partition, now_ms, max(_FEW_RECORDS, 8 * records))
                    else:
                        self._expire(topic, partition, now_ms, max(64, records))

    def _expire(self, topic: Topic, partition: int, now_ms: int, max_entries: int) -> None:
        """Delete the oldest entries that no rule keeps."""
        spec = topic.spec
        bounds = self._store.bounds(topic, partition)
        begin, size = bounds.begin, bounds.size
        if begin == bounds.end or (spec.retention_ms is spec.retention_bytes is spec.retention_records is None):
            return
        it = self._store.iterator()
        it.seek(entry_key(topic.id, partition, begin))
        for _ in range(max_entries):
            if begin >= bounds.end or not it.valid():
                break
            raw = it.value()
            entry = info(raw)
            too_old = spec.retention_ms is not None and entry.appended_ms < now_ms - spec.retention_ms
            too_big = spec.retention_bytes is not None and size - len(raw) >= spec.retention_bytes
            too_many = spec.retention_records is not None and bounds.end - entry.next_offset >= spec.retention_records
            if not (too_old or too_big or too_many):
                break
            begin, size = entry.next_offset, size - len(raw)
            it.next()
        it.status()
        if begin == bounds.begin:
            return
        batch = WriteBatch(raw_mode=True)
        batch.delete_range(entry_key(topic.id, partition, bounds.begin), entry_key(topic.id, partition, begin))
        self._save(batch, topic, partition, replace(bounds, begin=begin, size=size))

    def _save(self, batch: WriteBatch, topic: Topic, partition: int, bounds: Bounds) -> None:
        batch[partition_key(topic.id, partition)] = bounds.pack()
        # Not synced: what is lost in a crash is done again, and the log's order keeps it before any later commit.
        self._store.write(batch, sync=False)
        self._store.set_bounds(topic.id, partition, bounds)

    def _compact(self, topic: Topic, partition: int, now_ms: int, budget: int) -> None:
        """Go on with the partition's compaction, or start one when enough is new."""
        bounds = self._store.bounds(topic, partition)
        run = self._compactions.get((topic.id, partition))
        if run is None:
            if bounds.end - bounds.cleaned < max(_MIN_DIRTY, bounds.live // 2):
                return
            run = _Compaction(bounds.cleaned, bounds.end, bounds.cleaned)
            self._compactions[topic.id, partition] = run
        it = self._store.iterator()
        while budget > 0:
            budget -= (
                self._map(it, topic, partition, run)
                if run.cursor < 0
                else self._rewrite(it, topic, partition, run, now_ms)
            )
            if run.cursor >= run.stop:
                bounds = self._store.bounds(topic, partition)
                done = replace(bounds, cleaned=run.stop, live=run.live)
                self._save(WriteBatch(raw_mode=True), topic, partition, done)
                del self._compactions[topic.id, partition]
                return

    def _map(self, it: Any, topic: Topic, partition: int, run: _Compaction) -> int:
        """Note the newest offset of the keys of one entry; returns the records read."""
        prefix = entry_key(topic.id, partition, 0)[:-8]
        it.seek_for_prev(entry_key(topic.id, partition, run.mapped_to))
        if it.valid() and it.key()[:-8] == prefix and info(it.value()).next_offset <= run.mapped_to:
            it.next()
        elif not it.valid() or it.key()[:-8] != prefix:
            it.seek(entry_key(topic.id, partition, run.mapped_to))
        it.status()
        if not it.valid() or it.key()[:-8] != prefix or offset_of(it.key()) >= run.stop:
            run.cursor = self._store.bounds(topic, partition).begin
            return 1
        raw = it.value()
        columns = unpack(raw, offset_of(it.key()), run.mapped_to, run.stop, ENTRY_RECORDS)
        run.newest.update(zip(columns.keys, columns.offsets, strict=True))
        run.mapped_to = info(raw).next_offset
        if len(run.newest) >= _MAX_MAP:
            run.stop = min(run.stop, run.mapped_to)
        if run.mapped_to >= run.stop:
            run.cursor = self._store.bounds(topic, partition).begin
        return max(1, len(columns.offsets))

    def _rewrite(self, it: Any, topic: Topic, partition: int, run: _Compaction, now_ms: int) -> int:
        """Write a few entries again without the records that a newer one replaces; returns the records read."""
        prefix = entry_key(topic.id, partition, 0)[:-8]
        it.seek(entry_key(topic.id, partition, run.cursor))
        columns, read, freed, appended = RecordColumns(), 0, 0, 0
        old: list[bytes] = []
        while it.valid() and it.key()[:-8] == prefix and read < ENTRY_RECORDS:
            key, raw = it.key(), it.value()
            entry = info(raw)
            if entry.next_offset > run.stop:
                break
            if old and entry.appended_ms - appended > TOMBSTONE_KEPT_MS:
                break  # one age per entry: do not make new tombstones look old, or old ones new
            if not old:
                appended = entry.appended_ms
            appended = max(appended, entry.appended_ms)
            columns.extend(unpack(raw, offset_of(key), 0, _NO_END, ENTRY_RECORDS))
            old.append(key)
            freed += len(raw)
            read += entry.records
            run.cursor = entry.next_offset
            it.next()
        it.status()
        if not old:
            run.cursor = run.stop
            return 1
        keep_tombstones = now_ms - appended < TOMBSTONE_KEPT_MS
        newest = run.newest
        kept = [
            i
            for i, (offset, key, value) in enumerate(zip(columns.offsets, columns.keys, columns.values, strict=True))
            if newest.get(key, -1) <= offset and (value is not None or keep_tombstones)
        ]
        run.live += len(kept)
        if len(kept) == len(columns.offsets) and len(old) == 1:
            return read
        self._replace(topic, partition, old, columns, kept, freed, appended)
        return read

    def _replace(
        self,
        topic: Topic,
        partition: int,
        old: list[bytes],
        columns: RecordColumns,
        kept: list[int],
        freed: int,
        appended_ms: int,
    ) -> None:
        batch = WriteBatch(raw_mode=True)
        for key in old:
            del batch[key]
        added = 0
        for chunk in chunks([len(columns.values[i] or b"") for i in kept]):
            rows = kept[chunk]
            base = columns.offsets[rows[0]]
            raw = pack(
                [columns.keys[i] for i in rows],
                [columns.values[i] for i in rows],
                [columns.timestamps_ms[i] for i in rows],
                [columns.headers[i] for i in rows],
                next_offset=columns.offsets[rows[-1]] + 1,
                appended_ms=appended_ms,
                deltas=[columns.offsets[i] - base for i in rows],
            )
            batch[entry_key(topic.id, partition, base)] = raw
            added += len(raw)
        bounds = self._store.bounds(topic, partition)
        self._save(batch, topic, partition, replace(bounds, size=bounds.size - freed + added))


def chunks(sizes: list[int]) -> list[slice]:
    """Split records of these sizes into entries that are neither too long nor too large."""
    if len(sizes) <= ENTRY_RECORDS and sum(sizes) <= ENTRY_BYTES:
        return [slice(0, len(sizes))] if sizes else []
    slices, start, size = [], 0, 0
    for i, value in enumerate(sizes):
        if i > start and (i - start >= ENTRY_RECORDS or size + value > ENTRY_BYTES):
            slices.append(slice(start, i))
            start, size = i, 0
        size += value
    slices.append(slice(start, len(sizes)))
    return slices
