"""The pass that most JSON records take: typed decoding of the members that are needed, and a handful of checks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import compress
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.mapping.accessors import Accessors, FieldGetters, Getter, Getters
from stream.mapping.columns import EventField
from stream.mapping.extract import as_text
from stream.mapping.ids import id_text
from stream.mapping.shape import RecordShape
from stream.mapping.slow import MAX_EVENTS, MAX_MAPPED_BYTES
from stream.mapping.times import TimeReader
from stream.schema.decoder import Decoded
from stream.schema.event_batch import EventBatch
from stream.schema.events import ERASE, MAX_ID_BYTES, MAX_TS, MIN_TS, ActionsConfig, is_visible

_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, TypeError, AttributeError, OverflowError, RecursionError)
_KEPT: Final = 50_000  # ids and actions that are not converted again
_LONGEST_KEPT: Final = 1_000  # characters
_CHUNK: Final = 2_000  # records decoded at a time: their objects are freed before the next ones are made
_SKIPPED, _UNKNOWN = -2, -1  # beside the codes of actions


class _Kept:
    """Converts values, most of them once: what was made from each is kept."""

    def __init__(self, convert: Callable[[Any], Any]) -> None:
        self._convert = convert
        self._made: dict[Any, Any] = {}

    def convert(self, values: list[Any]) -> list[Any]:
        """What the values become; never None."""
        found = list(map(self._made.get, values))
        if None not in found:
            return found
        if len(self._made) > _KEPT:
            self._made.clear()
        for row, value in enumerate(values):
            if found[row] is None:
                found[row] = made = self._convert(value)
                if type(value) is not str or len(value) <= _LONGEST_KEPT:
                    self._made[value] = made
        return found


@dataclass(frozen=True, slots=True)
class _Rows:
    """What may become events, as parallel lists: the records, the members of their lists, and the records' places."""

    records: list[Any]
    members: list[Any]  # of a record without list: nothing that is used
    places: Sequence[int]


class _Gathered:
    """The values of each field for many rows, and the places of their records."""

    def __init__(self, fields: FieldGetters) -> None:
        self._fields = fields
        self.columns: dict[EventField, list[Any]] = {name: [] for name in fields}
        self.places: list[int] = []

    def add(self, rows: _Rows) -> None:
        """Take the values of some rows."""
        if rows.places:
            self.places.extend(rows.places)
            for name, getters in self._fields.items():
                self.columns[name].extend(_values(getters, rows.records, rows.members))


@dataclass(frozen=True, slots=True)
class TypedEvents:
    """What the typed pass took of a batch, and the places of the records that it left over."""

    decoded: Decoded
    others: list[int]


