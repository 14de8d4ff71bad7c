"""What a fetch from Kafka brought, a batch at a time as columns.

kafka-python makes an object of every record and of every one of its parts; here the same bytes become the lists of a
`RecordBatch`. A batch that cannot be read is an error that every further poll repeats, where kafka-python 3.0.12 runs
into an endless loop after an error in the middle of a partition's records.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Any, Final

import kafka.errors as errors
from kafka.consumer.fetcher import Fetcher, IsolationLevel
from kafka.record.default_records import DefaultRecordBatch

from stream.log.base import Headers
from stream.log.kafka.decoder import FetchedColumns, RecordDecoder

_NO_HEADERS: Final[Headers] = ()


def unpack(data: bytes, count: int, base_offset: int, timestamp_ms: int, deltas: bool) -> FetchedColumns:
    """The records of a batch of format 2, from the uncompressed bytes after its header.

    Parameters
    ----------
    timestamp_ms, deltas
        The time of every record, or with `deltas` the time to which each adds its own.

    Raises
    ------
    CorruptRecordError
        The bytes are not that many records.
    """
    try:
        columns, end = _parse(data, count, base_offset, timestamp_ms, deltas)
    except IndexError:
        end = -1
    if end != len(data):
        raise errors.CorruptRecordError(f"the batch at offset {base_offset} is not {count} records")
    return columns


def _parse(data: bytes, count: int, base_offset: int, timestamp_ms: int, deltas: bool) -> tuple[FetchedColumns, int]:
    """The records, and where they end."""
    offsets: list[int] = []
    keys: list[bytes | None] = []
    values: list[bytes | None] = []
    times = [timestamp_ms] * count
    headers = [_NO_HEADERS] * count
    at = 0
    # Varints are zigzag; most are of one or two bytes, and the call for a longer one costs as much as the rest.
    for row in range(count):
        while data[at] > 127:  # length
            at += 1
        at += 2  # its last byte, and the attributes
        if deltas:
            delta, at = _varint(data, at)
            times[row] += delta
        else:
            while data[at] > 127:
                at += 1
            at += 1
        size = data[at]
        at += 1
        if size > 127:
            if data[at] > 127:
                size, at = _raw(data, at - 1)
            else:
                size += (data[at] << 7) - 128
                at += 1
        offsets.append(base_offset + (size >> 1))
        for column in (keys, values):
            size = data[at]
            at += 1
            if size > 127:
                if data[at] > 127:
                    size, at = _raw(data, at - 1)
                else:
                    size += (data[at] << 7) - 128
                    at += 1
            if size & 1:
                column.append(None)
            else:
                end = at + (size >> 1)
                column.append(data[at:end])
                at = end
        if data[at]:
            headers[row], at = _headers(data, at)
        else:
            at += 1
    return FetchedColumns(offsets, keys, values, times, headers), at


def _raw(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value, at = _raw(data, at)
    return (value >> 1) ^ -(value & 1), at


def _headers(data: bytes, at: int) -> tuple[Headers, int]:
    """Headers as pairs: bytes of a name that are not UTF-8 become escapes, a missing value an empty one."""
    count, at = _varint(data, at)
    found = []
    for _ in range(count):
        size, at = _varint(data, at)
        name = data[at : at + size].decode("utf-8", "backslashreplace")
        at += size
        size, at = _varint(data, at)
        found.append((name, data[at : at + max(0, size)]))
        at += max(0, size)
    return tuple(found), at


def from_offset(columns: FetchedColumns, offset: int) -> FetchedColumns:
    """The records from this offset on: a batch comes whole, wherever in it the fetch began."""
    if not columns.offsets or columns.offsets[0] >= offset:
        return columns
    a = bisect_left(columns.offsets, offset)
    return FetchedColumns(
        columns.offsets[a:], columns.keys[a:], columns.values[a:], columns.timestamps_ms[a:], columns.headers[a:]
    )


class FastDecoder(RecordDecoder):
    """Makes a consumer return `FetchedColumns`, one for a batch, instead of records."""

    def __init__(self, consumer: Any) -> None:
        consumer._fetcher.PartitionRecords = ColumnRecords  # noqa: SLF001

    def columns(self, records: Sequence[FetchedColumns]) -> FetchedColumns:
        """The batches of one partition as columns."""
        if len(records) == 1:
            return records[0]
        joined = FetchedColumns(error=records[-1].error)
        for batch in records:
            joined.extend(batch)
        return joined


class ColumnRecords(Fetcher.PartitionRecords):  # type: ignore[misc]  # kafka-python has no annotations
    """Replaces the class of the client's fetcher: `take` returns `FetchedColumns`, one for a batch, not records."""

    def _maybe_skip_record(self, record: FetchedColumns) -> bool:
        return False  # `from_offset` has done it

    def _unpack_records(self, tp: Any, records: Any, *deserializers: Any) -> Iterator[FetchedColumns]:
        try:
            while (batch := records.next_batch()) is not None:
                columns = self._old(batch) if batch.magic < 2 else self._batch(batch)
                if columns is not None and columns.offsets:
                    yield from_offset(columns, self.fetch_offset)
        except Exception as exc:  # an error raised here would leave the client's fetcher in an endless loop
            yield FetchedColumns(error=exc)
        self.drain()

    def _batch(self, batch: Any) -> FetchedColumns | None:
        """The batch as columns; None when readers must not see its records (aborted, or control records)."""
        if self.check_crcs and not batch.validate_crc():
            raise errors.CorruptRecordError(f"the batch at offset {batch.base_offset} failed its CRC check")
        columns = self._seen(batch)
        self.leader_epoch, self.next_fetch_offset = batch.leader_epoch, batch.next_offset
        self.bytes_read += batch.size_in_bytes
        return columns

    def _seen(self, batch: Any) -> FetchedColumns | None:
        if self.isolation_level == IsolationLevel.READ_COMMITTED and batch.has_producer_id():
            self._consume_aborted_transactions_up_to(batch.last_offset)
            if self._contains_abort_marker(batch):
                self.aborted_producer_ids.discard(batch.producer_id)
            elif self._is_batch_aborted(batch):
                return None
        if batch.is_control_batch:
            return None
        iter(batch)  # uncompresses
        data = bytes(memoryview(batch._buffer)[batch._pos :])  # noqa: SLF001  # there is no public way to the bytes
        own = batch.timestamp_type == DefaultRecordBatch.LOG_APPEND_TIME
        stamp = batch.max_timestamp if own else batch.first_timestamp
        return unpack(data, batch.records_count, batch.base_offset, stamp, not own)

    def _old(self, batch: Any) -> FetchedColumns:
        """A batch that was written before Kafka 0.11: no transactions, no headers."""
        records = list(batch)
        self.next_fetch_offset = records[-1].offset + 1
        self.bytes_read += sum(r.size_in_bytes for r in records)
        return FetchedColumns(
            [r.offset for r in records],
            [r.key for r in records],
            [r.value for r in records],
            [r.timestamp or 0 for r in records],
            [_NO_HEADERS] * len(records),
        )
