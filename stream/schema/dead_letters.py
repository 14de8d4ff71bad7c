"""The headers of a dead letter: why the record was refused, and where it lies."""

from __future__ import annotations

from typing import Final

import msgspec

from stream.log.base import Headers

REPLAYED: Final = b"replayed"  # the header `reason` of a mark


class DeadLetterHeaders(msgspec.Struct, frozen=True, kw_only=True):
    """What the headers say; a header that is missing or unreadable has its default."""

    reason: str = ""
    field: str = ""
    value: str = ""
    rule: str = ""
    topic: str = "?"
    partition: int = -1
    offset: int = -1
    size: int | None = None  # bytes of the whole key and value, where the letter holds their first bytes only

    @property
    def origin(self) -> str:
        """The record's place in the log.

        >>> DeadLetterHeaders(topic="behavior-events", partition=1, offset=7).origin
        'behavior-events[1] offset 7'
        """
        partition, offset = ("?" if number < 0 else str(number) for number in (self.partition, self.offset))
        return f"{self.topic}[{partition}] offset {offset}"


def decode_headers(headers: Headers) -> DeadLetterHeaders:
    """Read the headers of a dead letter; never raises on what they hold.

    >>> decode_headers((("reason", b"bad_ts"), ("offset", b"seven"))).offset
    -1
    """
    texts = {name: data.decode("utf-8", "replace") for name, data in headers}
    named = {name: texts[name] for name in ("reason", "field", "value", "rule", "topic") if name in texts}
    size = _number(texts.get("size", ""))
    return DeadLetterHeaders(
        **named,
        partition=_number(texts.get("partition", "")),
        offset=_number(texts.get("offset", "")),
        size=None if size < 0 else size,
    )


def encode_headers(letter: DeadLetterHeaders) -> Headers:
    """Write the headers of a dead letter."""
    headers = [(name, getattr(letter, name).encode()) for name in ("reason", "field", "value", "rule", "topic")]
    headers += [("partition", b"%d" % letter.partition), ("offset", b"%d" % letter.offset)]
    if letter.size is not None:
        headers.append(("size", b"%d" % letter.size))
    return tuple(headers)


def is_mark(headers: Headers) -> bool:
    """Whether a record of the dead-letter topic is a mark: it names letters that were sent again, and is none."""
    return ("reason", REPLAYED) in headers


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 20 else -1
