"""The content of a spool file: appends with their idempotency keys, as columns, under a checksum."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Final

import msgspec

from stream.log.base import AppendRequest, Headers, Message

_FORMAT: Final = 2  # 1: messages without a key, which earlier versions read too


class _TopicMessages(msgspec.Struct, frozen=True, array_like=True):
    topic: str
    keys: list[bytes | None]
    values: list[bytes | None]
    timestamps_ms: list[int]
    headers: list[Headers] | None
    partitions: list[int | None] | None


class _Request(msgspec.Struct, frozen=True, array_like=True):
    idempotency_key: bytes | None
    topics: list[_TopicMessages]


class _Version(msgspec.Struct, frozen=True, array_like=True):
    format: int


class _File1(_Version, frozen=True, array_like=True):
    topics: list[_TopicMessages]


class _File(_Version, frozen=True, array_like=True):
    requests: list[_Request]


_encode = msgspec.msgpack.Encoder().encode
_decode_version = msgspec.msgpack.Decoder(_Version).decode
_decode_1 = msgspec.msgpack.Decoder(_File1).decode
_decode = msgspec.msgpack.Decoder(_File).decode


def dump(requests: Sequence[AppendRequest]) -> bytes:
    """The bytes of a spool file."""
    if any(r.idempotency_key is not None for r in requests):
        body = _encode(_File(_FORMAT, [_Request(r.idempotency_key, _columns(r.messages)) for r in requests]))
    else:
        body = _encode(_File1(1, _columns([message for r in requests for message in r.messages])))
    return zlib.crc32(body).to_bytes(4, "big") + body


def load(raw: bytes) -> list[AppendRequest]:
    """The appends of a spool file; `ValueError` for a damaged file or one of a newer version."""
    if len(raw) < 4 or zlib.crc32(raw[4:]) != int.from_bytes(raw[:4], "big"):
        raise ValueError("checksum does not match")
    version = _decode_version(raw[4:]).format
    if version == 1:
        return [AppendRequest(_messages(_decode_1(raw[4:]).topics))]
    if version != _FORMAT:
        raise ValueError(f"format {version}, this version reads up to {_FORMAT}")
    return [AppendRequest(_messages(r.topics), r.idempotency_key) for r in _decode(raw[4:]).requests]


def _columns(messages: Sequence[Message]) -> list[_TopicMessages]:
    topics: dict[str, list[Message]] = {}
    for message in messages:
        topics.setdefault(message.topic, []).append(message)
    return [
        _TopicMessages(
            topic,
            [m.key for m in group],
            [m.value for m in group],
            [m.timestamp_ms for m in group],
            [m.headers for m in group] if any(m.headers for m in group) else None,
            [m.partition for m in group] if any(m.partition is not None for m in group) else None,
        )
        for topic, group in topics.items()
    ]


def _messages(topics: Sequence[_TopicMessages]) -> list[Message]:
    messages = []
    for part in topics:
        n = len(part.keys)
        headers = part.headers or [()] * n
        partitions = part.partitions or [None] * n
        rows = zip(part.keys, part.values, part.timestamps_ms, headers, partitions, strict=True)
        messages += [Message(part.topic, k, v, ts, h, p) for k, v, ts, h, p in rows]
    return messages
