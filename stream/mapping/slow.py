"""Records one by one: those that compiled accessors do not take, and formats without any."""

from __future__ import annotations

import codecs
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import msgspec
import numpy as np

from stream.mapping.columns import EventField
from stream.mapping.extract import Fields
from stream.mapping.ids import id_text
from stream.mapping.reader import RecordReader, UnreadableRecord
from stream.mapping.shape import RecordShape
from stream.schema.bare_numbers import unwrapped, wrap_bare_numbers
from stream.schema.decoder import Decoded, Decoder, shortened
from stream.schema.events import ERASE, ActionsConfig, Reason, Rejection

MAX_MAPPED_BYTES: Final = 1 << 20  # of a record
MAX_EVENTS: Final = 10_000  # of a record
OWN_ERASURE: Final = b'"action":"erase"'
_ERASURE_BYTES: Final = 2048  # an id of 256 bytes as JSON, and the rest
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)
_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode


@dataclass(slots=True)
class _Made:
    """Records in our own shape, each with its place in the batch; and what needs no further look."""

    values: list[bytes] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    rejections: list[Rejection] = field(default_factory=list)
    skipped: int = 0


class _Refused(Exception):
    def __init__(self, reason: Reason, name: EventField, value: Any, rule: str) -> None:
        self.reason, self.name, self.rule = reason, name, rule
        value = unwrapped(value)
        self.value = shortened(value if isinstance(value, str | bytes) else str(value))


class OneByOne:
    """Turns records into records of our own shape, and lets the schema's decoder judge them."""

    def __init__(self, shape: RecordShape, actions: ActionsConfig, reader: RecordReader | None) -> None:
        self._shape, self._reader = shape, reader
        self._times = shape.times.reader()
        self._own = Decoder(actions)

    def decode(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        arrived_ms: Sequence[int] | None,
        places: Sequence[int],
    ) -> Decoded:
        """Decode the records at some places of a batch; the outcome names these places."""
        made = _Made()
        for place in places:
            self._make(values[place], place, made)
        arrived = None if arrived_ms is None else [arrived_ms[place] for place in made.places]
        found = self._own.decode(made.values, [keys[place] for place in made.places], arrived)
        origin = np.array(made.places, dtype=np.int64)
        judged = [replace(self._explained(one), index=made.places[one.index]) for one in found.rejections]
        first = {one.index: one for one in reversed([*made.rejections, *judged])}  # one dead letter a record
        return replace(
            found,
            index=origin[found.index],
            rejections=[first[place] for place in sorted(first)],
            erasures=[replace(one, index=made.places[one.index]) for one in found.erasures],
            skipped=made.skipped,
        )

    def _make(self, value: bytes | None, place: int, made: _Made) -> None:
        if is_own_erasure(value):
            made.values.append(value or b"")
            made.places.append(place)
            return
        if not value and self._shape.lenient:  # a tombstone
            made.skipped += 1
            return
        if value is not None and len(value) > MAX_MAPPED_BYTES:
            rule = f"at most {MAX_MAPPED_BYTES} bytes"
            made.rejections.append(Rejection(place, "too_large", "record", f"{len(value)} bytes", rule))
            return
        try:
            record = self._read(value)
        except UnreadableRecord as bad:
            made.rejections.append(Rejection(place, bad.reason, "record", shortened(bad.value), bad.rule))
            return
        except _UNREADABLE:
            record = None
        if record is None or isinstance(record, bool | int | float | str):
            made.values.append(value or b"")  # the schema's decoder says what is wrong with it
            made.places.append(place)
            return
        self._add_events(record, place, made)

    def _read(self, value: bytes | None) -> Any:
        if not value:
            return None
        if self._reader is not None:
            return self._reader.read(value)
        return _decode(wrap_bare_numbers(value.removeprefix(codecs.BOM_UTF8)))

    def _add_events(self, record: Any, place: int, made: _Made) -> None:
        events = self._shape.extractor.events(record) if self._shape.extractor.is_event(record) else []
        events = [one for one in events if not self._shape.is_skipped(one.get("action"), has_item="item" in one)]
        if not events:
            made.skipped += 1
        if len(events) > MAX_EVENTS:
            rule = f"at most {MAX_EVENTS} items in a record"
            made.rejections.append(Rejection(place, "too_large", "record", f"{len(events)} items", rule))
            return
        for event in events:
            try:
                value = _encode(self._own_shape(event))
            except _Refused as bad:
                rejection = Rejection(place, bad.reason, bad.name, bad.value, bad.rule)
                made.rejections.append(self._explained(rejection))
                continue
            made.values.append(value)
            made.places.append(place)

    def _own_shape(self, event: Fields) -> dict[str, Any]:
        """The fields under our names: ids as text, the time in epoch milliseconds, the action translated."""
        own: dict[str, Any] = {"user": self._id("user", event)}
        action = event.get("action")
        if isinstance(action, str | int):
            own["action"] = self._shape.actions.translate([str(action)])[0]
        elif action is not None:
            raise _Refused("wrong_type", "action", action, "text, or left out")
        if own.get("action") != ERASE:
            own["item"] = self._id("item", event)
        elif "ts" not in event:
            return own
        own["ts"] = self._time(event)
        if "value" in event:
            own["value"] = _number(event["value"])
        return own

    def _id(self, name: EventField, event: Fields) -> str:
        if name not in event:
            raise _Refused("missing_field", name, "", f"{name} is required")
        try:
            text = id_text(event[name])
        except ValueError:
            raise _Refused("wrong_type", name, event[name], "text or an integer") from None
        if not text:
            raise _Refused("missing_field", name, event[name], f"{name} is required")
        return text

    def _time(self, event: Fields) -> int:
        if "ts" not in event:
            raise _Refused("missing_field", "ts", "", "ts is required")
        try:
            return self._times.read(event["ts"])
        except (ValueError, TypeError, OverflowError):
            raise _Refused("bad_ts", "ts", event["ts"], f"a time: {self._times.description}") from None

    def _explained(self, bad: Rejection) -> Rejection:
        """The rejection with the path of the field, where that has another name than ours."""
        path = self._shape.texts.get(bad.field, bad.field)  # type: ignore[call-overload]  # "record" and "key" too
        return bad if path == bad.field else replace(bad, rule=f"{bad.rule} (read from {path})")


def is_own_erasure(value: bytes | None) -> bool:
    """Whether a record is a request to erase as `DELETE /users/{user}` writes it, into topics of every shape."""
    return value is not None and value.startswith(b'{"user":') and OWN_ERASURE in value[:_ERASURE_BYTES]


def _number(value: Any) -> float | str:
    """The number of a `value`; a text, which the schema's decoder leaves out, where there is none."""
    try:
        number = math.nan if isinstance(value, bool) else float(value)
    except (ValueError, TypeError, OverflowError):
        return "none"
    return number if math.isfinite(number) else "none"


__all__ = ["MAX_EVENTS", "MAX_MAPPED_BYTES", "OWN_ERASURE", "OneByOne", "is_own_erasure"]