class TypedPass:
    """Takes the records that are as the shape says; whatever is unusual about one leaves it to the slow pass.

    It works on whole columns, field by field, because a Python loop over records costs more than decoding them.
    """

    def __init__(self, shape: RecordShape, actions: ActionsConfig, accessors: Accessors) -> None:
        self._shape, self._accessors = shape, accessors
        self._times = shape.times.reader()
        self._known = actions.codes()
        self._other = 0 if actions.other == "default" else _UNKNOWN
        self._users, self._items, self._codes = _Kept(_user), _Kept(_item), _Kept(self._code)

    def decode(
        self, values: Sequence[bytes | None], keys: Sequence[bytes | None], latest: NDArray[np.int64]
    ) -> TypedEvents:
        """Decode a batch of records; `latest` (n,) is the latest time that the event of each may have."""
        single, listed = _Gathered(self._accessors.of_record), _Gathered(self._accessors.of_member)
        others, skipped = list[int](), 0
        for start in range(0, len(values), _CHUNK):
            places, records, left = self._records(values[start : start + _CHUNK], start)
            if self._accessors.where:
                wanted = self._wanted(records)
                places, records = list(compress(places, wanted)), list(compress(records, wanted))
                skipped += len(wanted) - len(records)
            of_record, of_member, large = self._split(places, records)
            single.add(of_record)
            listed.add(of_member)
            others += left + large
        parts = [
            self._take(rows, _keys_at(keys, rows.places), latest[rows.places])
            for rows in (single, listed)
            if rows.places
        ]
        found = merge([_EMPTY if not parts else parts[0].decoded, *(part.decoded for part in parts[1:])], skipped)
        return TypedEvents(found, others + [place for part in parts for place in part.others])

    def _records(self, values: Sequence[bytes | None], start: int) -> tuple[Sequence[int], list[Any], list[int]]:
        """Places and records of what can be decoded, and the places of the rest; `start` is the first one's place."""
        decode = self._accessors.decode
        try:
            if max(map(len, values), default=0) <= MAX_MAPPED_BYTES:  # type: ignore[arg-type]  # None: TypeError
                return range(start, start + len(values)), list(map(decode, values)), []  # type: ignore[arg-type]
        except _UNREADABLE:
            pass
        places, records, others = list[int](), list[Any](), list[int]()
        for place, value in enumerate(values, start):
            try:
                if value is None or len(value) > MAX_MAPPED_BYTES:
                    raise ValueError
                records.append(decode(value))
                places.append(place)
            except _UNREADABLE:
                others.append(place)
        return places, records, others

    def _split(self, places: Sequence[int], records: list[Any]) -> tuple[_Rows, _Rows, list[int]]:
        """The records that are one event each, the members of the lists of others, and those with too many."""
        members_of = self._accessors.members
        if members_of is None:
            return _Rows(records, records, places), _Rows([], [], []), []
        rows, row_places = list[Any](), list[int]()
        all_members, owners, member_places, large = list[Any](), list[Any](), list[int](), list[int]()
        for place, record in zip(places, records, strict=True):
            members = _or_none(members_of, record)
            if not members:
                rows.append(record)
                row_places.append(place)
            elif len(members) > MAX_EVENTS:
                large.append(place)
            else:
                all_members.extend(members)
                owners.extend([record] * len(members))
                member_places.extend([place] * len(members))
        return _Rows(rows, rows, row_places), _Rows(owners, all_members, member_places), large

    def _wanted(self, records: list[Any]) -> list[bool]:
        """Whether each record is one of events."""
        wanted = [True] * len(records)
        for getters, allowed in self._accessors.where:
            found = _values(getters, records, records)
            texts = [one if type(one) is str else as_text(one) for one in found]
            wanted = [one and text in allowed for one, text in zip(wanted, texts, strict=True)]
        return wanted

    def _take(self, rows: _Gathered, keys: Sequence[bytes | None] | None, latest: NDArray[np.int64]) -> TypedEvents:
        """The events of some rows; a record of which one row is unusual is left over as a whole."""
        columns = rows.columns
        users = self._users.convert(columns["user"])
        items = self._items.convert(columns["item"])
        actions = columns.get("action")
        codes = [0] * len(users) if actions is None else self._codes.convert(actions)
        if self._shape.lenient and not all(items):
            codes = self._without_item(codes, items, actions or [None] * len(codes))
        ts = _times(self._times, columns["ts"])
        good = (ts >= MIN_TS) & (ts < MAX_TS) & (ts <= latest)
        if not (all(users) and all(items) and min(codes) >= 0):
            good &= [bool(user and item and code >= 0) for user, item, code in zip(users, items, codes, strict=True)]
        if keys is not None:
            good &= [key is None or key == user for key, user in zip(keys, users, strict=True)]
        if "value" in columns:
            good &= [type(one) is not str for one in columns["value"]]
        places = np.array(rows.places, dtype=np.int64)
        if good.all():
            batch = EventBatch(users, items, ts, np.array(codes, dtype=np.uint8))
            return TypedEvents(Decoded(batch, places, [], [], 0, 0), [])
        skipped = np.array(codes) == _SKIPPED
        left = np.unique(places[~good & ~skipped])
        taken = good & ~np.isin(places, left) if len(left) else good
        chosen = np.flatnonzero(taken).tolist()
        batch = EventBatch(
            [users[row] for row in chosen],
            [items[row] for row in chosen],
            ts[chosen],
            np.array([codes[row] for row in chosen], dtype=np.uint8),
        )
        without = len(np.unique(places)) - len(np.unique(places[taken])) - len(left)
        return TypedEvents(Decoded(batch, places[taken], [], [], 0, 0, without), left.tolist())

    def _without_item(self, codes: list[int], items: list[str], actions: list[Any]) -> list[int]:
        """The codes, `_SKIPPED` where the record has no item and is skipped for that."""
        return [
            _SKIPPED if not item and self._shape.is_skipped(action, has_item=False) else code
            for code, item, action in zip(codes, items, actions, strict=True)
        ]

    def _code(self, action: str | int | None) -> int:
        """The code of an action as the records name it, or `_SKIPPED` or `_UNKNOWN`."""
        if action is None:
            return 0
        if str(action) in self._shape.skipped_actions:
            return _SKIPPED
        name = self._shape.actions.translate([str(action)])[0]
        return _UNKNOWN if name == ERASE else self._known.get(name or "", self._other)


