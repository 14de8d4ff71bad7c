"""Records into events: a batch of bytes becomes columns of accepted events, rejections and requests to erase.

Whatever does not pass becomes a `Rejection` with a reason from a fixed list, the field, the value (shortened) and the
rule; nothing here raises on input. Each record is judged once, in time linear in its bytes: numbers of many digits are
never converted, because that takes time in the square of their digits.
"""

from __future__ import annotations

import codecs
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Final

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

from stream.schema.bare_numbers import unwrap_bare_number, wrap_bare_numbers
from stream.schema.event_batch import EventBatch
from stream.schema.events import (
    ERASE,
    MAX_ID_BYTES,
    MAX_RECORD_BYTES,
    MAX_TS,
    MIN_TS,
    ActionsConfig,
    BehaviorEvent,
    Erasure,
    Reason,
    Rejection,
    is_visible,
)

_SHOWN: Final = 80  # characters of a bad value that are kept
_FAST_BYTES: Final = 700  # of a record for typed decoding, which converts integers of any length
_NUMBER_BYTES: Final = 400  # of a `value`; the largest float has 309 digits
_FIELDS: Final = frozenset(BehaviorEvent.__struct_fields__)
_TIME_RULE: Final = f"epoch milliseconds from {MIN_TS} (1990) to below {MAX_TS} (2100)"
_ID_RULE: Final = f"1 to {MAX_ID_BYTES} bytes of UTF-8"
_VISIBLE_RULE: Final = "one visible character at least, and no NUL"
_integer = re.compile(rb"-?[0-9]+").fullmatch
_parse = msgspec.json.Decoder(msgspec.Raw).decode
_parse_fields = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_parse_text = msgspec.json.Decoder(str).decode


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the records of a batch are."""

    events: EventBatch
    index: NDArray[np.int64]
    """(n,) place of each event among the records, several times that of a record with several items"""
    rejections: list[Rejection]
    erasures: list[Erasure]
    unknown_fields: int
    """fields that no version knows, over all good records"""
    values_dropped: int
    """events whose `value` is no finite number, and was left out"""
    skipped: int = 0
    """records that the section `[events]` says are no events"""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The form that most records have; records it refuses are checked field by field."""

    user: str | int
    item: str | int
    ts: Annotated[int, Meta(ge=MIN_TS, lt=MAX_TS)]
    action: str | None = None
    value: float | None = None


class _Event(msgspec.Struct, frozen=True, gc=False):
    """One accepted event."""

    place: int
    user: bytes
    item: str
    ts: int
    action: int


class _Refused(Exception):
    def __init__(self, reason: Reason, field: str, value: str | bytes, rule: str) -> None:
        self.reason, self.field, self.rule = reason, field, rule
        self.value = shortened(value)


