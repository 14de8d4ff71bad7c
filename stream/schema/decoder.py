"""Records into events: a batch of bytes becomes columns of accepted events, rejections and requests to erase.

Whatever does not pass becomes a `Rejection` with a reason from a fixed list, the field, the value (shortened) and the
rule; nothing here raises on input.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Final

import msgspec
import numpy as np
from msgspec import Meta
from numpy.typing import NDArray

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
)

_SHOWN: Final = 80  # characters of a bad value that are kept


@dataclass(frozen=True, slots=True)
class Decoded:
    """What the records of a batch are."""

    events: EventBatch
    index: NDArray[np.int64]
    """(n,) place of each event among the records"""
    rejections: list[Rejection]
    erasures: list[Erasure]
    unknown_fields: int
    """fields that no version knows, over all good records"""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The form that most records have; whatever it refuses is looked at again, by itself."""

    user: str | int
    item: str | int
    ts: Annotated[int, Meta(ge=MIN_TS, lt=MAX_TS)]
    action: str | None = None
    value: float | None = None


class _Refused(Exception):
    def __init__(self, reason: Reason, field: str, value: object, rule: str) -> None:
        self.reason, self.field, self.rule = reason, field, rule
        self.value = _shortened(value)


class Decoder:
    """Turns batches of records into columns.

    The good case is one pass of typed decoding and a handful of checks over whole columns. A record that typed decoding
    refuses is looked at by itself; when a check over a column fails, each half is checked, down to the one at fault.
    """

    def __init__(self, actions: ActionsConfig) -> None:
        self._codes: dict[str | None, int] = {None: 0} | {name: code for code, name in enumerate(actions.names())}
        self._other = 0 if actions.other == "default" else -1
        self._names = ", ".join([*actions.names(), ERASE])
        self._strict = msgspec.json.Decoder(_Strict).decode

    def decode(self, values: Sequence[bytes | None], keys: Sequence[bytes | None]) -> Decoded:
        """Decode and validate; never raises on what the records contain. `keys` None: not checked."""
        collected = _Collected()
        strict = self._strict
        events: list[_Strict] = []
        index: list[int] = []
        for place, value in enumerate(values):
            try:
                events.append(strict(value))  # type: ignore[arg-type]  # None raises TypeError
                index.append(place)
            except (msgspec.MsgspecError, UnicodeError, TypeError, RecursionError):
                self._single(place, value, keys[place], collected)
        self._take(events, index, values, keys, collected)
        return collected.finish()

    def _take(
        self,
        events: list[_Strict],
        index: list[int],
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        collected: _Collected,
    ) -> None:
        if self._all_good(events, index, values, keys, collected):
            return
        if len(index) == 1:
            self._single(index[0], values[index[0]], keys[index[0]], collected)
            return
        half = len(index) // 2
        for part in (slice(half), slice(half, None)):
            self._take(events[part], index[part], values, keys, collected)

    def _all_good(
        self,
        events: list[_Strict],
        index: list[int],
        values: Sequence[bytes | None],
        keys: Sequence[bytes | None],
        collected: _Collected,
    ) -> bool:
        """Check whole columns; on True the events are in `collected`, on False nothing was changed."""
        if not events:
            return True
        if len(index) < len(values):
            values, keys = [values[place] for place in index], [keys[place] for place in index]
        try:
            codes = self._codes
            users = [e.user.encode() if type(e.user) is str else str(e.user).encode() for e in events]
            items = [e.item if type(e.item) is str else str(e.item) for e in events]
            actions = [codes[e.action] for e in events]
        except (KeyError, UnicodeError, ValueError):  # ValueError: an integer of thousands of digits
            return False
        if (
            max(map(len, values)) > MAX_RECORD_BYTES  # type: ignore[arg-type]  # there is no None among them
            or not all(users)
            or max(map(len, users)) > MAX_ID_BYTES
            or not all(items)
            or max(map(len, items)) * 4 > MAX_ID_BYTES  # a character has at most 4 bytes
            or any([key is not None and key != user for key, user in zip(keys, users, strict=True)])
            or any([e.value is not None and not math.isfinite(e.value) for e in events])
        ):
            return False
        collected.extend(users, items, [e.ts for e in events], actions, index)
        return True

    def _single(self, place: int, value: bytes | None, key: bytes | None, collected: _Collected) -> None:
        try:
            raw = _parsed(value)
            user = _identifier("user", raw)
            if key is not None and key != user:
                raise _Refused("key_mismatch", "key", key, f"the record's key must be the user, {_shortened(user)!r}")
            if raw.get("action") == ERASE:
                ts = raw.get("ts", MIN_TS)
                good = type(ts) is int and MIN_TS <= ts < MAX_TS
                collected.erasures.append(Erasure(place, user, ts if good else MIN_TS, events_before=0))
            else:
                item, ts, code = _identifier("item", raw).decode(), _time(raw), self._action(raw)
                _check_number(raw)
                collected.extend([user], [item], [ts], [code], [place])
        except _Refused as refused:
            collected.rejections.append(Rejection(place, refused.reason, refused.field, refused.value, refused.rule))
        else:
            collected.unknown_fields += len(raw.keys() - _FIELDS)

    def _action(self, raw: dict[str, Any]) -> int:
        action = raw.get("action")
        if action is not None and not isinstance(action, str):
            raise _Refused("wrong_type", "action", action, "text, or left out")
        code = self._codes.get(action, self._other)
        if code < 0:
            raise _Refused("unknown_action", "action", action, f"one of {self._names}")
        return code


