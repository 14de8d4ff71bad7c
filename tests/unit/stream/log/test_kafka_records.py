"""Fetched batches as columns: the same records as kafka-python's own reading of the same bytes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import kafka
import kafka.errors as errors
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.record.default_records import DefaultRecordBatchBuilder
from kafka.record.memory_records import MemoryRecords, MemoryRecordsBuilder

from stream.log.kafka.decoder import FetchedColumns
from stream.log.kafka.fast.records import ColumnRecords

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
TP = kafka.TopicPartition("events", 0)
LONG = st.integers(0, 2**20).map(lambda size: b"x" * size)
BYTES = st.none() | st.binary(max_size=100) | LONG
ROWS = st.lists(
    st.tuples(
        BYTES,
        BYTES,
        st.integers(0, 2**45),
        st.lists(st.tuples(st.text(max_size=5), st.binary(max_size=100)), max_size=3),
    ),
    min_size=1,
    max_size=30,
)


def batch_of(rows: Sequence[Any], codec: int = 0, base: int = 0, spread: int = 1) -> bytes:
    """One batch of format 2; `spread` above 1 leaves offsets out, as compaction does."""
    builder = DefaultRecordBatchBuilder(
        magic=2,
        compression_type=codec,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=2**30,
    )
    for i, (key, value, ts, headers) in enumerate(rows):
        builder.append(spread * i, ts, key, value, headers)
    data = builder.build()
    data[:8] = base.to_bytes(8, "big")  # which its checksum does not cover
    return bytes(data)


def columns_of(data: bytes, offset: int = 0) -> list[FetchedColumns]:
    records = ColumnRecords(offset, TP, MemoryRecords(data))
    taken: list[FetchedColumns] = records.take(2**31 - 1)
    return taken


def rows_of(found: Sequence[FetchedColumns]) -> list[tuple[Any, ...]]:
    assert all(columns.error is None for columns in found)
    return [row for c in found for row in zip(c.offsets, c.keys, c.values, c.timestamps_ms, c.headers, strict=True)]


@given(ROWS, st.sampled_from(sorted(CODECS)), st.integers(0, 2**40), st.sampled_from([1, 5000]))
def test_the_same_records_as_the_clients_own(rows: list[Any], codec: str, base: int, spread: int) -> None:
    data = batch_of(rows, CODECS[codec], base, spread)
    expected = [(base + spread * i, k, v, ts, tuple(h)) for i, (k, v, ts, h) in enumerate(rows)]
    assert rows_of(columns_of(data, base)) == expected
    own = [(r.offset, r.key, r.value, r.timestamp, tuple(r.headers)) for r in next(iter(MemoryRecords(data)))]
    assert own == expected


def test_a_fetch_that_begins_within_a_batch_and_goes_on_in_the_next() -> None:
    rows: list[Any] = [(b"k", b"%d" % i, i, []) for i in range(10)]
    data = batch_of(rows) + batch_of(rows, CODECS["zstd"], 10)
    assert [row[0] for row in rows_of(columns_of(data, 7))] == [7, 8, 9, *range(10, 20)]


@pytest.mark.parametrize("magic", [0, 1])
def test_batches_of_before_kafka_0_11(magic: int) -> None:
    builder = MemoryRecordsBuilder(magic=magic, compression_type=0, batch_size=1000, offset=0)
    for i in range(3):
        builder.append(timestamp=i, key=b"k", value=b"%d" % i, headers=[])
    builder.close()
    found = rows_of(columns_of(bytes(builder.buffer()), 1))
    assert [(row[0], row[1], row[2]) for row in found] == [(1, b"k", b"1"), (2, b"k", b"2")]


def test_a_batch_that_cannot_be_read_is_an_error_after_what_came_before() -> None:
    rows: list[Any] = [(b"k", b"v", 0, [])]
    spoilt = bytearray(batch_of(rows, base=1))
    spoilt[-1] ^= 1
    good, bad = columns_of(batch_of(rows) + bytes(spoilt))
    assert (good.offsets, good.error) == ([0], None)
    assert (bad.offsets, type(bad.error)) == ([], errors.CorruptRecordError)
