"""The formats that a file of events may have: how each is recognised, and how its lines become chunks of records."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Final, Literal

import msgspec
import numpy as np
from numpy.typing import NDArray

from stream.errors import SourceError
from stream.schema.events import MAX_RECORD_BYTES, MAX_TS, MIN_TS, BehaviorEvent

Format = Literal["csv", "jsonl", "parquet", "movielens", "elcrec"]
Role = Literal["user", "item", "ts", "action", "value"]

SAMPLE: Final = 1000  # records that are looked at to find out what a file is
_NAMES: Final[dict[Role, tuple[str, ...]]] = {
    "user": ("user", "user_id", "userid", "uid", "visitorid", "visitor_id", "customer_id", "reviewerid"),
    "item": ("item", "item_id", "itemid", "iid", "product_id", "movieid", "movie_id", "asin", "article_id"),
    "ts": ("ts", "timestamp", "time", "timestamp_ms", "unixreviewtime", "event_time"),
    "action": ("action",),
    "value": ("value", "rating"),
}
_OPTIONAL: Final[tuple[Role, ...]] = ("action", "value")
_MOVIELENS: Final[dict[Role, str]] = {"user": "0", "item": "1", "value": "2", "ts": "3"}
UNITS: Final = {"seconds": 1e3, "milliseconds": 1.0, "microseconds": 1e-3, "nanoseconds": 1e-6}  # times this are ms
_ELCREC_TS: Final = 946_684_800_000  # 2000-01-01: the format has no times
_SEPARATORS: Final = {b",": "commas", b"\t": "tabs", b";": "semicolons", b"|": "bars", b"::": "double colons"}
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, OverflowError, RecursionError)
_encode = msgspec.json.Encoder().encode


@dataclass(frozen=True)
class EventChunk:
    """Records `start` to `start + len(chunk)` of a file: columns of the rows, and what else there is.

    index (n,): place of each row in the chunk. broken: place and value of each record that is no row, so that the
    engine says what is wrong with it. unknown: rows that have fields beside ours, and these, as the engine counts them.
    lines: the file's own bytes of every record; none where it has no lines.
    """

    start: int
    users: list[str]
    items: list[str]
    ts: NDArray[np.int64]  # epoch milliseconds
    index: NDArray[np.int64]
    actions: list[str | None] | None = None
    numbers: list[float | None] | None = None  # the column `value`
    broken: list[tuple[int, bytes]] = field(default_factory=list)
    unknown: list[tuple[int, bytes]] = field(default_factory=list)
    lines: list[bytes] | None = None

    def __len__(self) -> int:
        return len(self.users) + len(self.broken)

    @cached_property
    def keys(self) -> list[bytes | None]:
        """The user of each record; None for a line that is no row."""
        return self._in_place([user.encode() for user in self.users], [])

    @cached_property
    def values(self) -> list[bytes]:
        """Each record as it goes onto the log, and as the engine judges it."""
        rows = zip(self.users, self.items, self.ts.tolist(), strict=True)
        if self.actions is None and self.numbers is None:
            made = [_encode(BehaviorEvent(user=user, item=item, ts=ts)) for user, item, ts in rows]
        else:
            none = [None] * len(self.users)
            more = zip(rows, self.actions or none, self.numbers or none, strict=True)
            made = [
                _encode(BehaviorEvent(user=user, item=item, ts=ts, action=action, value=value))
                for (user, item, ts), action, value in more
            ]
        for row, members in self.unknown:
            made[row] = made[row][:-1] + members
        return self._in_place(made, self.broken)

    @property
    def found(self) -> list[bytes]:
        """Each record's own bytes, as far as it has any."""
        return self.values if self.lines is None else self.lines

    def _in_place(self, rows: list[Any], others: Sequence[tuple[int, bytes]]) -> list[Any]:
        if not self.broken:
            return rows
        whole: list[Any] = [None] * len(self)
        for place, row in zip(self.index.tolist(), rows, strict=True):
            whole[place] = row
        for place, value in others:
            whole[place] = value
        return whole


@dataclass(frozen=True, slots=True)
class FileFormat:
    """What was found out about a file."""

    format: Format
    gzipped: bool
    columns: dict[Role, str]  # our name to the file's
    unit: str  # of the times: seconds, milliseconds, …, or "none"
    notes: list[str] = field(default_factory=list)
    rule: str = ""  # what a line must be; empty for JSON, of which the engine says it

    def __str__(self) -> str:
        columns = ", ".join(f"{role} = {name}" for role, name in self.columns.items())
        parts = [self.format + (", gzipped" if self.gzipped else ""), columns, f"times in {self.unit}", *self.notes]
        return "; ".join(part for part in parts if part)