class Decoder:
    """Turns batches of records into columns.

    Most records take one pass of typed decoding and a handful of checks over whole columns; the others are parsed into
    their fields, which are checked one by one.

    Parameters
    ----------
    actions
        Names of the actions, and how far an event may be ahead of the arrival of its record.
    """

    def __init__(self, actions: ActionsConfig) -> None:
        self._codes: dict[str | None, int] = {None: 0} | actions.codes()
        self._other = 0 if actions.other == "default" else -1
        self._names = ", ".join([*actions.names(), ERASE])
        self._max_ahead_ms = actions.max_ahead_ms
        self._strict = msgspec.json.Decoder(_Strict).decode

    def prepare(self, values: Sequence[bytes | None]) -> None:
        """Nothing is needed to decode our own JSON."""

    def decode(
        self,
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        arrived_ms: Sequence[int] | None = None,
    ) -> Decoded:
        """Decode and validate n records; never raises on what they contain.

        Parameters
        ----------
        values
            (n,) the records.
        keys
            (n,) their keys, each None or the user.
        arrived_ms
            (n,) when each arrived, epoch milliseconds, 0 or less where that is unknown; of a file, now. None: unknown.
        """
        latest = self._latest(len(values), arrived_ms)
        events, others = self._typed(values, keys, latest)
        rejections: list[Rejection] = []
        erasures: list[Erasure] = []
        unknown_fields = values_dropped = 0
        for place in others:
            try:
                fields = _fields(values[place])
                user = _user(fields, keys[place])
                action = _text(fields.get("action"))
                if action == ERASE:
                    erasures.append(Erasure(place, user, _erasure_ts(fields), events_before=0))
                else:
                    item, ts = _identifier("item", fields).decode(), _time(fields, latest[place])
                    events.append(_Event(place, user, item, ts, self._code(action, fields)))
                    values_dropped += not _is_number(fields.get("value"))
                unknown_fields += len(fields.keys() - _FIELDS)
            except _Refused as refused:
                rejections.append(Rejection(place, refused.reason, refused.field, refused.value, refused.rule))
        if others:
            events.sort(key=lambda event: event.place)
        index = np.array([event.place for event in events], dtype=np.int64)
        erasures = [replace(one, events_before=int(np.searchsorted(index, one.index))) for one in erasures]
        return Decoded(_columns(events), index, rejections, erasures, unknown_fields, values_dropped)

    def _latest(self, count: int, arrived_ms: Sequence[int] | None) -> list[int]:
        """Latest time that the event of each record may have, (n,)."""
        if arrived_ms is None:
            return [MAX_TS] * count
        return [MAX_TS if arrived <= 0 else arrived + self._max_ahead_ms for arrived in arrived_ms]

    def _typed(
        self, values: Sequence[bytes | None], keys: Sequence[bytes | None], latest: Sequence[int]
    ) -> tuple[list[_Event], list[int]]:
        """Events of the records that typed decoding accepts, and the places of the others, rising."""
        strict, codes, other = self._strict, self._codes, self._other
        events: list[_Event] = []
        others: list[int] = []
        for place, value in enumerate(values):
            if value is None or len(value) > _FAST_BYTES:
                others.append(place)
                continue
            try:
                event = strict(value)
                user = event.user.encode() if type(event.user) is str else str(event.user).encode()
            except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError):
                others.append(place)
                continue
            item = event.item if type(event.item) is str else str(event.item)
            code, key = codes.get(event.action, other), keys[place]
            if (
                0 < len(user) <= MAX_ID_BYTES
                and 0 < len(item) <= MAX_ID_BYTES // 4  # a character has at most 4 bytes
                and is_visible(item)
                and (type(event.user) is not str or is_visible(event.user))
                and (code > 0 or event.action in codes)
                and (key is None or key == user)
                and event.ts <= latest[place]
                and (event.value is None or math.isfinite(event.value))
            ):
                events.append(_Event(place, user, item, event.ts, code))
            else:
                others.append(place)
        return events, others

    def _code(self, action: str | None, fields: dict[str, bytes]) -> int:
        if action is None:
            if fields.get("action", b"null") != b"null":
                raise _Refused("wrong_type", "action", fields["action"], "text, or left out")
            return 0
        code = self._codes.get(action, self._other)
        if code < 0:
            raise _Refused("unknown_action", "action", action, f"one of {self._names}")
        return code


def decode_events(
    values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None, actions: ActionsConfig | None = None
) -> Decoded:
    """Decode one batch; to decode many, keep a `Decoder`.

    >>> decoded = decode_events([b'{"user": 7, "item": "lamp", "ts": 1506826800000}', b"{}"])
    >>> decoded.events.users, decoded.events.items, decoded.rejections[0].reason, decoded.rejections[0].field
    ([b'7'], ['lamp'], 'missing_field', 'user')
    """
    return Decoder(actions or ActionsConfig()).decode(values, keys if keys is not None else [None] * len(values))


def _columns(events: Sequence[_Event]) -> EventBatch:
    return EventBatch(
        [event.user for event in events],
        [event.item for event in events],
        np.array([event.ts for event in events], dtype=np.int64),
        np.array([event.action for event in events], dtype=np.uint8),
    )