class _Collected:
    """Columns in the making; records may come in any order."""

    def __init__(self) -> None:
        self.users: list[bytes] = []
        self.items: list[str] = []
        self.ts: list[int] = []
        self.actions: list[int] = []
        self.index: list[int] = []
        self.rejections: list[Rejection] = []
        self.erasures: list[Erasure] = []
        self.unknown_fields = 0

    def extend(self, users: list[bytes], items: list[str], ts: list[int], actions: list[int], index: list[int]) -> None:
        self.users += users
        self.items += items
        self.ts += ts
        self.actions += actions
        self.index += index

    def finish(self) -> Decoded:
        """Put everything into the order of the records."""
        index = np.array(self.index, dtype=np.int64)
        ts = np.array(self.ts, dtype=np.int64)
        actions = np.array(self.actions, dtype=np.uint8)
        if len(index) > 1 and (np.diff(index) < 0).any():
            order = np.argsort(index)
            index, ts, actions = index[order], ts[order], actions[order]
            self.users = [self.users[i] for i in order.tolist()]
            self.items = [self.items[i] for i in order.tolist()]
        self.rejections.sort(key=lambda rejection: rejection.index)
        self.erasures.sort(key=lambda erasure: erasure.index)
        erasures = [replace(one, events_before=int(np.searchsorted(index, one.index))) for one in self.erasures]
        events = EventBatch(self.users, self.items, ts, actions)
        return Decoded(events, index, self.rejections, erasures, self.unknown_fields)


def decode_events(
    values: Sequence[bytes | None], keys: Sequence[bytes | None] | None = None, actions: ActionsConfig | None = None
) -> Decoded:
    """Decode one batch; to decode many, keep a `Decoder`.

    >>> decoded = decode_events([b'{"user": 7, "item": "lamp", "ts": 1506826800000}', b"{}"])
    >>> decoded.events.users, decoded.events.items, decoded.rejections[0].reason, decoded.rejections[0].field
    ([b'7'], ['lamp'], 'missing_field', 'user')
    """
    return Decoder(actions or ActionsConfig()).decode(values, keys if keys is not None else [None] * len(values))


_FIELDS: Final = frozenset(BehaviorEvent.__struct_fields__)
_TIME_RULE: Final = f"epoch milliseconds from {MIN_TS} (1990) to below {MAX_TS} (2100)"