class Parser:
    """Turns lines into chunks; one subclass per format."""

    facts: FileFormat
    rows: int | None = None

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        """Yield chunks of `n` records, the last one smaller; `lines` begins at the start of the file."""
        raise NotImplementedError


class _Separated(Parser):
    """Rows of separated fields: CSV in its variants, and MovieLens."""

    def __init__(self, facts: FileFormat, separator: bytes, places: dict[Role, int], width: int, header: bool) -> None:
        self.facts = facts
        self._separator, self._places, self._width, self._header = separator, places, width, header
        self._factor = UNITS[facts.unit]

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        if self._header:
            next(lines, None)
        start = 0
        while part := list(islice(lines, n)):
            yield self._good(start, part) or self._line_by_line(start, part)
            start += len(part)

    def _good(self, start: int, lines: list[bytes]) -> EventChunk | None:
        """All lines at once, when they are all rows without quotes."""
        separator, width = self._separator, self._width
        rows = [line.split(separator) for line in lines]
        if set(map(len, rows)) != {width} or (separator != b"::" and any([b'"' in line for line in lines])):
            return None
        return self._columns(start, list(zip(*rows, strict=True)), np.arange(len(lines)), [], lines)

    def _line_by_line(self, start: int, lines: list[bytes]) -> EventChunk:
        rows: list[list[bytes]] = []
        index: list[int] = []
        broken: list[tuple[int, bytes]] = []
        for place, line in enumerate(lines):
            row = split_quoted(line, self._separator)
            if (
                len(row) == self._width
                and self._columns(start, [(cell,) for cell in row], np.arange(1), [], []) is not None
            ):
                rows.append(row)
                index.append(place)
            else:
                broken.append((place, self._as_found(row) or line))
        columns = list(zip(*rows, strict=True)) if rows else [()] * self._width
        made = self._columns(start, columns, np.array(index, dtype=np.int64), broken, lines)
        assert made is not None
        return made

    def _columns(
        self,
        start: int,
        columns: Sequence[tuple[bytes, ...]],
        index: NDArray[np.int64],
        broken: list[tuple[int, bytes]],
        lines: list[bytes],
    ) -> EventChunk | None:
        """The chunk of these rows; None when a cell of any is not what it should be."""
        places = self._places
        try:
            users = [cell.decode() for cell in columns[places["user"]]]
            items = [cell.decode() for cell in columns[places["item"]]]
            ts = to_milliseconds(columns[places["ts"]], self._factor)
            actions = [c.decode() or None for c in columns[places["action"]]] if "action" in places else None
            numbers = [float(c) if c else None for c in columns[places["value"]]] if "value" in places else None
        except (ValueError, OverflowError):
            return None
        if numbers is not None and not all([number is None or abs(number) < np.inf for number in numbers]):
            return None
        return EventChunk(start, users, items, ts, index, actions, numbers, broken, lines=lines)

    def _as_found(self, row: list[bytes]) -> bytes | None:
        """The row under our names, a cell that is not what it should be as text; None when it cannot be put so."""
        if len(row) != self._width:
            return None
        try:
            made: dict[str, Any] = {role: row[place].decode() for role, place in self._places.items()}
        except UnicodeDecodeError:
            return None
        with suppress(ValueError, OverflowError):
            made["ts"] = int(to_milliseconds([row[self._places["ts"]]], self._factor)[0])
        if number := made.get("value"):
            with suppress(ValueError):
                made["value"] = float(number) if abs(float(number)) < np.inf else number
        return _encode({role: cell for role, cell in made.items() if cell != "" or role not in _OPTIONAL})


