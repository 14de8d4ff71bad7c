"""What the monitor keeps of a record, in a form that is small and decodes fast."""

from __future__ import annotations

from typing import Annotated, Final

import msgspec
from msgspec import Meta

from stream.log.base import Headers
from stream.schema.dead_letters import decode_headers
from stream.schema.messages import DriftAlert, ErasureReceipt, Intent, IntentShift, Recommendations, StreamMetrics

SHOWN_BYTES: Final = 2048
_HEADER_CHARACTERS: Final = 300
_VISIBLE: Final = {code: 0x2400 + code for code in range(32) if chr(code) not in "\n\t"}


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
    """The catalog after one step: intent -> (share, x, y)."""

    step: int
    intents: dict[int, tuple[float, float, float]]


class DeadLetterView(msgspec.Struct, frozen=True):
    """A dead letter; key and value are its first 2 kB, with unreadable characters replaced."""

    offset: int
    reason: str
    field: str
    found: str
    rule: str
    source: Annotated[str, Meta(description="topic[partition] and offset of the record")]
    value: str
    key: str
    ts: Annotated[int, Meta(description="when the record was appended, epoch milliseconds")]
    size: Annotated[int, Meta(description="bytes of the whole record")]


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """A drift episode; `closed` is null while it is open.

    `opened` is the closing alert where the opening one is no longer kept.
    """

    opened: DriftAlert
    closed: DriftAlert | None = None


decode_recommendations = msgspec.json.Decoder(Recommendations).decode
decode_shift = msgspec.json.Decoder(IntentShift).decode
decode_intent = msgspec.json.Decoder(Intent).decode
decode_alert = msgspec.json.Decoder(DriftAlert).decode
decode_receipt = msgspec.json.Decoder(ErasureReceipt).decode
decode_history_item = msgspec.msgpack.Decoder(HistoryItem).decode
decode_point = msgspec.msgpack.Decoder(Point).decode
decode_sample = msgspec.msgpack.Decoder(Sample).decode
decode_dead_letter = msgspec.msgpack.Decoder(DeadLetterView).decode
pack = msgspec.msgpack.Encoder().encode
to_json = msgspec.json.Encoder().encode


def decode_report(value: bytes) -> StreamMetrics:
    """A worker's report; figures that are not finite (null on the wire) are left out."""
    raw = msgspec.json.decode(value)
    if isinstance(raw, dict) and isinstance(raw.get("gauges"), dict):
        raw["gauges"] = {name: figure for name, figure in raw["gauges"].items() if figure is not None}
    return msgspec.convert(raw, StreamMetrics)


def readable(data: bytes | None) -> str:
    r"""Bytes as text: the first 2 kB, with control characters and broken UTF-8 replaced by visible characters.

    >>> ascii(readable(bytes([97, 0, 255])))
    "'a\\u2400\\ufffd'"
    """
    if data is None:
        return ""
    text = data[:SHOWN_BYTES].decode("utf-8", "replace")
    return text.translate(_VISIBLE)


def dead_letter_view(offset: int, key: bytes | None, value: bytes | None, ts: int, headers: Headers) -> DeadLetterView:
    """A record of the dead-letter topic as the monitor keeps it."""
    letter = decode_headers(headers)
    return DeadLetterView(
        offset=offset,
        reason=letter.reason[:_HEADER_CHARACTERS] or "unknown",
        field=letter.field[:_HEADER_CHARACTERS],
        found=letter.value[:_HEADER_CHARACTERS],
        rule=letter.rule[:_HEADER_CHARACTERS],
        source=letter.origin[:_HEADER_CHARACTERS],
        value=readable(value),
        key=readable(key),
        ts=ts,
        size=len(value or b"") if letter.size is None else letter.size,
    )
