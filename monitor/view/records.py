"""What the monitor keeps of a record, in a form that is small and decodes fast."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import msgspec

from stream.log.base import Headers
from stream.schema.messages import DriftAlert, ErasureReceipt, Intent, IntentShift, Recommendations, StreamMetrics


class HistoryItem(msgspec.Struct, frozen=True, array_like=True):
    """An event of a user's history."""

    item: str
    ts: int  # event time, epoch milliseconds
    action: str | None = None


class Point(msgspec.Struct, frozen=True, array_like=True):
    """A worker's report, on the curves."""

    ts: int  # wall clock, epoch milliseconds
    worker: str
    step: int
    events: int
    gauges: dict[str, float]


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """The catalogue after one step: intent -> (share, x, y)."""

    step: int
    intents: dict[int, tuple[float, float, float]]


class DeadLetter(msgspec.Struct, frozen=True):
    """A refused record; `value` and `key` are what came, shortened and made readable."""

    offset: int
    reason: str
    field: str
    found: str
    rule: str
    source: str  # topic[partition] offset
    value: str
    key: str
    ts: int  # epoch milliseconds
    size: int  # bytes of the whole value


recommendations = msgspec.json.Decoder(Recommendations).decode
shift = msgspec.json.Decoder(IntentShift).decode
intent = msgspec.json.Decoder(Intent).decode
alert = msgspec.json.Decoder(DriftAlert).decode
receipt = msgspec.json.Decoder(ErasureReceipt).decode
taken = msgspec.msgpack.Decoder(HistoryItem).decode
point = msgspec.msgpack.Decoder(Point).decode
sample = msgspec.msgpack.Decoder(Sample).decode
dead_letter = msgspec.msgpack.Decoder(DeadLetter).decode
pack = msgspec.msgpack.Encoder().encode
to_json = msgspec.json.Encoder().encode

SHOWN_BYTES = 2048


def metrics(value: bytes) -> StreamMetrics:
    """A worker's report; figures that are not finite (null on the wire) are left out."""
    raw = msgspec.json.decode(value)
    if isinstance(raw, dict) and isinstance(raw.get("gauges"), dict):
        raw["gauges"] = {name: figure for name, figure in raw["gauges"].items() if figure is not None}
    return msgspec.convert(raw, StreamMetrics)


def readable(data: bytes | None) -> str:
    r"""Bytes as text that can be shown: the first 2 kB, control characters and broken UTF-8 made visible.

    >>> ascii(readable(bytes([97, 0, 255])))
    "'a\\u2400\\ufffd'"
    """
    if data is None:
        return ""
    text = data[:SHOWN_BYTES].decode("utf-8", "replace")
    return "".join(chr(0x2400 + ord(c)) if ord(c) < 32 and c not in "\n\t" else c for c in text)


def letter(offset: int, key: bytes | None, value: bytes | None, ts: int, headers: Headers) -> DeadLetter:
    """The dead letter as it is kept."""
    said = {name: data.decode("utf-8", "replace")[:300] for name, data in headers}
    return DeadLetter(
        offset=offset,
        reason=said.get("reason", "unknown"),
        field=said.get("field", ""),
        found=said.get("value", ""),
        rule=said.get("rule", ""),
        source=f"{said.get('topic', '?')}[{said.get('partition', '?')}] offset {said.get('offset', '?')}",
        value=readable(value),
        key=readable(key),
        ts=ts,
        size=int(said["size"]) if said.get("size", "").isdecimal() else len(value or b""),  # a long one was cut
    )


def thinned(points: Sequence[Any], most: int) -> list[Any]:
    """At most `most` of the points, evenly spread, the last one always there.

    >>> thinned(range(10), 4)
    [0, 3, 6, 9]
    """
    if len(points) <= most:
        return list(points)
    step = math.ceil((len(points) - 1) / (most - 1))
    chosen = list(points[::step])
    return chosen if chosen[-1] == points[-1] else [*chosen, points[-1]]