def _parsed(value: bytes | None) -> dict[str, Any]:
    if not value:
        raise _Refused("empty", "record", "", "a JSON object")
    if len(value) > MAX_RECORD_BYTES:
        raise _Refused("too_large", "record", f"{len(value)} bytes", f"at most {MAX_RECORD_BYTES} bytes")
    try:
        text = value.decode()
    except UnicodeDecodeError as exc:
        raise _Refused("not_utf8", "record", f"byte {exc.start}", "UTF-8") from None
    try:
        raw = msgspec.json.decode(value)
    except (msgspec.MsgspecError, UnicodeError, RecursionError, ValueError) as exc:
        _refuse_beyond(text)
        raise _Refused("not_json", "record", text, " ".join(str(exc).split())) from None
    if not isinstance(raw, dict):
        raise _Refused("not_an_object", "record", text, "a JSON object")
    return raw


class NonFiniteNumber(float):
    """A number that is JSON and no finite float; shown as it was written."""

    def __new__(cls, text: str) -> NonFiniteNumber:
        number = super().__new__(cls, text)
        number.text = text
        return number

    text: str

    def __repr__(self) -> str:
        return self.text


def _refuse_beyond(text: str) -> None:
    """Refuse JSON for a number such as 1e999, which msgspec does not read; nothing happens when it is not JSON."""

    def number(digits: str) -> float:
        return NonFiniteNumber(digits) if math.isinf(float(digits)) else float(digits)

    def constant(name: str) -> None:
        raise ValueError(f"{name} is no JSON")

    try:
        raw = json.loads(text, parse_float=number, parse_constant=constant)
    except (ValueError, RecursionError):
        return
    for name, value in raw.items() if isinstance(raw, dict) else ():
        if isinstance(value, NonFiniteNumber):
            raise _Refused("bad_value", _shortened(name) or "record", value, "a finite number")


def _present(name: str, raw: dict[str, Any]) -> Any:
    if name not in raw:
        raise _Refused("missing_field", name, "", f"{name} must be there")
    return raw[name]


def _identifier(name: str, raw: dict[str, Any]) -> bytes:
    value = _present(name, raw)
    if isinstance(value, bool) or not isinstance(value, str | int):
        raise _Refused("wrong_type", name, value, "text or an integer")
    if isinstance(value, int) and abs(value) >= 10**MAX_ID_BYTES:
        raise _Refused("bad_id", name, "an integer of very many digits", f"1 to {MAX_ID_BYTES} bytes of UTF-8")
    data = str(value).encode("utf-8", "surrogatepass")
    if not 1 <= len(data) <= MAX_ID_BYTES:
        raise _Refused("bad_id", name, value, f"1 to {MAX_ID_BYTES} bytes of UTF-8, not {len(data)}")
    return data


def _time(raw: dict[str, Any]) -> int:
    ts = _present("ts", raw)
    if type(ts) is not int:
        raise _Refused("wrong_type", "ts", ts, f"an integer, {_TIME_RULE}")
    if not MIN_TS <= ts < MAX_TS:
        hint = "; this looks like seconds" if MIN_TS <= ts * 1000 < MAX_TS else ""
        raise _Refused("bad_ts", "ts", ts, _TIME_RULE + hint)
    return ts


def _check_number(raw: dict[str, Any]) -> None:
    value = raw.get("value")
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise _Refused("wrong_type", "value", value, "a finite number, or left out")
    try:
        finite = math.isfinite(value)
    except OverflowError:  # an integer beyond the floats
        finite = False
    if not finite:
        raise _Refused("bad_value", "value", value, "a finite number")


def _shortened(value: object) -> str:
    if isinstance(value, bytes):
        text = value[: 4 * _SHOWN].decode("utf-8", "replace")
    elif isinstance(value, str):
        text = value[: _SHOWN + 1]
    else:
        try:
            text = repr(value)
        except ValueError:
            text = "an integer of very many digits"
    text = text.encode("utf-8", "replace").decode()
    return text if len(text) <= _SHOWN else text[: _SHOWN - 1] + "…"


__all__ = ["Decoded", "Decoder", "decode_events"]