def merge(parts: Sequence[Decoded], skipped: int = 0) -> Decoded:
    """Parts of a batch in the order of its records; `skipped` are added to those of the parts."""
    first, skipped = parts[0], skipped + sum(part.skipped for part in parts)
    if len(parts) == 1:
        return replace(first, skipped=skipped)
    index = np.concatenate([part.index for part in parts])
    order = np.argsort(index, kind="stable")
    index, events = index[order], EventBatch.concatenate([part.events for part in parts])
    rows = order.tolist()
    users, items = [events.users[row] for row in rows], [events.items[row] for row in rows]
    erasures = [one for part in parts for one in part.erasures]
    return Decoded(
        EventBatch(users, items, events.ts[order], events.actions[order]),
        index,
        [one for part in parts for one in part.rejections],
        [replace(one, events_before=int(np.searchsorted(index, one.index))) for one in erasures],
        0,
        sum(part.values_dropped for part in parts),
        skipped,
    )


_EMPTY: Final = Decoded(EventBatch.concatenate([]), np.zeros(0, dtype=np.int64), [], [], 0, 0)


def _keys_at(keys: Sequence[bytes | None], places: Sequence[int]) -> list[bytes | None] | None:
    """The keys of the records at some places; None when there are none to check."""
    if all([key is None for key in keys]):
        return None
    return [keys[place] for place in places]


def _values(getters: Getters, records: list[Any], members: list[Any]) -> list[Any]:
    """The first value that each row has, None without any."""
    found: list[Any] = [None] * len(records)
    rows: Sequence[int] = range(len(records))
    for number, (in_member, get) in enumerate(getters):
        source = members if in_member else records
        if number == 0:
            found = _got(get, source)
        else:
            for row, value in zip(rows, _got(get, [source[row] for row in rows]), strict=True):
                found[row] = value
        if None not in found:
            break
        rows = [row for row in rows if found[row] is None]
    return found


def _got(get: Getter, source: list[Any]) -> list[Any]:
    try:
        return list(map(get, source))
    except AttributeError:  # a null on the way
        return [_or_none(get, one) for one in source]


def _or_none(get: Getter, record: Any) -> Any:
    try:
        return get(record)
    except AttributeError:
        return None


def _times(reader: TimeReader, values: list[Any]) -> NDArray[np.int64]:
    """The times, (n,); -1 for one that is none."""
    try:
        return reader.read_values(values)
    except _UNREADABLE:
        found = np.full(len(values), -1, dtype=np.int64)
        for row, value in enumerate(values):
            with suppress(*_UNREADABLE):
                found[row] = reader.read(value)
        return found


def _user(raw: str | int | None) -> bytes:
    """The user's id; empty for one that the slow pass must look at."""
    try:
        user = b"" if raw is None else id_text(raw).encode()
    except ValueError:
        return b""
    return user if len(user) <= MAX_ID_BYTES and is_visible(user.decode()) else b""


def _item(raw: str | int | None) -> str:
    """The item's id; empty for one that the slow pass must look at."""
    try:
        item = "" if raw is None else id_text(raw)
    except ValueError:
        return ""
    return item if len(item) <= MAX_ID_BYTES // 4 and is_visible(item) else ""  # a character has at most 4 bytes


__all__ = ["TypedEvents", "TypedPass", "merge"]
