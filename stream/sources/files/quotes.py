"""Quotes of CSV: cells that hold separators, and records that hold newlines."""

from __future__ import annotations

import csv
from collections import deque
from collections.abc import Iterator
from typing import Final

from stream.schema.events import MAX_RECORD_BYTES

_MAX_LINES: Final = 1000  # of one record: a quote that is never closed must not swallow the file
_UNCLOSED: Final = "unexpected end of data"  # what the csv module says of an open quote


def split_quoted(record: bytes, separator: bytes | None) -> list[bytes]:
    """Split one record; quotes as in CSV, `separator` None for blanks. A record that cannot be split comes back whole.

    >>> split_quoted(b'a,"b, c",d', b",")
    [b'a', b'b, c', b'd']
    """
    if separator is None or b'"' not in record or len(separator) > 1:
        return record.split(separator)
    try:
        return _parse(record, separator)
    except (csv.Error, StopIteration):
        return [record]


def join_quoted(lines: Iterator[bytes], separator: bytes) -> Iterator[bytes]:
    r"""Yield records: a line whose quote is open gets the lines up to the one that closes it.

    Where none closes it within 64 KiB, or where the result is no CSV, the line stands alone.

    >>> list(join_quoted(iter([b'a,"good', b'very good"', b'b,"x', b"c,y"]), b","))
    [b'a,"good\nvery good"', b'b,"x', b'c,y']
    """
    waiting: deque[bytes] = deque()  # lines behind one that stands alone
    while True:
        line = waiting.popleft() if waiting else next(lines, None)
        if line is None:
            return
        if b'"' not in line or not _is_open(line, separator):
            yield line
            continue
        parts, size = [line], len(line)
        while len(parts) < _MAX_LINES and size <= MAX_RECORD_BYTES:
            more = waiting.popleft() if waiting else next(lines, None)
            if more is None:
                break
            parts.append(more)
            size += len(more)
            if b'"' in more and not _is_open(b"\n".join(parts), separator):
                break
        record = b"\n".join(parts)
        if len(parts) > 1 and len(split_quoted(record, separator)) > 1:
            yield record
        else:
            yield line
            waiting.extendleft(reversed(parts[1:]))


def _is_open(record: bytes, separator: bytes) -> bool:
    try:
        _parse(record, separator)
    except csv.Error as exc:
        return str(exc) == _UNCLOSED
    except StopIteration:
        pass
    return False


def _parse(record: bytes, separator: bytes) -> list[bytes]:
    text = record.decode(errors="surrogateescape")
    row = next(csv.reader([text], delimiter=separator.decode(), strict=True))
    return [cell.encode(errors="surrogateescape") for cell in row]


__all__ = ["join_quoted", "split_quoted"]