class _JsonLines(Parser):
    """One JSON object a line, its fields named as in `facts.columns`."""

    def __init__(self, facts: FileFormat) -> None:
        self.facts = facts
        # an action or a value may come later in the file than what was looked at
        self._names: dict[Role, str] = {role: role for role in _OPTIONAL} | facts.columns
        kinds: dict[Role, Any] = {
            "user": str | int,
            "item": str | int,
            "ts": int | float | str,
            "action": str | None,
            "value": float | None,
        }
        fields = [
            (role, kinds[role], msgspec.field(name=name, default=None))
            if role in _OPTIONAL
            else (role, kinds[role], msgspec.field(name=name))
            for role, name in self._names.items()
        ]
        self._decode: Callable[[bytes], Any] = _row_decoder(fields, forbid_unknown_fields=True)
        self._decode_known: Callable[[bytes], Any] = _row_decoder(fields, forbid_unknown_fields=False)
        self._known = frozenset(self._names.values())
        self._factor = UNITS[facts.unit]

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        start = 0
        while part := list(islice(lines, n)):
            yield self._chunk(start, part)
            start += len(part)

    def _chunk(self, start: int, lines: list[bytes]) -> EventChunk:
        rows: list[Any] = []
        index: list[int] = []
        broken: list[tuple[int, bytes]] = []
        unknown: list[tuple[int, bytes]] = []
        for place, line in enumerate(lines):
            row = self._row(self._decode, line)
            if row is None and (row := self._row(self._decode_known, line)) is not None:
                others = self._others(line)
                if others is None:  # what is beside our fields is not readable
                    row = None
                elif others:
                    unknown.append((len(rows), b"," + _encode(others)[1:]))
            if row is None:
                broken.append((place, self._as_found(line)))
                continue
            rows.append(row)
            index.append(place)
        ts = [row.ts for row in rows]
        actions, numbers = [row.action for row in rows], [row.value for row in rows]
        return EventChunk(
            start,
            [row.user if type(row.user) is str else _decimal(row.user) for row in rows],
            [row.item if type(row.item) is str else _decimal(row.item) for row in rows],
            scaled(np.array(ts, dtype=np.int64 if all([type(t) is int for t in ts]) else np.float64), self._factor),
            np.array(index, dtype=np.int64),
            actions if any(action is not None for action in actions) else None,
            numbers if any(number is not None for number in numbers) else None,
            broken,
            unknown,
            lines,
        )

    def _row(self, decode: Callable[[bytes], Any], line: bytes) -> Any:
        """The line as a row with a number for its time; None when it is none."""
        if len(line) > MAX_RECORD_BYTES:
            return None
        try:
            row = decode(line)
            row.ts = self._number(row.ts)
        except _UNREADABLE:
            return None
        return row

    def _as_found(self, line: bytes) -> bytes:
        """The object of the line under our names, with its other fields as unknown ones; the line when it is none."""
        others = self._others(line) if len(line) <= MAX_RECORD_BYTES else None
        if others is None:
            return line
        raw = msgspec.json.decode(line)
        made = {role: raw[name] for role, name in self._names.items() if name in raw}
        with suppress(*_UNREADABLE, TypeError, KeyError):
            made["ts"] = int(scaled(np.array([self._number(made["ts"])]), self._factor)[0])
        try:
            return _encode(made | others)
        except _UNREADABLE:
            return line

    def _others(self, line: bytes) -> dict[str, None] | None:
        """The fields beside ours, under names that are none of ours; None when the line is no JSON object."""
        try:
            raw = msgspec.json.decode(line)
        except _UNREADABLE:
            return None
        if not isinstance(raw, dict):
            return None
        return {f"_{name}" if name in _NAMES else name: None for name in raw if name not in self._known}

    def _number(self, ts: Any) -> int | float:
        """The time as a number that can be scaled; ValueError when it is none."""
        if type(ts) is int and abs(ts) < 1 << 62:
            return ts
        number = math.nan if isinstance(ts, bool) else float(ts)
        if not abs(number * self._factor) < 1 << 62:
            raise ValueError(f"{ts!r} is no time")
        return number


class _ElcRec(Parser):
    """`user item item …`, one user a line, in time order; there are no times: each event is a second after the last."""

    def __init__(self, facts: FileFormat) -> None:
        self.facts = facts

    def chunks(self, lines: Iterator[bytes], n: int) -> Iterator[EventChunk]:
        users: list[str] = []
        items: list[str] = []
        broken: list[tuple[int, bytes]] = []  # place among all records made so far since `start`
        start = 0
        for line in lines:
            try:
                user, *taken = line.decode().split()
            except ValueError:
                taken = []
            if taken:
                users += [user] * len(taken)
                items += taken
            else:
                broken.append((len(users) + len(broken), line))
            while len(users) + len(broken) >= n:
                chunk = _elcrec_chunk(start, users, items, broken)
                head = first(chunk, n)
                yield head
                users, items = users[len(head.users) :], items[len(head.users) :]
                broken = [(place - n, raw) for place, raw in broken if place >= n]
                start += n
        if users or broken:
            yield _elcrec_chunk(start, users, items, broken)


def _row_decoder(fields: Sequence[tuple[str, Any, Any]], *, forbid_unknown_fields: bool) -> Callable[[bytes], Any]:
    row = msgspec.defstruct("Row", fields, kw_only=True, forbid_unknown_fields=forbid_unknown_fields)
    return msgspec.json.Decoder(row).decode


