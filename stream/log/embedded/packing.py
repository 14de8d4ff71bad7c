"""How records lie in one entry of the embedded log: arrays side by side, so that a thousand records are one read.

An entry: a header (format, flags, number of records, next offset, time of the append), then the columns
timestamps int64, key lengths int32, value lengths int32 (-1: null), offset deltas uint32 (only after a compaction),
header lengths uint32 (only where a record has headers), then the bytes of all keys, all values, all headers.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from stream.log.base import Headers, LogError
from stream.log.columns import RecordColumns

ENTRY_FORMAT = 1
_HEADER = struct.Struct("<BBHIqq")  # format, flags, unused, records, next offset, appended at (epoch ms)
_HAS_DELTAS = 1
_HAS_HEADERS = 2
_NO_HEADERS: Headers = ()
_encode_headers = msgspec.msgpack.Encoder().encode
_decode_headers = msgspec.msgpack.Decoder(tuple[tuple[str, bytes], ...]).decode

Bytes = Sequence[bytes | None]


@dataclass(frozen=True, slots=True)
class EntryInfo:
    """The fixed part of an entry."""

    records: int
    next_offset: int
    appended_ms: int


def _lengths(column: Bytes) -> npt.NDArray[np.int32]:
    return np.fromiter([-1 if x is None else len(x) for x in column], dtype=np.int32, count=len(column))


def _joined(column: Bytes) -> bytes:
    return b"".join([x for x in column if x is not None])


def pack(
    keys: Bytes,
    values: Bytes,
    timestamps_ms: Sequence[int],
    headers: Sequence[Headers] | None,
    *,
    next_offset: int,
    appended_ms: int,
    deltas: Sequence[int] | None = None,
) -> bytes:
    """One entry. `headers` None: no record has any; `deltas`: offset minus the entry's base offset, None: 0, 1, 2, …"""
    n = len(keys)
    with_headers = headers is not None and any(headers)
    flags = (_HAS_DELTAS if deltas is not None else 0) | (_HAS_HEADERS if with_headers else 0)
    parts = [
        _HEADER.pack(ENTRY_FORMAT, flags, 0, n, next_offset, appended_ms),
        np.array(timestamps_ms, dtype="<i8").tobytes(),
        _lengths(keys).astype("<i4", copy=False).tobytes(),
        _lengths(values).astype("<i4", copy=False).tobytes(),
    ]
    if deltas is not None:
        parts.append(np.array(deltas, dtype="<u4").tobytes())
    tail = b""
    if with_headers and headers is not None:
        encoded = [_encode_headers(h) if h else b"" for h in headers]
        parts.append(np.array([len(h) for h in encoded], dtype="<u4").tobytes())
        tail = b"".join(encoded)
    parts += [_joined(keys), _joined(values), tail]
    return b"".join(parts)


def info(raw: bytes) -> EntryInfo:
    """The fixed part; `LogError` for an entry of another format."""
    version, _, _, records, next_offset, appended_ms = _HEADER.unpack_from(raw)
    if version != ENTRY_FORMAT:
        raise LogError(f"entry of format {version}, this version reads {ENTRY_FORMAT}: update intentstream")
    return EntryInfo(records, next_offset, appended_ms)


def _cells(
    raw: bytes, lengths: npt.NDArray[np.int32], at: int, first: int, last: int
) -> tuple[list[bytes | None], int]:
    """Cells [first, last) of a byte column that begins at `at`, and where the column ends; a length of -1 is null."""
    sizes = np.maximum(lengths, 0)
    ends = np.cumsum(sizes, dtype=np.int64) + at
    begins = (ends - sizes)[first:last].tolist()
    wanted = lengths[first:last]
    cells: list[bytes | None] = [raw[a:b] for a, b in zip(begins, ends[first:last].tolist(), strict=True)]
    if len(wanted) and wanted.min() < 0:
        for i in np.flatnonzero(wanted < 0).tolist():
            cells[i] = None
    return cells, int(ends[-1]) if len(ends) else at


def unpack(raw: bytes, base: int, start: int, stop: int, limit: int) -> RecordColumns:
    """The records of an entry with start <= offset < stop, at most `limit` of them.

    base: offset of the entry's first record, from its key.
    """
    version, flags, _, n, _, _ = _HEADER.unpack_from(raw)
    if version != ENTRY_FORMAT:
        info(raw)  # raises
    at = _HEADER.size
    timestamps = np.frombuffer(raw, "<i8", n, at)
    at += 8 * n
    key_lengths = np.frombuffer(raw, "<i4", n, at)
    at += 4 * n
    value_lengths = np.frombuffer(raw, "<i4", n, at)
    at += 4 * n
    if flags & _HAS_DELTAS:
        offsets = np.frombuffer(raw, "<u4", n, at).astype(np.int64) + base
        at += 4 * n
        first, last = (int(i) for i in np.searchsorted(offsets, [start, stop]))
        last = min(last, first + limit)
        found = offsets[first:last].tolist()
    else:
        first = max(start - base, 0)
        last = min(stop - base, n, first + limit)
        if last <= first:
            return RecordColumns()
        found = list(range(base + first, base + last))
    header_lengths = None
    if flags & _HAS_HEADERS:
        header_lengths = np.frombuffer(raw, "<u4", n, at).astype(np.int32)
        at += 4 * n
    keys, at = _cells(raw, key_lengths, at, first, last)
    values, at = _cells(raw, value_lengths, at, first, last)
    headers = [_NO_HEADERS] * (last - first)
    if header_lengths is not None:
        encoded, _ = _cells(raw, header_lengths, at, first, last)
        headers = [_decode_headers(h) if h else _NO_HEADERS for h in encoded]
    return RecordColumns(found, keys, values, timestamps[first:last].tolist(), headers)