def _fields(value: bytes | None) -> dict[str, bytes]:
    """The fields of a record, each as its JSON text: nothing in them is converted."""
    value = value.removeprefix(codecs.BOM_UTF8) if value else value
    if not value:
        raise _Refused("empty", "record", "", "a JSON object")
    if len(value) > MAX_RECORD_BYTES:
        raise _Refused("too_large", "record", f"{len(value)} bytes", f"at most {MAX_RECORD_BYTES} bytes")
    try:
        value.decode()
    except UnicodeDecodeError as exc:
        raise _Refused("not_utf8", "record", f"byte {exc.start}", "UTF-8") from None
    value = wrap_bare_numbers(value)
    try:
        _parse(value)
        return {name: unwrap_bare_number(bytes(token)) for name, token in _parse_fields(value).items()}
    except msgspec.ValidationError:
        raise _Refused("not_an_object", "record", value, "a JSON object") from None
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError) as exc:
        raise _Refused("not_json", "record", value, " ".join(str(exc).split())) from None


def _text(token: bytes | None) -> str | None:
    """The text of a token; None for one of another type."""
    return _parse_text(token) if token is not None and token.startswith(b'"') else None


def _present(name: str, fields: dict[str, bytes]) -> bytes:
    if name not in fields:
        raise _Refused("missing_field", name, "", f"{name} is required")
    return fields[name]


def _user(fields: dict[str, bytes], key: bytes | None) -> bytes:
    user = _identifier("user", fields)
    if key is not None and key != user:
        rule = f'the record\'s key must be the user, {shortened(user)!r}, unless `events.key` is "ignore"'
        raise _Refused("key_mismatch", "key", key, rule)
    return user


def _identifier(name: str, fields: dict[str, bytes]) -> bytes:
    token = _present(name, fields)
    if token.startswith(b'"'):
        text = _parse_text(token)
        data = text.encode()
        if not 1 <= len(data) <= MAX_ID_BYTES:
            raise _Refused("bad_id", name, text, f"{_ID_RULE}, not {len(data)}")
        if not is_visible(text):
            raise _Refused("bad_id", name, ascii(text), _VISIBLE_RULE)
        return data
    if not _integer(token):
        raise _Refused("wrong_type", name, token, "text or an integer")
    if len(token) > MAX_ID_BYTES:
        raise _Refused("bad_id", name, token, f"{_ID_RULE}, not {len(token)}")
    return b"0" if token == b"-0" else token


def _time(fields: dict[str, bytes], latest: int) -> int:
    token = _present("ts", fields)
    if not _integer(token):
        raise _Refused("wrong_type", "ts", _text(token) or token, f"an integer, {_TIME_RULE}")
    ts = int(token) if len(token) <= len(str(MAX_TS)) + 1 else MAX_TS
    if not MIN_TS <= ts < MAX_TS:
        hint = "; this looks like seconds" if MIN_TS <= ts * 1000 < MAX_TS else ""
        raise _Refused("bad_ts", "ts", token, _TIME_RULE + hint)
    if ts > latest:
        raise _Refused(
            "bad_ts", "ts", token, f"at most {latest}, which is the arrival of the record and `actions.max_ahead_ms`"
        )
    return ts


def _erasure_ts(fields: dict[str, bytes]) -> int:
    """Time of a request to erase; the earliest there is where it says none that is valid."""
    try:
        return _time(fields, MAX_TS)
    except _Refused:
        return MIN_TS


def _is_number(token: bytes | None) -> bool:
    """Whether `value` may stay: a finite number, or nothing."""
    if token is None or token == b"null":
        return True
    if token[:1] not in b"-0123456789" or len(token) > _NUMBER_BYTES:
        return False
    return math.isfinite(float(token))


def shortened(value: str | bytes) -> str:
    """The begin of a bad value, as a dead letter shows it."""
    text = value[: 4 * _SHOWN].decode("utf-8", "replace") if isinstance(value, bytes) else value[: _SHOWN + 1]
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


__all__ = ["Decoded", "Decoder", "decode_events", "shortened"]