def text_parser(path: Path, gzipped: bool, lines: list[bytes]) -> Parser:
    """Look at the first lines and choose."""
    if not lines:
        raise SourceError(f"{path}: is empty: nothing to replay")
    first = lines[0]
    if first.lstrip().startswith(b"{"):
        return _json_parser(path, gzipped, lines)
    if first.lstrip().startswith(b"["):
        raise SourceError(f"{path}: a JSON array: expected JSON lines, one object a line (jq -c '.[]' makes them)")
    for separator in (b"::", b"\t"):
        if _is_movielens(lines, separator):
            sample = [row[3] for line in lines if len(row := line.split(separator)) == 4]
            unit = find_unit(sample, "the fourth column", path)
            notes = [] if _in_order(sample) else ["not in time order"]
            places: dict[Role, int] = {role: int(place) for role, place in _MOVIELENS.items()}
            facts = FileFormat("movielens", gzipped, _MOVIELENS, unit, notes, _rule(4, separator))
            return _Separated(facts, separator, places, 4, header=False)
    separators = [one for one in _SEPARATORS if len(one) == 1 and one in first]
    name = path.name.removesuffix(".gz").lower()
    if separators or name.endswith((".csv", ".tsv")):
        return _csv_parser(path, gzipped, first, lines[1:], separators[0] if separators else b",")
    rows = [line.split() for line in lines[:SAMPLE]]
    if sum(len(row) >= 2 for row in rows) * 2 > len(rows) and max(map(len, rows)) >= 3:
        notes = ["no times in this format: one second from event to event, from 2000-01-01 on, user by user"]
        return _ElcRec(
            FileFormat("elcrec", gzipped, {}, "none", notes, "a user and at least one item, separated by blanks")
        )
    raise SourceError(
        f"{path}: unknown format, first line {first[:60].decode(errors='replace')!r}: expected CSV with a header, "
        "JSON lines, Parquet, MovieLens u.data or ratings.dat, or lines `user item item …`"
    )


def _is_movielens(lines: Sequence[bytes], separator: bytes) -> bool:
    rows = [line.split(separator) for line in lines[:20]]
    good = [len(row) == 4 and all(cell.replace(b".", b"", 1).isdigit() for cell in row) for row in rows]
    return sum(good) * 2 > len(good)


def _csv_parser(path: Path, gzipped: bool, header: bytes, lines: list[bytes], separator: bytes) -> Parser:
    names = [cell.decode(errors="replace").strip() for cell in split_quoted(header, separator)]
    columns = find_columns(names, path)
    if not lines:
        raise SourceError(f"{path}: has a header but no rows: nothing to replay")
    places: dict[Role, int] = {role: names.index(name) for role, name in columns.items()}
    rows = [row for line in lines if len(row := split_quoted(line, separator)) == len(names)]
    sample = [row[places["ts"]] for row in rows]
    unit = find_unit(sample, columns["ts"], path)
    notes = [] if _in_order(sample) else ["not in time order"]
    facts = FileFormat("csv", gzipped, columns, unit, notes, _rule(len(names), separator))
    return _Separated(facts, separator, places, len(names), header=True)


def _rule(width: int, separator: bytes) -> str:
    return f"{width} cells separated by {_SEPARATORS[separator]}"


def _json_parser(path: Path, gzipped: bool, lines: list[bytes]) -> Parser:
    rows = []
    for line in lines:
        try:
            row = msgspec.json.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            continue
        if isinstance(row, dict):
            rows.append(row)
    if not rows:
        raise SourceError(f"{path}: no line of the first {len(lines)} is a JSON object")
    columns = find_columns(list(dict.fromkeys(name for row in rows for name in row)), path)
    unit = find_unit([row.get(columns["ts"]) for row in rows], columns["ts"], path)
    return _JsonLines(FileFormat("jsonl", gzipped, columns, unit))


def find_columns(names: Sequence[str], path: Path) -> dict[Role, str]:
    """Find the columns by name, whatever the case.

    Raises
    ------
    SourceError
        There is no user, item or time among them.

    >>> find_columns(["User_ID", "item", "rating", "timestamp"], Path("x.csv"))
    {'user': 'User_ID', 'item': 'item', 'ts': 'timestamp', 'value': 'rating'}
    """
    by_lower = {name.lower(): name for name in reversed(names)}
    found: dict[Role, str] = {}
    for role, choices in _NAMES.items():
        for choice in choices:
            if choice in by_lower:
                found[role] = by_lower[choice]
                break
        else:
            if role in ("user", "item", "ts"):
                shown = ", ".join(name if name.isprintable() else repr(name) for name in names[:20]) + (
                    ", …" if len(names) > 20 else ""
                )
                raise SourceError(f"{path}: no column for {role}: found {shown}; expected one of {', '.join(choices)}")
    return found


