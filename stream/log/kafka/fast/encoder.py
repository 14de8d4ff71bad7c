"""Messages as the bytes of record batches (format 2), in one loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from stream.log.base import Headers, Message


class Encoded(NamedTuple):
    """The records of a batch, as they stand after its header."""

    data: bytes
    number: int
    first_ms: int
    last_ms: int  # the latest


def _varint(value: int) -> bytes:
    """Zigzag, seven bits a byte."""
    value = (value << 1) ^ (value >> 63)
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)


_SHORT: Final = [_varint(value) for value in range(8192)]  # those of one and two bytes
_NONE: Final = _varint(-1)


def _number(value: int) -> bytes:
    return _SHORT[value] if 0 <= value < 8192 else _varint(value)


def _data(value: bytes | None) -> bytes:
    return _NONE if value is None else _number(len(value)) + value


def _headers(headers: Headers) -> bytes:
    return _number(len(headers)) + b"".join(_data(name.encode()) + _data(value) for name, value in headers)


def encoded(messages: Sequence[Message], most_bytes: int) -> Iterator[Encoded]:
    """The messages as batches of at most so many bytes; a larger message is a batch of its own."""
    parts: list[bytes] = []
    size = count = first = last = 0
    for message in messages:
        ts = message.timestamp_ms
        key, value, headers = _data(message.key), _data(message.value), message.headers
        while True:
            delta = _number(ts - first) if count else b"\0"
            body = b"".join((b"\0", delta, _number(count), key, value, _headers(headers) if headers else b"\0"))
            head = _number(len(body))
            if not count or size + len(head) + len(body) <= most_bytes:
                break
            yield Encoded(b"".join(parts), count, first, last)
            parts, size, count = [], 0, 0
        if not count:
            first = last = ts
        last = max(last, ts)
        parts += (head, body)
        size += len(head) + len(body)
        count += 1
    if count:
        yield Encoded(b"".join(parts), count, first, last)