def find_unit(sample: Sequence[Any], column: str, path: Path) -> str:
    """Tell seconds from milliseconds by where the times would lie: 1990 to 2100 holds for one unit only.

    >>> find_unit([b"1506826800", b"1506826801.5"], "ts", Path("x.csv"))
    'seconds'
    """
    numbers = []
    for value in sample:
        try:
            numbers.append(float(value))
        except (TypeError, ValueError):
            continue
    if not numbers:
        shown = next((value for value in sample if value is not None), None)
        text = shown.decode(errors="replace") if isinstance(shown, bytes) else shown
        raise SourceError(f"{path}: column {column}: {text!r} is no number: expected epoch seconds or milliseconds")
    middle = float(np.median(numbers))
    for unit, factor in UNITS.items():
        if MIN_TS <= middle * factor < MAX_TS:
            return unit
    raise SourceError(
        f"{path}: column {column}: {middle:.15g} is a time between 1990 and 2100 neither in seconds nor in milliseconds"
    )


def to_milliseconds(cells: Sequence[bytes], factor: float) -> NDArray[np.int64]:
    """Parse numbers and scale them; ValueError when one is none, or is not finite.

    >>> to_milliseconds([b"1506826800", b"1506826801.5"], 1e3).tolist()
    [1506826800000, 1506826801500]
    """
    try:
        return scaled(np.array(cells, dtype=np.bytes_).astype(np.int64), factor)
    except ValueError:
        values = np.array([float(cell) for cell in cells])
        if not (np.abs(values * factor) < 1 << 62).all():
            raise ValueError("not a time") from None
        return scaled(values, factor)


def split_quoted(line: bytes, separator: bytes) -> list[bytes]:
    """Split one line; quotes as in CSV. A line that cannot be split comes back whole.

    >>> split_quoted(b'a,"b, c",d', b",")
    [b'a', b'b, c', b'd']
    """
    if b'"' not in line or len(separator) > 1:
        return line.split(separator)
    try:
        text = line.decode(errors="surrogateescape")
        row = next(csv.reader([text], delimiter=separator.decode(), strict=True))
    except (csv.Error, StopIteration):
        return [line]
    return [cell.encode(errors="surrogateescape") for cell in row]


def scaled(values: NDArray[Any], factor: float) -> NDArray[np.int64]:
    """Times in milliseconds; `factor` is that of their unit in `UNITS`."""
    if values.dtype.kind == "i":
        if factor == 1.0:
            return np.asarray(values, dtype=np.int64)
        if factor < 1:
            return values // int(round(1 / factor))
        # what does not fit after scaling is no time either way: left as it is, and refused as bad_ts
        return np.where(np.abs(values) < 1 << 52, values, 0) * int(factor)
    return np.round(np.asarray(values, dtype=np.float64) * factor).astype(np.int64)


def _in_order(sample: Sequence[bytes]) -> bool:
    try:
        return bool((np.diff(to_milliseconds(sample, 1.0)) >= 0).all())
    except ValueError:
        return True


def _decimal(value: int) -> str:
    return (
        str(value) if -(1 << 200) < value < 1 << 200 else ""
    )  # an empty id is refused; str() of a huge one would raise


def _elcrec_chunk(start: int, users: list[str], items: list[str], broken: list[tuple[int, bytes]]) -> EventChunk:
    size = len(users) + len(broken)
    index = np.setdiff1d(np.arange(size), np.array([place for place, _ in broken], dtype=np.int64))
    return EventChunk(start, users, items, _ELCREC_TS + 1000 * (start + index), index, broken=broken)


def first(chunk: EventChunk, n: int) -> EventChunk:
    """Return the first `n` records of a chunk."""
    rows = int(np.searchsorted(chunk.index, n))
    return EventChunk(
        chunk.start,
        chunk.users[:rows],
        chunk.items[:rows],
        chunk.ts[:rows],
        chunk.index[:rows],
        chunk.actions[:rows] if chunk.actions is not None else None,
        chunk.numbers[:rows] if chunk.numbers is not None else None,
        [(place, value) for place, value in chunk.broken if place < n],
        [(row, members) for row, members in chunk.unknown if row < rows],
        chunk.lines[:n] if chunk.lines is not None else None,
    )


__all__ = [
    "EventChunk",
    "FileFormat",
    "Format",
    "Parser",
    "Role",
    "SAMPLE",
    "UNITS",
    "find_columns",
    "find_unit",
    "first",
    "scaled",
    "split_quoted",
    "text_parser",
    "to_milliseconds",
]
